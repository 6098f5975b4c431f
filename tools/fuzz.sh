#!/bin/sh
# Fuzzes every target for FUZZ_SECONDS each. Needs nightly Rust and cargo-fuzz; the corpus is replayed by `make test`.
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
cd "$TOOLS/.."
dir=$(ls -d fuzz tests/fuzz 2>/dev/null | head -1)
[ -n "$dir" ] || die "there are no fuzz targets"
cargo +nightly --version >/dev/null 2>&1 || die "needs nightly Rust: rustup toolchain install nightly"
if ! cargo fuzz --version >/dev/null 2>&1; then
  say "building cargo-fuzz"
  cargo install --locked --quiet cargo-fuzz
fi
passed=0 failed=0
for target in $(cargo +nightly fuzz list --fuzz-dir "$dir"); do
  say "== $target, ${FUZZ_SECONDS:-60} s"
  if cargo +nightly fuzz run --fuzz-dir "$dir" "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10; then passed=$((passed + 1))
  else failed=$((failed + 1)); fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
