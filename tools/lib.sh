# shellcheck shell=sh
# Shared by the scripts in tools/: sourced, not run. Progress goes to stderr, results to stdout.

say() { echo "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Everything that is fetched or built lands here, outside of the checkout. As root it must be a place that an
# unprivileged user can search: PostgreSQL refuses to run as root, and /root is usually closed to others.
if [ -z "${PGSLUICE_CACHE:-}" ]; then
  if [ "$(id -u)" = 0 ]; then PGSLUICE_CACHE=/var/cache/pgsluice
  else PGSLUICE_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pgsluice; fi
fi
mkdir -p "$PGSLUICE_CACHE"
export PGSLUICE_CACHE

can_apt() { [ "$(id -u)" = 0 ] && have apt-get; }

# apt PACKAGE...: installs the distribution's packages without a question; the log is shown only when it fails.
apt() {
  log=$PGSLUICE_CACHE/apt.log
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1 </dev/null && return 0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
    >"$log" 2>&1 </dev/null || { tail -5 "$log" >&2; return 1; }
}

# one_at_a_time NAME: waits until no other script holds the lock NAME, then holds it to the script's end.
one_at_a_time() {
  if have flock; then exec 9>"$PGSLUICE_CACHE/$1.lock"; flock 9; fi
}

# A C compiler and linker: Rust links with it, and ring is compiled with it.
need_cc() {
  have cc && return 0
  can_apt || die "no C compiler: install gcc"
  say "no C compiler: installing gcc with apt-get"
  apt gcc libc6-dev || die "gcc could not be installed"
}
