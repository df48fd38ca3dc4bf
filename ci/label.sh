#!/usr/bin/env bash
# Label the units of a model in CI, hold the labels to a policy, and say what was found.
#
#   ci/label.sh install   put milan-onnx into this Python
#   ci/label.sh key       print what the run would be kept as in the cache
#   ci/label.sh label     describe the model, or take the run from the cache
#   ci/label.sh gate      audit and diff; ends with 3 where a limit is broken
#   ci/label.sh summary   write what was found as Markdown
#   ci/label.sh all       install, label, gate and summary; ends as the gate did
#
# action.yml and the GitLab job of docs/ci.md run exactly this. Everything is set by the environment,
# so that no value is ever read as shell:
#
#   MILAN_MODEL        the ONNX file (needed)
#   MILAN_LAYERS       layers, one a line; none: the deepest with positions
#   MILAN_IMAGES       photos: folder, list, zip or tar; none: the built-in images
#   MILAN_LIMIT        use only so many of them
#   MILAN_ARGS         more arguments of `milan-onnx describe`, one a line
#   MILAN_POLICY       policy of `milan-onnx audit`; none: no audit
#   MILAN_BASELINE     run to compare with; none: no comparison
#   MILAN_MAX_CHANGED  limit of `milan-onnx diff`, such as 2%; none: no limit
#   MILAN_OUT          folder of the run (milan-run)
#   MILAN_REPORTS      folder of audit and diff as files (milan-reports)
#   MILAN_CACHE        folder of the cache (.milan-cache)
#   MILAN_VERSION      release to install; none: the copy that this script is in
#   MILAN_EXTRA        extra that brings ONNX Runtime (cpu)
#   MILAN_PYTHON       the Python (python)
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
model=${MILAN_MODEL:-}
out=${MILAN_OUT:-milan-run}
reports=${MILAN_REPORTS:-milan-reports}
cache=${MILAN_CACHE:-.milan-cache}
python=${MILAN_PYTHON:-python}

# -P: a folder of the job that is called like a package is not taken for it.
milan() { "$python" -P -m milan_onnx "$@"; }

# The lines of a text as more elements of the array `arguments`, each with something in front.
add_lines() {
  local line
  while IFS= read -r line || [ -n "$line" ]; do
    line=${line%$'\r'}
    if [ -n "$line" ]; then arguments+=("$1$line"); fi
  done <<<"$2"
}

# What `describe` and `cache key` are both told.
describe_arguments() {
  if [ -z "$model" ]; then
    echo "error: no model is named; set MILAN_MODEL, or the input model of the action" >&2
    exit 2
  fi
  arguments=()
  add_lines --layer= "${MILAN_LAYERS:-}"
  if [ -n "${MILAN_IMAGES:-}" ]; then arguments+=("--images=$MILAN_IMAGES"); fi
  if [ -n "${MILAN_LIMIT:-}" ]; then arguments+=("--limit=$MILAN_LIMIT"); fi
  add_lines "" "${MILAN_ARGS:-}"
}

# A value for later steps of a GitHub job.
put() {
  case $2 in *$'\n'*) echo "error: $1 has several lines; give one path" >&2; exit 2 ;; esac
  if [ -n "${GITHUB_OUTPUT:-}" ]; then printf '%s=%s\n' "$1" "$2" >>"$GITHUB_OUTPUT"; fi
}

install() {
  local what="${here}[${MILAN_EXTRA:-cpu}]"
  if [ -n "${MILAN_VERSION:-}" ]; then what="milan-onnx[${MILAN_EXTRA:-cpu}]==$MILAN_VERSION"; fi
  "$python" -m pip install --quiet --disable-pip-version-check "$what"
  milan --version
}

key() {
  describe_arguments
  local key
  key=$(milan cache key ${arguments[@]+"${arguments[@]}"} -- "$model")
  echo "$key"
  put key "$key"
  put cache "$cache"
}

label() {
  describe_arguments
  # The cache goes over the network: smaller than describe's own, unless MILAN_ARGS says more.
  milan describe "--out=$out" --overwrite "--cache=$cache" --cache-size=512 --format=csv \
    ${arguments[@]+"${arguments[@]}"} -- "$model"
  put run "$out"
  put reports "$reports"
}

gate() {
  local code=0
  mkdir -p -- "$reports"
  if [ -n "${MILAN_POLICY:-}" ]; then
    milan audit "--policy=$MILAN_POLICY" "--markdown=$reports/audit.md" \
      "--junit=$reports/audit.xml" "--sarif=$reports/audit.sarif" -- "$out" || code=$?
  fi
  if [ -n "${MILAN_BASELINE:-}" ]; then
    local worse=0
    arguments=("--markdown=$reports/diff.md" "--html=$reports/diff.html")
    if [ -n "${MILAN_MAX_CHANGED:-}" ]; then arguments+=("--max-changed=$MILAN_MAX_CHANGED"); fi
    if [ -n "${MILAN_IMAGES:-}" ]; then arguments+=("--images=$MILAN_IMAGES"); fi
    milan diff "${arguments[@]}" -- "$MILAN_BASELINE" "$out" || worse=$?
    # A gate that is not met (3) must not hide that something could not be done.
    if [ "$worse" -ne 0 ] && { [ "$code" -eq 0 ] || [ "$code" -eq 3 ]; }; then code=$worse; fi
  fi
  return "$code"
}

summary() {
  local page
  mkdir -p -- "$reports"
  page="$reports/summary.md"
  milan summary -- "$out" >"$page"
  for part in audit diff; do
    if [ -f "$reports/$part.md" ]; then
      printf '\n' >>"$page"
      cat -- "$reports/$part.md" >>"$page"
    fi
  done
  if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat -- "$page" >>"$GITHUB_STEP_SUMMARY"; fi
  echo "summary: $page"
}

all() {
  local code=0
  install
  label
  gate || code=$?
  summary
  return "$code"
}

case ${1:-} in
  install | key | label | gate | summary | all) "$1" ;;
  *)
    echo "error: no step ${1:-}; give install, key, label, gate, summary or all" >&2
    exit 2
    ;;
esac
