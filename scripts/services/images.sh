#!/bin/sh
# The images that the tests use: images.sh start [--fresh] | stop | status
#
# `start` builds those that are missing; `stop` leaves them (they are the engine's to keep).
# Needs an engine (docker.sh start) and, for a first build, root. Archives are kept in the
# checkout's cache: an engine that lost its images has them again in seconds.
set -eu
checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${ANYON_CACHE:-$checkout/.cache}
python=$checkout/.venv/bin/python
case ${1:-start} in
start) [ $# -eq 0 ] || shift ;;
stop) exit 0 ;;
status) set -- --status ;;
*)
    echo "usage: $0 start [--fresh] | stop | status" >&2
    exit 2
    ;;
esac
[ -x "$python" ] || {
    echo "images: no environment in $checkout/.venv; what to do: ./run or ./test sets one up" >&2
    exit 1
}
if [ "${1:-}" != --status ] && ! command -v mmdebstrap >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "images: installing mmdebstrap"
    mkdir -p "$cache/images"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update; apt-get -qq install -y --no-install-recommends mmdebstrap; } \
        >"$cache/images/apt.log" 2>&1 || {
        tail -n 5 "$cache/images/apt.log" >&2
        echo "images: could not install mmdebstrap; what to do: check the package sources and the network" >&2
        exit 1
    }
fi
exec "$python" "$checkout/scripts/services/images.py" --cache "$cache/images" "$@"
