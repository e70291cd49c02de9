#!/bin/sh
# systemd-analyze, with which the tests verify units, from the distribution's package: systemd.sh start|stop|status
#
# start installs it where it is missing, as root; nothing is run: systemd need not be this machine's init.
set -eu

case ${1:-} in
start)
    command -v systemd-analyze >/dev/null && exit 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "systemd: systemd-analyze is not here, and not to be installed" >&2
        echo "systemd: what to do: install the package systemd by your distribution's means, as root" >&2
        exit 1
    fi
    echo "systemd: installing the package"
    export DEBIAN_FRONTEND=noninteractive
    said=$({ apt-get -qq update && apt-get -qq install -y --no-install-recommends systemd; } 2>&1) || {
        echo "$said" | tail -n 5 >&2
        echo "systemd: could not install it; what to do: check the package sources and the network" >&2
        exit 1
    }
    ;;
stop) ;;
status) command -v systemd-analyze || { echo "systemd: systemd-analyze is missing" && exit 1; } ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
