#!/bin/sh
# The images that the tests use, built where missing: images.sh [--fresh]
#
# Needs an engine (docker.sh start) and, for a first build, root. Archives are kept in the
# checkout's cache: an engine that lost its images has them again in seconds.
set -eu
checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${ANYON_CACHE:-$checkout/.cache}
python=$checkout/.venv/bin/python
[ -x "$python" ] || {
    echo "images: no environment in $checkout/.venv; what to do: ./run or ./test sets one up" >&2
    exit 1
}
if ! command -v mmdebstrap >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "images: installing mmdebstrap"
    mkdir -p "$cache/images"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends mmdebstrap; } \
        >"$cache/images/apt.log" 2>&1 || {
        tail -n 5 "$cache/images/apt.log" >&2
        echo "images: could not install mmdebstrap; what to do: check the package sources and the network" >&2
        exit 1
    }
fi
exec "$python" "$checkout/scripts/services/images.py" --cache "$cache/images" "$@"
