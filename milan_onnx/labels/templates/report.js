"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const take = (id) => {
    const value = JSON.parse(element(id).textContent);
    element(id).remove(); // the text is as large as the page
    return value;
  };
  const data = take("data");
  const photos = take("photos");
  const units = data.units;
  const confident = units.some((unit) => unit.s[3] !== null); // else PMI is what is shown
  const root = document.documentElement.style;
  const DIM = 0.7; // the paper has 0.75; here a little more of the surroundings can be made out
  const OUTLINE = "rgba(255, 221, 120, 0.9)";
  const KEPT_PHOTOS = 800;
  const PRINTED_UNITS = 400;
  const FILTERS = ["q", "re", "nbest", "layer", "flag", "sort"];

  // ---- small helpers -------------------------------------------------------------------------

  function make(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(properties || {})) {
      if (key in node) node[key] = value;
      else node.setAttribute(key, value);
    }
    node.append(...children); // strings become text, never markup
    return node;
  }

  function figure(value, decimals = 2) {
    return value === null ? "–" : value.toFixed(decimals).replace("-", "−");
  }

  function activation(value) {
    return value === null ? "–" : String(Number(value.toPrecision(4))).replace("-", "−");
  }

  // A confidence as it is shown everywhere, rounded down: 73 %.
  const percent = (value) => (value === null ? "–" : `${Math.floor(Math.round(1e4 * value) / 100)} %`);

  const grouped = (count) => count.toLocaleString("en");
  const plain = (text) => text.toLowerCase().replaceAll('"', "");
  const byUnit = (a, b) => units[a].l - units[b].l || units[a].u - units[b].u;

  // ---- masks: bits to a smooth outline --------------------------------------------------------

  function unpack(text) {
    const raw = atob(text.slice(1));
    const cells = new Uint8Array(data.grid * data.grid);
    if (text[0] === "b") {
      for (let i = 0; i < cells.length; i++) cells[i] = (raw.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1;
      return cells;
    }
    let at = 0;
    for (let run = 0; run < raw.length; run++) {
      const end = at + raw.charCodeAt(run);
      if (run & 1) cells.fill(1, at, end);
      at = end;
    }
    return cells;
  }

  // A light blur with a border of zeros: the outline then rounds the steps between cells, thin
  // lines survive, and every loop closes.
  function softened(cells) {
    const n = data.grid;
    const clamp = (i) => Math.min(n - 1, Math.max(0, i));
    const across = new Float32Array(n * n);
    for (let y = 0; y < n; y++) {
      for (let x = 0; x < n; x++) {
        const row = y * n;
        across[row + x] = (cells[row + clamp(x - 1)] + 4 * cells[row + x] + cells[row + clamp(x + 1)]) / 6;
      }
    }
    const field = new Float32Array((n + 2) * (n + 2));
    for (let y = 0; y < n; y++) {
      for (let x = 0; x < n; x++) {
        field[(y + 1) * (n + 2) + x + 1] =
          (across[clamp(y - 1) * n + x] + 4 * across[y * n + x] + across[clamp(y + 1) * n + x]) / 6;
      }
    }
    return field;
  }

  // Edges of a square of four field values, between which a contour runs: for each of the 16 cases
  // of corners inside (1 top left, 2 top right, 4 bottom right, 8 bottom left), with the inside on
  // one hand, so that pieces join end to start. Edges: 0 top, 1 right, 2 bottom, 3 left.
  const CASES = [
    [], [[3, 0]], [[0, 1]], [[3, 1]], [[1, 2]], [[3, 0], [1, 2]], [[0, 2]], [[3, 2]],
    [[2, 3]], [[2, 0]], [[0, 1], [2, 3]], [[2, 1]], [[1, 3]], [[1, 0]], [[0, 3]], [],
  ];

  // The outline of a mask as a path in units of the frame (0 to 1), by marching squares. Edges have
  // numbers: twice the field's index of their first corner, and one more if they run down.
  function outline(text) {
    const side = data.grid + 2;
    const level = 0.42;
    const field = softened(unpack(text));
    const next = new Int32Array(2 * side * side).fill(-1);
    const starts = [];
    for (let y = 0; y + 1 < side; y++) {
      for (let x = 0; x + 1 < side; x++) {
        const a = y * side + x, b = a + 1, d = a + side, c = d + 1;
        const inside = (field[a] > level) | ((field[b] > level) << 1) | ((field[c] > level) << 2) | ((field[d] > level) << 3);
        if (inside === 0 || inside === 15) continue;
        const edges = [2 * a, 2 * b + 1, 2 * d, 2 * a + 1];
        for (const [from, to] of CASES[inside]) {
          next[edges[from]] = edges[to];
          starts.push(edges[from]);
        }
      }
    }
    const point = (edge) => {
      const a = edge >> 1;
      const share = (level - field[a]) / (field[edge & 1 ? a + side : a + 1] - field[a]);
      const x = (a % side) + (edge & 1 ? 0 : share) - 0.5;
      const y = Math.floor(a / side) + (edge & 1 ? share : 0) - 0.5;
      return [Math.min(1, Math.max(0, x / data.grid)), Math.min(1, Math.max(0, y / data.grid))];
    };
    return looped(next, starts, point);
  }

  function looped(next, starts, point) {
    const path = new Path2D();
    for (const first of starts) {
      if (next[first] < 0) continue;
      path.moveTo(...point(first));
      for (let edge = first; next[edge] >= 0;) {
        const after = next[edge];
        next[edge] = -1;
        edge = after;
        if (edge !== first) path.lineTo(...point(edge));
      }
      path.closePath();
    }
    return path;
  }

  // ---- photos ---------------------------------------------------------------------------------

  const loaded = new Map(); // position to a promise of a decoded image, the latest last

  function photo(position) {
    if (photos.bodies[position] === null) return Promise.resolve(null);
    let promise = loaded.get(position);
    if (promise) loaded.delete(position);
    else {
      const image = new Image();
      image.src = "data:image/jpeg;base64," + photos.head + photos.bodies[position];
      promise = image.decode().then(() => image, () => null);
    }
    loaded.set(position, promise);
    if (loaded.size > KEPT_PHOTOS) loaded.delete(loaded.keys().next().value);
    return promise;
  }

  function paint(canvas, image, mask, width, line) {
    const scale = Math.max(1, window.devicePixelRatio || 1);
    const w = Math.max(1, Math.round(width * scale));
    const h = Math.max(1, Math.round((w * data.height) / data.width));
    canvas.width = w;
    canvas.height = h;
    const context = canvas.getContext("2d");
    if (!image) return missing(context, w, h);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, w, h);
    if (!state.masks) return;
    const shape = new Path2D();
    shape.addPath(outline(mask), new DOMMatrix([w, 0, 0, h, 0, 0]));
    const around = new Path2D(shape);
    around.rect(0, 0, w, h);
    context.fillStyle = `rgba(0, 0, 0, ${DIM})`;
    context.fill(around, "evenodd");
    context.strokeStyle = OUTLINE;
    context.lineWidth = line * scale;
    context.lineJoin = "round";
    context.stroke(shape);
  }

  function missing(context, w, h) {
    context.strokeStyle = "rgba(128, 128, 128, 0.5)";
    context.strokeRect(0.5, 0.5, w - 1, h - 1);
    context.moveTo(0, 0);
    context.lineTo(w, h);
    context.stroke();
  }

  // ---- cards ----------------------------------------------------------------------------------

  const cards = new Map(); // unit number in data to its element, made when first listed
  let thumbWidth = 0;

  const link = (unit) =>
    "#" + encodeURIComponent(data.layers[unit.l]).replaceAll("%2F", "/") + "/" + unit.u;

  function card(number) {
    if (cards.has(number)) return cards.get(number);
    const unit = units[number];
    const heading = make("div", { className: "heading" }, make("h3", { className: "description" }));
    if (frequency.get(unit.d) > 1) heading.append(sharers(unit.d));
    const body = make("div", { className: "body" },
      make("div", { className: "line" }, heading, scores(unit)),
      where(unit));
    if (unit.x.length) body.append(strip(number));
    if (unit.c.length > (confident ? 0 : 1)) body.append(others(unit));
    const name = make("a", { className: "unit", href: link(unit), title: "Link to this unit" },
      make("small", {}, "unit"), String(unit.u));
    const made = make("article", { className: "card", tabIndex: -1 }, make("div", {}, name), body);
    made.setAttribute("aria-label", `unit ${unit.u} of ${data.layers[unit.l]}`);
    made.dataset.number = number;
    watch.observe(made);
    cards.set(number, made);
    return made;
  }

  function sharers(description) {
    const count = frequency.get(description);
    const made = make("button", { type: "button", className: "sharers", title: `${count} units have this description: list them` }, `×${count}`);
    made.addEventListener("click", () => searchExactly(description, state.layer));
    return made;
  }

  function scores(unit) {
    const [pmi, given, prior, sure] = unit.s;
    const row = make("p", { className: "scores" });
    if (sure !== null) {
      row.append(confidence(sure));
      if (unit.v) row.append(validity(unit.v, false));
      return row;
    }
    if (pmi === null && given === null) return row;
    if (unit.v) row.append(validity(unit.v, true));
    row.append(
      make("span", { title: "log p(d|E) − λ log p(d): how much better the description fits these exemplars than any. Higher is better." },
        "PMI ", make("b", {}, figure(pmi))),
      make("span", { title: "How likely the captioner finds the description, given the exemplars (natural logarithm)." },
        "log p(d|E) ", figure(given)),
      make("span", { title: "How likely the description is with no exemplars in view (natural logarithm)." },
        "log p(d) ", figure(prior)));
    return row;
  }

  const share = (value) => `${100 * Math.min(1, Math.max(0, value ?? 0))}%`;

  function bar(value) {
    const made = make("i", { className: "bar" });
    made.style.setProperty("--own", share(value));
    return made;
  }

  function confidence(sure) {
    return make("span", { className: "confidence", title: "The probability that a person would call this description right." },
      "confidence ", make("b", {}, percent(sure)), bar(sure));
  }

  // With a bar from 0 to 1 and a tick where descriptions of other units come to, where the bar is
  // not the confidence's.
  function validity([own, shuffled, auprc, shuffledAuprc, images], drawn) {
    const line = bar(own);
    if (shuffled !== null) {
      line.classList.add("ticked");
      line.style.setProperty("--shuffled", share(shuffled));
    }
    const title = `On ${images} photos that the description was not made from, log p(d|region) correlates with the activation: ${figure(own)}; for descriptions of other units of the layer: ${figure(shuffled)}. AUPRC ${figure(auprc)}, shuffled ${figure(shuffledAuprc)}.`;
    const parts = drawn ? [make("b", {}, figure(own)), line] : [figure(own), " · "];
    return make("span", { className: "validity", title }, "validity ", ...parts, `shuffled ${figure(shuffled)}`);
  }

  function where(unit) {
    const row = make("p", { className: "where" });
    if (data.layers.length > 1) row.append(make("span", {}, data.layers[unit.l]));
    for (const flag of unit.f) {
      const badge = make("span", { className: "flag" }, flag);
      if (/^[a-z]+$/.test(flag)) badge.classList.add(flag);
      row.append(badge);
    }
    row.hidden = !row.childNodes.length;
    return row;
  }

  function others(unit) {
    const details = make("details", { className: "more" },
      make("summary", {}, confident ? "Candidates and scores" : `${unit.c.length} best candidates`));
    details.addEventListener("toggle", () => {
      if (!details.open || details.querySelector("table")) return;
      const head = ["description", ...(confident ? ["confidence"] : []), "PMI", "log p(d|E)", "log p(d)"];
      details.append(make("table", {},
        make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, ...unit.c.map(([text, ...scores]) => {
          const sure = scores.pop();
          const cells = [...(confident ? [percent(sure)] : []), ...scores.map((score) => figure(score))];
          return make("tr", {}, make("td", {}, text), ...cells.map((cell) => make("td", {}, cell)));
        }))));
    });
    return details;
  }

  function describe(number) {
    const unit = units[number];
    const heading = card(number).querySelector(".description");
    heading.classList.toggle("none", unit.d === null);
    heading.classList.toggle("abstained", unit.f.includes("abstained"));
    if (unit.d === null) {
      const why = unit.f.find((flag) => flag === "dead" || flag === "constant");
      heading.replaceChildren(why ? `No description: the unit is ${why}` : "No description");
    } else heading.replaceChildren(...marked(unit.d));
  }

  function marked(text) {
    if (!query.marks.length) return [text];
    const parts = [];
    let at = 0;
    for (const [from, to] of spans(text)) {
      if (from < at || to === from) continue;
      parts.push(text.slice(at, from), make("mark", {}, text.slice(from, to)));
      at = to;
    }
    parts.push(text.slice(at));
    return parts;
  }

  function spans(text) {
    const found = [];
    for (const pattern of query.marks) {
      for (const match of text.matchAll(pattern)) found.push([match.index, match.index + match[0].length]);
    }
    return found.sort((a, b) => a[0] - b[0]);
  }

  // ---- strips: thumbnails only near the view ---------------------------------------------------

  const waiting = new Set(); // strips to fill, when there is time
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const row = target.querySelector(".strip");
      if (!row) continue;
      if (isIntersecting) later(row);
      else {
        waiting.delete(row);
        if (!row.contains(document.activeElement)) row.replaceChildren();
      }
    }
  }, { rootMargin: "700px 0px" });

  function later(row) {
    if (!waiting.size) requestAnimationFrame(work);
    waiting.add(row);
  }

  // Fills strips for some milliseconds of each frame, so that scrolling never waits for them.
  function work() {
    const end = performance.now() + 7;
    for (const row of waiting) {
      waiting.delete(row);
      fill(row);
      if (performance.now() > end) break;
    }
    if (waiting.size) requestAnimationFrame(work);
  }

  function strip(number) {
    const made = make("div", { className: "strip", role: "group" });
    made.setAttribute("aria-label", "exemplars");
    made.dataset.number = number;
    for (const columns of [8, 5]) {
      made.style.setProperty(`--rows-${columns}`, Math.ceil(units[number].x.length / columns));
    }
    return made;
  }

  function fill(row) {
    if (row.childNodes.length) return Promise.resolve();
    const unit = units[row.dataset.number];
    row.append(...unit.x.map(([position, value], rank) => {
      const title = `${photos.names[position]}\nactivation ${activation(value)}`;
      const made = make("button", { type: "button", className: "thumb", title, tabIndex: rank ? -1 : 0 },
        make("canvas"));
      made.setAttribute("aria-label", `exemplar ${rank + 1}: ${photos.names[position]}, activation ${activation(value)}`);
      return made;
    }));
    return repaint(row);
  }

  function repaint(row) {
    const unit = units[row.dataset.number];
    const canvases = [...row.querySelectorAll("canvas")];
    if (!thumbWidth && canvases.length) thumbWidth = canvases[0].clientWidth;
    return Promise.all(canvases.map((canvas, rank) =>
      photo(unit.x[rank][0]).then((image) => {
        if (canvas.isConnected) paint(canvas, image, unit.x[rank][2], thumbWidth || 96, 0.9);
      })));
  }

  function repaintAll() {
    for (const row of list.querySelectorAll(".strip")) if (row.childNodes.length) repaint(row);
    if (box.open) show();
  }

  // ---- search, filters, order ------------------------------------------------------------------

  const list = element("list");
  const state = { q: "", re: "", nbest: "", layer: "", flag: "", sort: "", masks: true };
  let query = { test: () => true, marks: [] };
  let listed = [];

  const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|\/-]/g, "\\$&");
  const START = "(?<![\\p{L}\\p{N}])";
  const END = "(?![\\p{L}\\p{N}])";

  function compile() {
    if (state.re) {
      if (!state.q) return { test: () => true, marks: [] };
      const pattern = new RegExp(state.q, "iu");
      return { test: (texts) => texts.some((text) => pattern.test(text)), marks: [new RegExp(state.q, "giu")] };
    }
    const terms = [...state.q.matchAll(/([-=]?)(?:"([^"]*)"?|(\S+))/g)].map(term).filter(Boolean);
    return {
      test: (texts, unit) => terms.every((one) => texts.some((text) => one.test(text, unit)) !== one.without),
      marks: terms.filter((one) => !one.without && one.mark).map((one) => one.mark),
    };
  }

  function term([, sign, phrase, word]) {
    const text = phrase === undefined ? word : phrase.trim();
    if (!text) return null;
    if (sign === "=") {
      const whole = plain(text);
      return { test: (other) => plain(other) === whole, without: false, mark: null };
    }
    const source = START + escaped(text) + (phrase === undefined ? "" : END);
    const pattern = new RegExp(source, "iu");
    const isNumber = /^\d+$/.test(text);
    return {
      test: (other, unit) => pattern.test(other) || (isNumber && unit.u === Number(text)),
      without: sign === "-",
      mark: new RegExp(source, "giu"),
    };
  }

  function matches(unit) {
    if (state.layer && data.layers[unit.l] !== state.layer) return false;
    if (state.flag === "none" ? unit.f.length : state.flag && !unit.f.includes(state.flag.slice(1))) return false;
    const texts = [unit.d || ""];
    if (state.nbest) texts.push(...unit.c.map((candidate) => candidate[0]));
    return query.test(texts, unit);
  }

  const frequency = new Map();
  for (const unit of units) if (unit.d) frequency.set(unit.d, (frequency.get(unit.d) || 0) + 1);
  const often = (number) => frequency.get(units[number].d) || 0;
  const pmi = (number, absent) => units[number].s[0] ?? absent;
  const sure = (number, absent) => units[number].s[3] ?? absent;
  const valid = (number, absent) => units[number].v?.[0] ?? absent;
  const text = (number) => units[number].d;
  // Units without a description come last in every order but that of the units.
  const byText = (a, b) =>
    (text(a) === null) - (text(b) === null) || (text(a) || "").localeCompare(text(b) || "") || byUnit(a, b);
  const ORDERS = {
    "": byUnit,
    sure: (a, b) => sure(b, -1) - sure(a, -1) || byUnit(a, b),
    unsure: (a, b) => sure(a, 2) - sure(b, 2) || byUnit(a, b),
    pmi: (a, b) => pmi(b, -Infinity) - pmi(a, -Infinity) || byUnit(a, b),
    worst: (a, b) => pmi(a, Infinity) - pmi(b, Infinity) || byUnit(a, b),
    valid: (a, b) => valid(b, -2) - valid(a, -2) || byUnit(a, b),
    doubtful: (a, b) => valid(a, 2) - valid(b, 2) || byUnit(a, b),
    text: byText,
    common: (a, b) => often(b) - often(a) || byText(a, b),
  };

  function apply() {
    let problem = "";
    try {
      query = compile();
    } catch (error) {
      problem = "Not a regular expression yet.";
      query = { test: () => false, marks: [] };
    }
    listed = [...units.keys()].filter((number) => matches(units[number]));
    listed.sort(ORDERS[state.sort] || byUnit);
    listed.forEach(describe);
    list.replaceChildren(...listed.map(card));
    const all = units.length;
    element("count").textContent =
      (listed.length === all ? "" : `${grouped(listed.length)} of `) + `${grouped(all)} unit${all === 1 ? "" : "s"}`;
    element("nothing").hidden = listed.length > 0;
    element("reason").textContent = problem || "No unit matches.";
    element("q").classList.toggle("bad", Boolean(problem));
  }

  // ---- the address: #layer/unit names a unit, #q=…&layer=… a search ----------------------------

  function remember() {
    const parameters = new URLSearchParams();
    for (const key of FILTERS) if (state[key]) parameters.set(key, state[key]);
    const hash = parameters.toString();
    history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
  }

  function recall() {
    const hash = location.hash.slice(1);
    const parameters = new URLSearchParams(hash);
    const isSearch = FILTERS.some((key) => hash.startsWith(key + "="));
    if (isSearch) for (const key of FILTERS) state[key] = parameters.get(key) || "";
    controls();
    const target = isSearch || !hash ? -1 : units.findIndex((unit) => link(unit) === "#" + normal(hash));
    if (target >= 0 && !(listed.includes(target))) clear();
    if (isSearch || !listed.length) apply();
    if (target >= 0) visit(target);
  }

  function normal(hash) {
    try {
      return encodeURIComponent(decodeURIComponent(hash)).replaceAll("%2F", "/");
    } catch (error) {
      return hash;
    }
  }

  function visit(number) {
    for (const old of list.querySelectorAll(".here")) old.classList.remove("here");
    card(number).classList.add("here");
    card(number).focus({ preventScroll: true });
    align(card(number), 4);
  }

  // Again in the next frames: cards above take their true height only as they come into view.
  function align(made, times) {
    made.scrollIntoView({ block: "start" });
    if (times) requestAnimationFrame(() => align(made, times - 1));
  }

  function clear() {
    for (const key of FILTERS) if (key !== "sort") state[key] = "";
    controls();
    apply();
  }

  function controls() {
    for (const id of ["q", "layer", "flag", "sort"]) element(id).value = state[id];
    element("regex").setAttribute("aria-pressed", Boolean(state.re));
    element("nbest").setAttribute("aria-pressed", Boolean(state.nbest));
    for (const id of ["masks", "box-masks"]) element(id).setAttribute("aria-pressed", state.masks);
  }

  function set(changes) {
    Object.assign(state, changes);
    controls();
    apply();
    remember();
    // Deep in the list, another list would be shown from its middle.
    if (list.getBoundingClientRect().top < 0) list.scrollIntoView({ block: "start" });
  }

  function searchExactly(description, layer) {
    set({ q: `="${description.replaceAll('"', "")}"`, re: "", nbest: "", layer, flag: "" });
  }

  function toggleMasks() {
    state.masks = !state.masks;
    controls();
    repaintAll();
  }

  // ---- one exemplar, large ---------------------------------------------------------------------

  const box = element("box");
  let shown = { number: 0, rank: 0 };

  function show() {
    const unit = units[shown.number];
    const [position, value, mask] = unit.x[shown.rank];
    element("box-unit").textContent =
      `${data.layers[unit.l]} · unit ${unit.u} · exemplar ${shown.rank + 1} of ${unit.x.length}`;
    element("box-description").textContent = unit.d === null ? "No description" : unit.d;
    element("box-name").textContent = photos.names[position];
    element("box-activation").textContent = activation(value);
    element("box-threshold").textContent = activation(unit.t);
    element("previous").disabled = shown.rank === 0;
    element("next").disabled = shown.rank === unit.x.length - 1;
    if (!box.open) box.showModal();
    const canvas = element("large");
    canvas.setAttribute("aria-label", photos.names[position]);
    photo(position).then((image) => paint(canvas, image, mask, canvas.clientWidth || 400, 1.5));
  }

  function turn(by) {
    const rank = shown.rank + by;
    if (rank < 0 || rank >= units[shown.number].x.length) return;
    shown = { number: shown.number, rank };
    show();
  }

  // ---- events ----------------------------------------------------------------------------------

  function choices() {
    const perLayer = data.layers.map((_, l) => units.filter((unit) => unit.l === l).length);
    element("layer").append(...data.layers.map((name, l) =>
      make("option", { value: name }, `${name} (${perLayer[l]})`)));
    element("layer").hidden = data.layers.length < 2;
    const flags = new Map();
    for (const unit of units) for (const flag of unit.f) flags.set(flag, (flags.get(flag) || 0) + 1);
    const free = units.filter((unit) => !unit.f.length).length;
    element("flag").append(make("option", { value: "none" }, `No flags (${free})`),
      ...[...flags.keys()].sort().map((flag) => make("option", { value: "=" + flag }, `${flag} (${flags.get(flag)})`)));
    element("flag").hidden = !flags.size;
    if (!units.some((unit) => unit.v)) {
      for (const name of ["valid", "doubtful"]) element("sort").querySelector(`[value=${name}]`).remove();
    }
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (box.open) return onBoxKey(event);
    if (/^(input|select|textarea)$/i.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      element("q").focus();
      element("q").select();
    } else if (event.key === "m") toggleMasks();
    else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    else if (event.target.classList.contains("thumb")) onThumbKey(event);
  }

  function onBoxKey(event) {
    if (event.key === "ArrowLeft") turn(-1);
    else if (event.key === "ArrowRight") turn(1);
    else if (event.key === "m") toggleMasks();
  }

  function onThumbKey(event) {
    const side = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
    const other = side && event.target[side];
    if (!other) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    other.tabIndex = 0;
    other.focus();
  }

  function step(by) {
    if (!listed.length) return;
    const here = list.querySelector(".here");
    const at = here ? listed.indexOf(Number(here.dataset.number)) : -1;
    visit(listed[Math.min(listed.length - 1, Math.max(0, at + by))]);
  }

  function onThumb(event) {
    const thumb = event.target.closest(".thumb");
    if (!thumb) return;
    shown = {
      number: Number(thumb.parentNode.dataset.number),
      rank: [...thumb.parentNode.children].indexOf(thumb),
    };
    show();
  }

  // Cards not yet laid out are taken to be as high as the first that has a strip.
  function guessHeight() {
    const typical = listed.slice(0, 20).find((number) => units[number].x.length && units[number].d);
    if (typical === undefined) return;
    const one = card(typical);
    one.classList.add("measured");
    root.setProperty("--card-height", `${one.clientHeight}px`);
    one.classList.remove("measured");
  }

  async function print() {
    const printed = listed.slice(0, PRINTED_UNITS).map(card);
    for (const one of printed) {
      watch.unobserve(one);
      const row = one.querySelector(".strip");
      if (row) await fill(row);
    }
    window.print();
    for (const one of printed) watch.observe(one);
  }

  function wire() {
    let timer = 0;
    element("q").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => set({ q: element("q").value }), 90);
    });
    document.querySelector(".toolbar").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["layer", "flag", "sort"]) {
      element(id).addEventListener("change", () => set({ [id]: element(id).value }));
    }
    element("regex").addEventListener("click", () => set({ re: state.re ? "" : "1" }));
    element("nbest").addEventListener("click", () => set({ nbest: state.nbest ? "" : "1" }));
    element("masks").addEventListener("click", toggleMasks);
    element("box-masks").addEventListener("click", toggleMasks);
    element("clear").addEventListener("click", () => { clear(); remember(); });
    element("print").addEventListener("click", print);
    element("previous").addEventListener("click", () => turn(-1));
    element("next").addEventListener("click", () => turn(1));
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
    list.addEventListener("click", onThumb);
    document.addEventListener("keydown", onKey);
    window.addEventListener("hashchange", recall);
    for (const chip of document.querySelectorAll(".chip")) {
      chip.addEventListener("click", () => {
        searchExactly(chip.dataset.description, data.layers.length > 1 ? chip.dataset.layer : "");
      });
    }
    let width = 0;
    const resized = () => {
      if (list.clientWidth === width || !list.clientWidth) return;
      width = list.clientWidth;
      thumbWidth = 0;
      guessHeight();
      repaintAll();
    };
    // In the next frame: changing sizes inside the observer would make it complain.
    new ResizeObserver(() => requestAnimationFrame(resized)).observe(list);
  }

  root.setProperty("--aspect", `${data.width} / ${data.height}`);
  root.setProperty("--ratio", String(data.height / data.width));
  choices();
  wire();
  apply();
  guessHeight();
  recall();
})();
