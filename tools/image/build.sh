#!/bin/sh
# Builds the release binary: build.sh OUTPUT. The image's first step; needs Rust and a C compiler (for ring).
# GUIDED=no leaves out the profile that guides it: one build instead of two, no PostgreSQL, more CPU a transaction.
set -eu
output=$1
if ! command -v cc >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev
fi
if [ "${GUIDED:-yes}" = no ]; then
  cargo build --release --locked --bin pgsluice
  built=${CARGO_TARGET_DIR:-target}/release/pgsluice
else
  command -v python3 >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3; }
  built=target/guided/pgsluice
  tools/guided.sh "$built"
fi
mkdir -p "$(dirname "$output")"
# Line tables stay in the build's target directory: the image is for running.
strip -o "$output" "$built"
