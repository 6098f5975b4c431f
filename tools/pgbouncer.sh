#!/bin/sh
# Finds or makes a PgBouncer and prints the path of its binary; for comparisons only.
#
#   $PGBOUNCER, the PATH, the distribution's package (as root, with apt-get). Debian 12 has 1.18, which knows no
#   prepared statements under transaction pooling (1.21 does); such an old one is replaced by a build of the next
#   Debian release's source package, verified by apt's signatures, kept in the cache.
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
WANT=1.21

version() { "$1" --version 2>/dev/null | awk 'NR==1 {print $2}'; }
new_enough() { [ "$(printf '%s\n%s\n' "$WANT" "$(version "$1")" | sort -V | head -1)" = "$WANT" ]; }
found() { say "PgBouncer: $(version "$1") in $1 ($2)"; echo "$1"; exit 0; }

BUILT=$PGSLUICE_CACHE/pgbouncer/bin/pgbouncer
OLD=

# Newer, from source, with a sources list of its own: the machine's is left as it is.
build() {
  can_apt && [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || exit 1
  one_at_a_time pgbouncer
  work=$PGSLUICE_CACHE/pgbouncer-src
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  mirror=$(apt-get indextargets --format '$(SITE)' | grep -v security | grep debian | head -1)
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
  own="-o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists"
  own="$own -o Dir::Cache=$work/cache -o APT::Sandbox::User=root"
  say "PgBouncer: no package of $WANT or later: building trixie's source package"
  apt gcc make libc6-dev libevent-dev libssl-dev pkg-config libc-ares-dev
  cd "$work"
  # shellcheck disable=SC2086  # options, split on purpose
  { apt-get -qq $own update && apt-get -qq $own source --download-only pgbouncer; } >"$work/log" 2>&1
  rm -rf src; mkdir src
  tar xf "$(find . -name "pgbouncer_*.orig.tar.?z" | sort -V | tail -1)" -C src --strip-components=1
  cd src
  { ./configure --without-pam && make -j2; } >>"$work/log" 2>&1
  install -D pgbouncer "$BUILT"
}
if [ "${1:-}" = --build ]; then build; exit; fi

[ -z "${PGBOUNCER:-}" ] || found "$PGBOUNCER" 'from $PGBOUNCER'
for bin in "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer "$BUILT"; do
  [ -x "$bin" ] || continue
  if new_enough "$bin"; then found "$bin" installed; fi
  OLD=$bin
done
if [ -z "$OLD" ] && can_apt; then
  # Its service must not be started: a policy of "never" for the time of the installation.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  say "PgBouncer: installing the distribution's package with apt-get"
  apt pgbouncer && OLD=/usr/sbin/pgbouncer
  if [ -x "${OLD:-/}" ] && new_enough "$OLD"; then found "$OLD" "the distribution's"; fi
fi

# A process of its own: `set -e` does not hold inside a condition.
if "$0" --build; then found "$BUILT" "built from Debian's source package"; fi
[ -z "$OLD" ] || { say "PgBouncer: the newer one could not be built (log: $PGSLUICE_CACHE/pgbouncer-src/log)"; found "$OLD" "the distribution's: no prepared statements"; }
die "no PgBouncer: install it or set PGBOUNCER"
