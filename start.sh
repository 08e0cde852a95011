#!/usr/bin/env bash
# LoRA Lens in one command.
#
#   ./start.sh          set up what is missing and serve page and API on http://localhost:5173
#   ./start.sh test     set up what is missing and run every check and test
#   ./start.sh dev      serve with hot reload of Python and of the page
#
# PORT and HOST choose the address. PYTHON names the interpreter. LORALENS_TORCH_INDEX names a package index for
# PyTorch, for example the one with the small CPU-only builds. LORALENS_EXTRAS names further extras to install, such as
# cluster (Ray, 240 MB). Everything is kept in .venv and frontend/node_modules.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=.venv
LOGS=.loralens/log
PIP_VERSION=26.3
started=$SECONDS

bold='' plain=''
[ -t 1 ] && bold=$'\033[1m' plain=$'\033[0m'
say() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The children that still run when this script ends (an interrupted npm, the two servers of `dev`) end with it.
children=()
finish() {
  local code=$?
  trap - EXIT
  for pid in "${children[@]:+${children[@]}}"; do kill "$pid" 2>/dev/null || true; done
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# step LABEL COMMAND…: run a command with its output in a log, a sign of life every 15 s, and the log's end on failure.
step() {
  local label=$1 log pid begun=$SECONDS next=15
  shift
  mkdir -p "$LOGS"
  log="$LOGS/$(printf %s "${label%% (*}" | tr -cs 'a-zA-Z0-9' '-').log"
  say "$label …"
  "$@" >"$log" 2>&1 &
  pid=$!
  children+=("$pid")
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - begun >= next)); then
      printf '  … %s s\n' "$next"
      next=$((next + 15))
    fi
  done
  if ! wait "$pid"; then
    tail -n 25 "$log" >&2
    die "$label failed; the whole output is in $log"
  fi
}

digest() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer is needed, found $(python3 --version 2>/dev/null || echo none); or use: docker compose up"
}

check_node() {
  command -v node >/dev/null || die "Node 20.19 or newer is needed to build the page, found none; or use: docker compose up"
  command -v npm >/dev/null || die "npm is needed to build the page, found none; or use: docker compose up"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    die "Node 20.19 or newer is needed to build the page, found $(node --version); or use: docker compose up"
}

# setup_python LEVEL: `serve` (API, jobs) or `test` (with the libraries that tests compare with, and the checkers).
setup_python() {
  local level=$1 python stamp extras=lab,gpu groups=() index=()
  python=$(find_python)
  # With the folder's own path: an environment that was moved points to where it was.
  stamp=$({ "$python" --version; pwd -P; echo "${LORALENS_EXTRAS:-}"; cat backend/pyproject.toml backend/constraints.txt; } | digest)
  if [ "$level" = test ]; then
    extras=lab,gpu,trace,course
    groups=(--group backend/pyproject.toml:test --group backend/pyproject.toml:lint)
  fi
  extras+=${LORALENS_EXTRAS:+,$LORALENS_EXTRAS}
  grep -qsx -e "$stamp $level" -e "$stamp test" "$VENV/.stamp" && return
  if ! "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    "$python" -m venv --clear "$VENV" >/dev/null 2>&1 ||
      die "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
  fi
  [ -n "${LORALENS_TORCH_INDEX:-}" ] && index=(--extra-index-url "$LORALENS_TORCH_INDEX")
  step "Preparing pip" "$VENV/bin/python" -m pip install --disable-pip-version-check "pip==$PIP_VERSION"
  step "Installing Python packages (the first time some minutes: PyTorch is large)" \
    "$VENV/bin/python" -m pip install --disable-pip-version-check -c backend/constraints.txt \
    "${index[@]:+${index[@]}}" "${groups[@]:+${groups[@]}}" -e "backend[$extras]"
  echo "$stamp $level" >"$VENV/.stamp"
}

npm_digest() { { node --version; cat frontend/package-lock.json; } | digest; }

sources_of_the_page() {
  find frontend code -type f -not -path '*/node_modules/*' -not -path 'frontend/dist/*' -not -name '*.pyc' -print0 |
    LC_ALL=C sort -z | xargs -0 cat | digest
}

build_page() {
  local stamp
  stamp=$(sources_of_the_page)
  grep -qsx "$stamp" frontend/dist/.stamp && return
  step "Building the page" npm --prefix frontend run build
  echo "$stamp" >frontend/dist/.stamp
}

# npm and pip wait for the network in turns, so they run side by side.
setup() {
  local npm_pid=
  check_node
  find_python >/dev/null
  mkdir -p "$LOGS"
  if ! grep -qsx "$(npm_digest)" frontend/node_modules/.stamp; then
    say "Installing the page's packages …"
    (cd frontend && exec npm ci --no-audit --no-fund) >"$LOGS/npm.log" 2>&1 &
    npm_pid=$!
    children+=("$npm_pid")
  fi
  setup_python "$1"
  if [ -n "$npm_pid" ]; then
    if ! wait "$npm_pid"; then
      tail -n 25 "$LOGS/npm.log" >&2
      die "npm ci failed; the whole output is in $LOGS/npm.log"
    fi
    npm_digest >frontend/node_modules/.stamp
  fi
}

serve() {
  setup serve
  build_page
  say "Ready after $((SECONDS - started)) s. Ctrl-C stops."
  trap - EXIT INT TERM
  exec "$VENV/bin/python" -m loralens serve ${HOST:+--host "$HOST"} ${PORT:+--port "$PORT"}
}

dev() {
  local api_port=${API_PORT:-8000}
  setup serve
  "$VENV/bin/python" -m loralens serve --port "$api_port" --reload --log-level info &
  children+=("$!")
  # Not through npm, which would not pass a signal on to Vite.
  (cd frontend && LORALENS_API="http://127.0.0.1:$api_port" exec node node_modules/vite/bin/vite.js \
    --port "${PORT:-5173}" --strictPort ${HOST:+--host "$HOST"}) &
  children+=("$!")
  # When one of the two ends, the other is of no use; bash 3.2 (macOS) can only wait for both.
  if ((BASH_VERSINFO[0] >= 5)); then wait -n; else wait; fi
}

case "${1:-serve}" in
  serve) serve ;;
  test) shift; setup test; . tests/run-all.sh ;;
  dev) dev ;;
  -h | --help | help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]##*/}" ;;
  *) die "unknown command '$1'; possible are: serve (default), test, dev" ;;
esac
