#!/bin/sh
# The shells whose completion the tests try, and jq of the plan's script, from the distribution's packages: shells.sh start|stop|status
#
# start installs those that are missing, as root; stop leaves them, they are programs and no service.
set -eu
shells="zsh fish jq"

missing() { for shell in $shells; do command -v "$shell" >/dev/null || printf '%s ' "$shell"; done; }

case ${1:-} in
start)
    wanted=$(missing)
    [ -n "$wanted" ] || exit 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "shells: not here, and not to be installed: $wanted" >&2
        echo "shells: what to do: install them by your distribution's means, as root" >&2
        exit 1
    fi
    echo "shells: installing $wanted"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # one word for each package
    said=$({ apt-get -qq update && apt-get -qq install -y --no-install-recommends $wanted; } 2>&1) || {
        echo "$said" | tail -n 5 >&2
        echo "shells: could not install $wanted; what to do: check the package sources and the network" >&2
        exit 1
    }
    ;;
stop) ;;
status)
    wanted=$(missing)
    if [ -z "$wanted" ]; then echo "shells: all there"; else echo "shells: missing: $wanted" && exit 1; fi
    ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
