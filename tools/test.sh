#!/bin/sh
# Every test. Rust's on the PostgreSQL that is found, then those that need a server again on the embedded one
# (PostgreSQL 18); then Python's, of the image, the Kubernetes manifest and the demo.
#
#   tools/test.sh [NAME]      NAME filters Rust's tests, as `cargo test NAME`; Python's are then left out
#
# Last come the tests that were skipped, with their reasons, and "N passed, N failed, N skipped".
set -u
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
cd "$TOOLS/.." || exit
need_cc
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
export PGSLUICE_SKIPS="$out/skips" CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
: > "$PGSLUICE_SKIPS"
passed=0 failed=0 skipped=0

# count FILE STATUS: adds up the summaries of cargo test, nextest and unittest; a run that failed without naming a
# failed test (a build error, say) counts as one failure.
count() {
  # shellcheck disable=SC2046  # three words
  set -- $(awk -v status="$2" '
    /^test result:/ { p += $4; f += $6; s += $8 }
    /^ *Summary \[/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^(failed|timed)/) f += $i } }
    /^Ran [0-9]+ test/ { ran = $2 }
    /^(OK|FAILED)( \(.*)?$/ && ran != "" {
      bad = skip = 0; gsub(/[(),]/, " "); for (i = 1; i <= NF; i++) { split($i, kv, "=")
        if (kv[1] == "failures" || kv[1] == "errors") bad += kv[2]; if (kv[1] == "skipped") skip += kv[2] }
      p += ran - bad - skip; f += bad; s += skip; ran = "" }
    END { if (status != 0 && f == 0) f = 1; print p + 0, f + 0, s + 0 }' "$1")
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

# run TITLE COMMAND...: shows and keeps the output.
run() {
  title=$1; shift
  say; say "== $title"
  { "$@" 2>&1; echo $? > "$out/status"; } </dev/null | tee "$out/log"
  count "$out/log" "$(cat "$out/status")"
}

if cargo nextest --version >/dev/null 2>&1; then
  rust() { cargo nextest run --locked --no-fail-fast --no-tests=pass "$@"; }
else
  rust() { cargo test --locked --no-fail-fast --tests --bins --lib "$@"; }
fi

# Without it one test is skipped, and says so.
prometheus=$("$TOOLS/prometheus.sh") && export PATH="$PATH:$prometheus"
first=$("$TOOLS/postgres.sh") || first=
export PG_BIN="$first"
run "Rust tests" rust ${1:+"$1"}

second=$("$TOOLS/postgres.sh" embedded) || second=
# A file of tests needs a server iff it uses the shared support.
servers=$(grep -l '^mod support;' tests/*.rs | xargs -n1 basename | sed 's/\.rs$//; s/^/--test /')
cp "$PGSLUICE_SKIPS" "$out/early"
if [ -z "$second" ]; then
  echo "SKIPPED the tests with a server on the embedded PostgreSQL: it could not be fetched" >> "$PGSLUICE_SKIPS"
elif [ "$second" != "$first" ]; then
  export PG_BIN="$second"
  # shellcheck disable=SC2086  # several options
  run "Rust tests with a server again, embedded PostgreSQL" rust $servers ${1:+"$1"}
  export PG_BIN="$first"
  cp "$PGSLUICE_SKIPS" "$out/early"
fi

if [ -z "${1:-}" ]; then
  run "Examples in the documentation" cargo test --locked --doc
  run "Python tests" python3 -m unittest discover -v -s tests/python -p 'test_*.py'
  sed -n "s/^\(.*\) \.\.\. skipped ['\"]\(.*\)['\"]$/SKIPPED \1: \2/p" "$out/log" >> "$PGSLUICE_SKIPS"
fi

# A Rust test that skips returns early, so cargo counts it as passed: taken from there.
early=$(grep -c '^SKIPPED' "$out/early" || true)
passed=$((passed - early)) skipped=$((skipped + early))
if [ -s "$PGSLUICE_SKIPS" ]; then say; say "Skipped:"; sort -u "$PGSLUICE_SKIPS" | sed 's/^SKIPPED /  /' >&2; fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
