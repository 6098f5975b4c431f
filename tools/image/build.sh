#!/bin/sh
# Builds the release binary: build.sh OUTPUT. The image's first step; needs Rust and a C compiler (for ring).
set -eu
output=$1
if ! command -v cc >/dev/null; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev
fi
cargo build --release --locked --bin pgsluice
mkdir -p "$(dirname "$output")"
# Line tables stay in the build's target directory: the image is for running.
strip -o "$output" "${CARGO_TARGET_DIR:-target}/release/pgsluice"
