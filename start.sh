#!/usr/bin/env bash
# LoRA Lens in one command.
#
#   ./start.sh          set up what is missing and serve page and API on http://localhost:5173
#   ./start.sh lab      install the lab now (PyTorch; benchmark, experiments, adapters); a running page takes it up
#   ./start.sh test     set up what is missing and run every check and test
#   ./start.sh dev      serve with hot reload of Python and of the page
#
# The page and the calculator are there first; the lab is installed behind them, and LORALENS_LAB=no leaves it out.
# PORT and HOST choose the address. PYTHON names the interpreter (3.11 to 3.14). LORALENS_TORCH_INDEX names a package
# index for PyTorch. LORALENS_EXTRAS names further extras to install with the lab, such as cluster (Ray, 240 MB).
# Everything is kept in .venv, frontend/node_modules and .loralens.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=.venv
STATE=.loralens
LOGS=$STATE/log
PIP_VERSION=26.3
# The versions of CPython for which torch 2.13.0 (backend/pyproject.toml) is built.
TORCH_PYTHONS="3.11 3.12 3.13 3.14"
# PyTorch's own index of builds without CUDA, a sixth of the size: asked only where they are of use (see torch_index).
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
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

log_file() { printf '%s/%s.log' "$LOGS" "$(printf %s "${1%% (*}" | tr -cs 'a-zA-Z0-9' '-')"; }

# awaited LABEL PID LOG: wait for a child with a sign of life every 15 s; its log's end when it fails.
awaited() {
  local label=$1 pid=$2 log=$3 begun=$SECONDS next=15
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
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

# step LABEL COMMAND…: run a command with its output in a log.
step() {
  local label=$1 log
  shift
  log=$(log_file "$label")
  say "$label …"
  "$@" >"$log" 2>&1 &
  children+=("$!")
  awaited "$label" "$!" "$log"
}

digest() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1; }

# One ./start.sh at a time changes .venv and node_modules. The lock is of the open file 9: the system gives it back
# however its last holder ends. `lock try` fails where `lock` would wait.
lock() {
  [ "${locked:-no}" = yes ] && return
  exec 9>"$STATE/setup.lock"
  if ! "$python" - "${1:-wait}" <<'PYTHON'; then
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    if sys.argv[1] == "try":
        sys.exit(1)
    print("Another ./start.sh is installing here; waiting for it …", flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # a file system without locks
PYTHON
    exec 9>&-
    return 1
  fi
  locked=yes
}

# find_python: sets python, and torch_fits to yes where the pinned PyTorch is built for it.
find_python() {
  local candidate version other='' found=none
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    # A free-threaded build is another platform for compiled packages.
    version=$("$candidate" -c 'import sys, sysconfig as s
print("%d.%d" % sys.version_info[:2] + ("t" if s.get_config_var("Py_GIL_DISABLED") else ""))' 2>/dev/null) || continue
    found=$version
    if [[ " $TORCH_PYTHONS " == *" $version "* ]]; then
      python=$(command -v "$candidate") torch_fits=yes
      return
    fi
    [[ " $TORCH_PYTHONS " == *" ${version%t} "* ]] && other=${other:-$(command -v "$candidate")}
  done
  if [ -n "$other" ]; then
    python=$other torch_fits=no
    return
  fi
  [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is no Python 3.11 to 3.14 (found $found)"
  die "Python 3.11 to 3.14 is needed, found $found; or use: docker compose up"
}

check_node() {
  command -v node >/dev/null || die "Node 20.19 or newer is needed to build the page, found none; or use: docker compose up"
  command -v npm >/dev/null || die "npm is needed to build the page, found none; or use: docker compose up"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
    die "Node 20.19 or newer is needed to build the page, found $(node --version); or use: docker compose up"
}

# stamp LEVEL: what an environment of that level was made from. Levels: base (page and calculator), lab, test.
stamp() {
  local extras=''
  [ "$1" = base ] || extras=${LORALENS_EXTRAS:-}
  printf '%s %s\n' "$({ "$python" --version; echo "$extras"; cat backend/pyproject.toml backend/constraints.txt; } | digest)" "$1"
}
# has LEVEL: the tests' environment has all of the others.
has() {
  local level
  for level in "$1" test; do grep -qsxF -e "$(stamp "$level")" "$VENV/.stamp" && return; done
  return 1
}

# The file .venv/.folder says where the environment was made; one that was moved is told its new place.
follow_move() {
  local here old
  here=$(pwd -P)
  [ -f "$VENV/.folder" ] || return 0
  old=$(cat "$VENV/.folder")
  [ "$old" = "$here" ] && return
  "$python" - "$old" "$here" "$VENV" <<'PYTHON'
import os, sys
from pathlib import Path
old, new = (os.fsencode(word) for word in sys.argv[1:3])
venv = Path(sys.argv[3])
for path in [*venv.glob("bin/*"), venv / "pyvenv.cfg", *venv.glob("lib/*/site-packages/*.pth"),
             *venv.glob("lib/*/site-packages/*.dist-info/direct_url.json")]:
    if path.is_file() and not path.is_symlink() and old in (text := path.read_bytes()) and b"\0" not in text:
        path.write_bytes(text.replace(old + b"/", new + b"/").replace(old + b"\n", new + b"\n"))
PYTHON
  printf '%s\n' "$here" >"$VENV/.folder"
}

has_nvidia() { [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || nvidia-smi -L >/dev/null 2>&1; }

# torch_index: adds to options where else PyTorch may come from. The ordinary build of Linux
# carries CUDA: without an NVIDIA GPU the small one is taken, if one quick request finds its index.
torch_index() {
  local url=${LORALENS_TORCH_INDEX:-}
  if [ -z "$url" ] && [ "${CI:-}" != true ] && [ "$(uname -s)" = Linux ] && ! has_nvidia; then
    "$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=4).close()' \
      "$TORCH_CPU_INDEX/torch/" 2>/dev/null && url=$TORCH_CPU_INDEX
  fi
  [ -z "$url" ] || options+=(--extra-index-url "$url")
}

# pip_of LEVEL: sets pip to the command that brings the environment to a level.
pip_of() {
  local extras=gpu groups=()
  case "$1" in
    lab) extras=lab,gpu,course ;;
    test)
      extras=lab,gpu,trace,course,cluster
      groups=(--group backend/pyproject.toml:test --group backend/pyproject.toml:lint)
      ;;
  esac
  options=()
  [ "$1" = lab ] || options=(--no-compile) # few of thousands of modules are used
  if [ "$1" != base ]; then
    extras+=${LORALENS_EXTRAS:+,$LORALENS_EXTRAS}
    torch_index
    options+=(--progress-bar raw)
  fi
  pip=("$VENV/bin/python" -m pip install --disable-pip-version-check -c backend/constraints.txt
    "${options[@]}" "${groups[@]:+${groups[@]}}" -e "backend[$extras]")
}

# make_venv: an environment of the chosen Python, made anew where the one that is there cannot be used.
make_venv() {
  local version
  version=$("$python" --version)
  if [ ! -f "$VENV/.folder" ] || [ "$("$VENV/bin/python" --version 2>/dev/null)" != "$version" ] ||
    ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    say "Making the environment of $version …"
    "$python" -m venv --clear "$VENV" >/dev/null 2>&1 ||
      die "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
    pwd -P >"$VENV/.folder"
  fi
  mend
}

# mend: what an earlier run left half-way, since it was ended. RECORD is the last file that pip writes of a package: what
# has none is not all there, and pip would not know.
mend() {
  local info
  for info in "$VENV"/lib/python*/site-packages/*.dist-info; do
    [ ! -d "$info" ] || [ -f "$info/RECORD" ] || rm -rf "$info"
  done
  "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip >/dev/null 2>&1 || true
}

# What is large is installed by a pip that we know; the interpreter's own is good enough for the little that comes first.
own_pip() {
  [ "$("$VENV/bin/python" -m pip --version | cut -d ' ' -f 2)" = "$PIP_VERSION" ] ||
    "$VENV/bin/python" -m pip install --disable-pip-version-check "pip==$PIP_VERSION"
}

setup_python() {
  local level=$1 label="Installing what page and calculator need"
  has "$level" && return
  lock
  has "$level" && return # another ./start.sh was faster
  [ "$level" = base ] || label="Installing Python packages (the first time some minutes: PyTorch is large)"
  make_venv
  [ "$level" = base ] || step "Preparing pip" own_pip
  pip_of "$level"
  step "$label" "${pip[@]}"
  stamp "$level" >>"$VENV/.stamp"
}

npm_digest() { { node --version; cat frontend/package-lock.json; } | digest; }

sources_of_the_page() {
  # The page carries the modules that compute, for the time without a server.
  find frontend code backend/loralens/{__init__.py,core,planner,endpoints,huggingface,lab/forgetting} -type f -not -path '*/node_modules/*' -not -path 'frontend/dist*/*' -not -name '*.pyc' -not -name schema.d.ts -print0 |
    LC_ALL=C sort -z | xargs -0 cat | digest
}

page_is_built() { grep -qsx "$(sources_of_the_page)" frontend/dist/.stamp; }

# setup_npm: what builds the page. setup_npm_all: what tests and lints it too.
setup_npm() { npm_packages build --omit=dev; }
setup_npm_all() { npm_packages all; }
has_npm() { grep -qsx -e "$(npm_digest) $1" -e "$(npm_digest) all" frontend/node_modules/.stamp; }
npm_packages() {
  local level=$1
  shift
  has_npm "$level" && return
  (cd frontend && npm ci --no-audit --no-fund "$@")
  echo "$(npm_digest) $level" >frontend/node_modules/.stamp
}

build_page() {
  local stamp
  stamp=$(sources_of_the_page)
  grep -qsx "$stamp" frontend/dist/.stamp && return
  npm --prefix frontend run build
  echo "$stamp" >frontend/dist/.stamp
}

# setup LEVEL [PART…]: the Python environment and, beside it (both wait for the network in turns), the page's PARTs.
setup() {
  local level=$1 page_pid='' part
  shift
  mkdir -p "$LOGS"
  find_python
  follow_move
  if [ "$level" = test ] && [ "$torch_fits" = no ]; then
    die "the tests need PyTorch, which is built for Python $TORCH_PYTHONS; found $("$python" --version); PYTHON=python3.14 ./start.sh test takes another"
  fi
  if [ $# -gt 0 ]; then
    lock
    say "Preparing the page …"
    (
      trap - EXIT
      for part in "$@"; do "$part"; done
    ) >"$LOGS/page.log" 2>&1 &
    page_pid=$!
    children+=("$page_pid")
  fi
  setup_python "$level"
  [ -z "$page_pid" ] || awaited "Preparing the page" "$page_pid" "$LOGS/page.log"
}

# lab_command: sets lab to the command that installs the lab and keeps the page informed of how far it is.
lab_command() {
  mend
  pip_of lab
  # shellcheck disable=SC2016  # the words are for the inner shell
  lab=("$VENV/bin/python" -m loralens.installation.run --started-by "$$" --log "$LOGS/lab.log" --
    bash -c 'stamp=$1 file=$2 pip=$3; shift 3
      "$1" -m pip install --disable-pip-version-check "pip==$pip" && "$@" && printf "%s\n" "$stamp" >>"$file"' lab
    "$(stamp lab)" "$VENV/.stamp" "$PIP_VERSION" "${pip[@]}")
}

no_torch() { printf 'PyTorch is built for Python %s, not for %s: ' "$TORCH_PYTHONS" "$("$python" --version)"; }

# lab_behind: start installing the lab beside the server that is about to start.
lab_behind() {
  case "${LORALENS_LAB:-yes}" in
    no) return ;;
    yes) ;;
    *) die "LORALENS_LAB is yes or no, got '$LORALENS_LAB'" ;;
  esac
  has lab && return
  if [ "$torch_fits" = no ]; then
    say "$(no_torch)the lab stays off. PYTHON=python3.14 ./start.sh takes another interpreter."
    return
  fi
  if ! lock try; then
    say "Another ./start.sh is installing the lab."
    return
  fi
  say "The lab (PyTorch) is being installed behind the page; the calculator works meanwhile."
  (
    trap - EXIT
    lab_command
    exec "${lab[@]}"
  ) &
  children+=("$!")
}

install_lab() {
  setup base
  [ "$torch_fits" = yes ] || die "$(no_torch)PYTHON=python3.14 ./start.sh lab takes another interpreter"
  lock
  if has lab; then
    say "The lab is installed."
    return
  fi
  lab_command
  "${lab[@]}"
}

serve() {
  if page_is_built; then
    setup base
  else
    check_node
    setup base setup_npm build_page
  fi
  lab_behind
  say "Ready after $((SECONDS - started)) s. Ctrl-C stops."
  trap - EXIT INT TERM
  # The lock stays with what installs the lab, which ends when this process does.
  exec "$VENV/bin/python" -m loralens serve ${HOST:+--host "$HOST"} ${PORT:+--port "$PORT"} 9>&-
}

dev() {
  local api_port=${API_PORT:-8000}
  check_node
  if has_npm build; then setup base; else setup base setup_npm; fi
  lab_behind
  "$VENV/bin/python" -m loralens serve --port "$api_port" --reload --log-level info 9>&- &
  children+=("$!")
  # Not through npm, which would not pass a signal on to Vite.
  (cd frontend && LORALENS_API="http://127.0.0.1:$api_port" exec node node_modules/vite/bin/vite.js \
    --port "${PORT:-5173}" --strictPort ${HOST:+--host "$HOST"}) 9>&- &
  children+=("$!")
  # When one of the two ends, the other is of no use; bash 3.2 (macOS) can only wait for both.
  if ((BASH_VERSINFO[0] >= 5)); then wait -n "${children[@]: -2}"; else wait "${children[@]: -2}"; fi
}

run_tests() {
  check_node
  mkdir -p "$LOGS"
  find_python
  has_npm all || lock
  . tests/run-all.sh
}

case "${1:-serve}" in
  serve) serve ;;
  lab) install_lab ;;
  test) shift; run_tests "$@" ;;
  dev) dev ;;
  -h | --help | help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]##*/}" ;;
  *) die "unknown command '$1'; possible are: serve (default), lab, test, dev" ;;
esac
