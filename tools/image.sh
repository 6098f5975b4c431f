#!/bin/sh
# Builds the container image with docker or podman: IMAGE=name:tag tools/image.sh
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
cd "$TOOLS/.."
for engine in docker podman; do
  if have "$engine"; then exec "$engine" build -t "${IMAGE:-pgsluice}" .; fi
done
die "neither docker nor podman is installed; 'make test' runs the image's steps without them"
