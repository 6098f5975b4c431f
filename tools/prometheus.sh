#!/bin/sh
# Finds or fetches Prometheus' programs (prometheus, promtool) and prints their directory; the tests check /metrics with them.
#
#   The PATH, else the distribution's package, downloaded by apt-get and unpacked in the cache: nothing is installed
#   and no service starts.
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
if have promtool; then dirname "$(command -v promtool)"; exit; fi
DIR=$PGSLUICE_CACHE/prometheus
if [ ! -x "$DIR/usr/bin/promtool" ]; then
  have apt-get && have dpkg-deb || die "promtool is not installed, and there is no apt-get to fetch it with"
  one_at_a_time prometheus
  say "Prometheus: fetching the distribution's package for promtool"
  rm -rf "$DIR.new"; mkdir -p "$DIR.new"; cd "$DIR.new"
  fetch() { apt-get -qq -o APT::Sandbox::User=root download prometheus >fetch.log 2>&1; }
  # The lists of a fresh machine are empty.
  fetch || { can_apt && apt-get -qq update >fetch.log 2>&1 && fetch; } || { tail -3 fetch.log >&2; die "it could not be fetched"; }
  dpkg-deb -x prometheus_*.deb .
  rm -f prometheus_*.deb
  rm -rf "$DIR"; mv "$DIR.new" "$DIR"
fi
echo "$DIR/usr/bin"
