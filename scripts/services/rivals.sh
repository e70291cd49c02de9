#!/usr/bin/env bash
# What the benchmarks compare with and Debian has: restic, and npm for JupyterHub's proxy and the storage drivers.
# `start` installs what is missing and prints versions, `status`, `stop` and `remove`: nothing runs. Repeats are harmless.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD/.cache/services/rivals

missing() {
  local program
  for program in restic npm; do command -v "$program" >/dev/null || echo "$program"; done
}

versions() { restic version; echo "npm $(npm --version)"; }

# As root it is installed from the distribution's packages.
install() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "rivals: not installed: $*; what to do: as root, apt-get install $*" >&2
    exit 3
  fi
  mkdir -p "$root"
  echo "rivals: installing $*" >&2
  # A third party's source that does not answer must not be in the way: the update may fail.
  { apt-get -qq update || true; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"; } \
    >"$root/apt.log" 2>&1 || { tail -n 5 "$root/apt.log" >&2; exit 3; }
}

case "${1:-}" in
  start)
    mapfile -t wanted < <(missing)
    [ "${#wanted[@]}" = 0 ] || install "${wanted[@]}"
    versions
    ;;
  stop) ;;
  status) if [ -z "$(missing)" ]; then versions; else echo "not installed"; exit 1; fi ;;
  remove) rm -rf "$root" ;;
  *) echo "usage: $0 start|stop|status|remove" >&2; exit 2 ;;
esac
