-- Posts bodies that lie in a folder, one connection a thread, and times each answer by its status.
-- wrk -t N -c N -d SECONDS -s serve.lua URL/ROUTE -- FOLDER BODIES SECONDS_BETWEEN
-- With SECONDS_BETWEEN above 0 each thread sends at most so often. Prints a line of JSON.

local ffi = require("ffi")
ffi.cdef[[ typedef struct { long seconds; long nanoseconds; } moment;
           int clock_gettime(int clock, moment *now); ]]
local moment = ffi.new("moment")

local function now()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.seconds) + tonumber(moment.nanoseconds) * 1e-9
end

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local folder, bodies, of = args[1], tonumber(args[2]), tonumber(args[4] or "1")
  between = tonumber(args[3] or "0")
  requests, sent, started, due, taken = {}, 0, 0, nil, {}
  local headers = { ["Content-Type"] = "application/json" }
  local most = math.max(2, math.ceil(bodies / of))
  for i = 0, math.min(bodies, most) - 1 do
    local file = io.open(string.format("%s/%d.json", folder, ((number or 0) + i * of) % bodies), "rb")
    table.insert(requests, wrk.format("POST", nil, headers, file:read("*a")))
    file:close()
  end
end

function request()
  sent = sent + 1
  started = now()
  return requests[sent % #requests + 1]
end

function response(status)
  table.insert(taken, string.format("%d %.1f", status, (now() - started) * 1000))
end

local function pace()
  local time = now()
  -- The first requests are spread, so that threads do not send all at once for ever. Who waited
  -- long for an answer makes up for it.
  due = due and due + between or time + between * ((number or 0) * 0.618034 % 1)
  return math.max(0, due - time) * 1000
end

delay = pace

function done(summary)
  local errors = summary.errors
  print(string.format("seconds %.3f", summary.duration / 1e6))
  print(string.format("errors %d", errors.connect + errors.read + errors.write + errors.timeout))
  for _, thread in ipairs(threads) do
    print(table.concat(thread:get("taken"), "\n"))
  end
end
