#!/bin/sh
# Builds the release binary guided by a profile of its own work: guided.sh [OUTPUT], target/guided/pgsluice without.
#
# An instrumented build serves benches/e2e/train.py's load for half a minute, then the compiler lays the code out for
# what ran (https://doc.rust-lang.org/rustc/profile-guided-optimization.html). Two builds with link-time optimisation:
# five minutes on two cores, nothing when no source has changed. Needs what `make bench` needs, and rustup's llvm-tools.
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
cd "$TOOLS/.."
need_cc
dir=$(pwd)/target/guided
output=${1:-$dir/pgsluice}
mkdir -p "$dir" "$(dirname "$output")"
if [ -x "$output" ] && [ -z "$(find src Cargo.toml Cargo.lock rust-toolchain.toml benches/e2e tools/guided.sh -newer "$output" 2>/dev/null)" ]; then
  say "$output is as new as its sources"; exit 0
fi

host=$(rustc -vV | sed -n 's/^host: //p')
# The toolchain's own: the format of a profile is that of its LLVM.
profdata=$(rustc --print target-libdir)/../bin/llvm-profdata
if [ ! -x "$profdata" ]; then
  have rustup || die "no llvm-profdata at $profdata: install llvm-tools of this Rust, or build without a profile (cargo build --release)"
  say "no llvm-profdata: adding llvm-tools to this toolchain with rustup"
  rustup component add llvm-tools >&2
fi

# build FLAG: with --target, so that build scripts and macros are not instrumented.
build() { RUSTFLAGS="$1" cargo build --release --locked --bin pgsluice --target "$host" --target-dir "$dir" >&2; }

say "== instrumented build"
build "-Cprofile-generate=$dir/profile"
rm -rf "$dir/profile" "$dir/profile.profdata"; mkdir -p "$dir/profile"
say "== load"
LLVM_PROFILE_FILE="$dir/profile/%p-%m.profraw" python3 benches/e2e/train.py "$dir/$host/release/pgsluice" >&2
"$profdata" merge -o "$dir/profile.profdata" "$dir/profile"
say "== build for what ran"
build "-Cprofile-use=$dir/profile.profdata"
cp "$dir/$host/release/pgsluice" "$output.new" && mv "$output.new" "$output"
say "$output"
