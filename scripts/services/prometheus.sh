#!/usr/bin/env bash
# Debian's Prometheus, node exporter and Alertmanager for the tests, which each start some of their own: `start`
# installs them and prints a version, `status`, `stop` and `remove` (nothing runs, and the package is the system's). Repeats are harmless.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD/.cache/services/prometheus

programs="prometheus promtool prometheus-node-exporter prometheus-alertmanager amtool"
packages="prometheus prometheus-node-exporter prometheus-alertmanager"

installed() {
  local program
  for program in $programs; do command -v "$program" >/dev/null || return 1; done
}

version() { promtool --version 2>&1 | head -1; }

# As root it is installed from the distribution's packages; the package's own server is not started.
install() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Prometheus is not installed; as root: apt-get install $packages" >&2
    exit 3
  fi
  mkdir -p "$root"
  echo "prometheus: installing" >&2
  local policy=/usr/sbin/policy-rc.d log=$root/apt.log done=0
  if [ -e "$policy" ]; then policy=""; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"; fi
  # A third party's source that does not answer must not be in the way: the update may fail.
  apt-get -qq update >"$log" 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $packages >>"$log" 2>&1 || done=$?
  [ -z "$policy" ] || rm -f "$policy"
  if [ "$done" != 0 ] || ! installed; then
    tail -n 5 "$log" >&2
    echo "Prometheus could not be installed; see $log, and check the package sources and the network" >&2
    exit 3
  fi
}

case "${1:-}" in
  start)
    installed || install
    version
    ;;
  stop) ;;
  status) if installed; then version; else echo "not installed"; exit 1; fi ;;
  remove) rm -rf "$root" ;;
  *)
    echo "usage: $0 start|stop|status|remove" >&2
    exit 2
    ;;
esac
