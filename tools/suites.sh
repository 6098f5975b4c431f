#!/bin/sh
# External suites through pgsluice: suites.sh DIRECTORY [SUITE...]
#
# DIRECTORY holds scripts run_SUITE.sh HOST PORT USER PASSWORD DATABASE whose last line is "N passed, N failed,
# N skipped". They get a private PostgreSQL behind pgsluice in transaction mode, pool of 5 (POOL_MODE=session, POOL_SIZE=n).
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
[ -d "${1:-}" ] || { echo "usage: make suites SUITES=directory [ARGS='django52_psycopg3 asyncpg']" >&2; exit 2; }
cd "$TOOLS/.."
[ -x "${PGSLUICE_BIN:-target/release/pgsluice}" ] || cargo build --release --locked
exec python3 tools/suites.py "${PGSLUICE_BIN:-target/release/pgsluice}" "$@"
