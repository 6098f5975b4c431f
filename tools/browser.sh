#!/bin/sh
# Prints the path of a Chromium for the tests of the page.
#
#   tools/browser.sh [--fetch]    the one that is installed; with --fetch it is installed with apt-get when there is none
set -eu
TOOLS=$(cd "$(dirname "$0")" && pwd)
. "$TOOLS/lib.sh"
find_one() {
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if have "$name"; then command -v "$name"; return 0; fi
  done
  return 1
}
find_one && exit
[ "${1:-}" = --fetch ] || die "no Chromium: make ui-test fetches one"
can_apt || die "no Chromium, and it cannot be installed with apt-get: install it by hand"
one_at_a_time browser
say "no Chromium: installing it with apt-get"
apt chromium fonts-dejavu-core || die "Chromium could not be installed"
find_one || die "Chromium was installed and is not to be found"
