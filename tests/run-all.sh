# Sourced by ./start.sh test: installs what is missing, runs every check and test, keeps going after a failure, and
# closes with one line in pytest's form. Each check counts as one; test runners count their own tests.
# shellcheck shell=bash
passed=0 failed=0 skipped=0 failures=()

# check LABEL COMMAND…: one check, passed or failed.
check() {
  local label=$1 begun=$SECONDS code=0
  shift
  say "== $label"
  "$@" || code=$?
  if [ "$code" = 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    failures+=("$label (exit code $code)")
  fi
  printf '   %s s\n' $((SECONDS - begun))
}

log_of() { printf '%s/%s.log' "$LOGS" "$(printf %s "$1" | tr -cs 'a-zA-Z0-9' '-')"; }

# tests LABEL COMMAND…: a test runner whose last lines say "3 passed", "1 failed", "2 skipped".
tests() {
  local label=$1 begun=$SECONDS code=0
  shift
  say "== $label"
  "$@" 2>&1 | tee "$(log_of "$label")" || code=$?
  counted "$label" "$code" "$begun"
}

# meanwhile LABEL COMMAND…: the same beside what comes next; `then_counted` waits for all of these in turn.
beside=() beside_labels=()
meanwhile() {
  local label=$1
  shift
  "$@" >"$(log_of "$label")" 2>&1 &
  beside+=("$!") beside_labels+=("$label")
  children+=("$!")
}

then_counted() {
  local begun=$SECONDS index code
  for index in "${!beside[@]}"; do
    code=0
    wait "${beside[index]}" || code=$?
    say "== ${beside_labels[index]}"
    cat "$(log_of "${beside_labels[index]}")"
    counted "${beside_labels[index]}" "$code" "$begun"
  done
  beside=() beside_labels=()
}

# listed NAME COMMAND…: one line of a list that `counted` reads, below the command's own output.
listed() {
  local name=$1 begun=$SECONDS code=0
  shift
  "$@" || code=$?
  if [ "$code" = 0 ]; then printf 'ok    %s (%s s)\n' "$name" $((SECONDS - begun)); else printf 'FAIL  %s (exit code %s)\n' "$name" "$code"; fi
  return "$code"
}

# counted LABEL CODE BEGUN: adds what a test runner's log says to the sums.
counted() {
  local label=$1 code=$2 begun=$3 log count summary
  log=$(log_of "$label")
  # Colours would stand between a number and its word.
  summary=$(sed $'s/\033\\[[0-9;]*m//g' "$log" | grep -E '(^=+ .* in [0-9.]+|^ *Tests +[0-9]|^[0-9]+ passed)' | tail -n 1 || true)
  for word in passed failed skipped error errors; do
    count=$(grep -oE "[0-9]+ $word\b" <<<"$summary" | grep -oE '[0-9]+' | tail -n 1 || true)
    case "$word" in
      passed) passed=$((passed + ${count:-0})) ;;
      skipped) skipped=$((skipped + ${count:-0})) ;;
      *) failed=$((failed + ${count:-0})) ;;
    esac
  done
  if ! [[ "$summary" =~ ^[0-9]+\ passed ]]; then # a list of "ok NAME" and "FAIL NAME" that nothing has summed up yet
    passed=$((passed + $(grep -cE '^ok +' "$log" || true)))
    count=$(grep -cE '^FAIL +' "$log" || true)
    failed=$((failed + count))
    ((count == 0)) || summary="$summary failed"
  fi
  if [ "$code" != 0 ]; then
    failures+=("$label (exit code $code)")
    [[ "$summary" =~ (failed|error) ]] || failed=$((failed + 1))
  fi
  printf '   %s s\n' $((SECONDS - begun))
}

apt_installs() {
  timeout 180 apt-get update && timeout 300 apt-get install -y --no-install-recommends "$@"
}

# The browser tests need Chromium, and a Chinese font: without one every Chinese screenshot shows boxes.
browser_is_there() {
  local name found=${CHROMIUM:-} missing=() shell=chromium-headless-shell may_install=
  for name in google-chrome chromium-browser chromium "$shell"; do
    ! command -v "$name" >/dev/null || found=${CHROMIUM:-$name}
  done
  [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || may_install=1
  # On a machine that only tests, the shell is worth some seconds even where a whole browser is: see startBrowser.
  if [ -n "${CI:-}" ] && [ -n "$may_install" ] && [ -z "${CHROMIUM:-}" ] && [ "$found" != "$shell" ]; then
    ! apt_installs "$shell" >"$LOGS/apt-shell.log" 2>&1 || found=$shell
  fi
  [ -n "$found" ] || missing+=(chromium)
  [ "$(uname)" = Darwin ] || [ -n "$(fc-list :lang=zh 2>/dev/null | head -n 1)" ] || missing+=(fonts-noto-cjk fontconfig)
  [ ${#missing[@]} = 0 ] && return
  if [ -n "$may_install" ]; then
    say "Installing ${missing[*]} …"
    apt_installs "${missing[@]}" >"$LOGS/apt.log" 2>&1 || { tail -n 5 "$LOGS/apt.log" >&2; return 1; }
    return
  fi
  printf 'error: the browser tests need %s; install them and run ./start.sh test again\n' "${missing[*]}" >&2
  return 1
}

# The page's checks need Node alone: they run beside the installation of Python's packages, and beside Python's checks.
page_checks() {
  local code=0
  setup_npm_all
  listed "page: lint" npm --prefix frontend run --silent lint || code=1
  listed "page: types" npm --prefix frontend run --silent typecheck || code=1
  listed "page: build" npm --prefix frontend run --silent build && sources_of_the_page >frontend/dist/.stamp || code=1
  listed "page: build without a server" npm --prefix frontend run --silent build:static || code=1
  npm --prefix frontend run --silent test || code=1
  return "$code"
}

# CPython 3.14 as it is compiled for Node (14 MB); without it, or where the network stalls, its one test is skipped and says so.
another_interpreter() {
  [ -d tests/interpreters/node_modules/pyodide ] ||
    npm --prefix tests/interpreters ci --fetch-timeout=60000 --fetch-retries=1 >"$LOGS/interpreters.log" 2>&1 ||
    say "CPython 3.14 for Node could not be fetched: see $LOGS/interpreters.log"
}

another_interpreter &
fetched=$!
children+=("$fetched")
meanwhile "page: lint, types, builds, unit tests" page_checks
setup test
bin=$VENV/bin
check "ruff format" "$bin/ruff" format --check --output-format concise .
check "ruff" "$bin/ruff" check --quiet .
check "mypy --strict" "$bin/mypy"
check "layers (import-linter)" env PYTHONPATH=backend "$bin/lint-imports" --no-logo
then_counted
wait "$fetched"
# The suite in parts that two workers take in turn, one after the other, so that neither of two cores is idle before the
# end: the long ones first. `rest` is every folder that is not named here.
parts=(browser core/architecture lab rest core/answer api trainers planner validation cli architecture)
# What mostly waits (for clocks, killed servers, Ray's nodes) runs beside both.
waiting=(abuse jobs installation huggingface)

# part NAME: becomes the program that runs it.
part() {
  local folder others=()
  case "$1" in
    browser) exec npm --prefix frontend run --silent e2e ;;
    waiting) exec "$bin/python" -m pytest "${waiting[@]/#/tests/}" ;;
    rest)
      for folder in "${parts[@]}" "${waiting[@]}"; do others+=("--ignore=tests/$folder"); done
      exec "$bin/python" -m pytest "${others[@]}"
      ;;
    *) exec "$bin/python" -m pytest "tests/$1" ;;
  esac
}

# take NAME: runs a part, whose output goes to its log, and notes its exit code and seconds.
take() {
  local code=0 begun=$SECONDS
  part "$1" >"$(log_of "tests $1")" 2>&1 &
  trap 'kill "$!"; exit 143' TERM
  wait "$!" || code=$?
  printf '   %s: %s s\n' "$1" $((SECONDS - begun))
  printf '%s %s\n' "$code" $((SECONDS - begun)) >"$claims/${1//\//-}.ended"
}

# worker: takes parts until none is left; the first that makes a part's folder has it.
worker() {
  local name
  for name in "${parts[@]}"; do
    mkdir "$claims/${name//\//-}" 2>/dev/null && take "$name"
  done
}

in_parts() {
  local name code seconds
  claims=$(mktemp -d)
  # The parts share the cores already: threads of one that wait for another's core take a tenth of all time.
  export OMP_NUM_THREADS=1
  for name in worker worker "take waiting"; do
    $name &
    children+=("$!")
  done
  wait "${children[@]: -3}" || true
  for name in "${parts[@]}" waiting; do
    read -r code seconds <"$claims/${name//\//-}.ended" || code=1 seconds=0
    say "== tests: $name"
    cat "$(log_of "tests $name")"
    counted "tests $name" "$code" $((SECONDS - seconds))
  done
  rm -r "$claims"
}

check "browser and fonts" browser_is_there
if [ $# -gt 0 ]; then # a choice of one's own
  tests "Python tests" "$bin/python" -m pytest "$@"
  tests "page in the browser" npm --prefix frontend run --silent e2e
else
  in_parts
fi

for failure in "${failures[@]:+${failures[@]}}"; do printf 'FAILED %s\n' "$failure"; done
line="$passed passed"
((failed == 0)) || line="$failed failed, $line"
((skipped == 0)) || line="$line, $skipped skipped"
printf '==================== %s in %ss ====================\n' "$line" $((SECONDS - started))
((failed == 0 && ${#failures[@]} == 0))
