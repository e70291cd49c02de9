#!/bin/sh
# A Debian package and an npm package, for the tests of what is installed, in .cache/real-packages:
# real_packages.sh start|stop|status
#
# start fetches tree from the distribution and semver from npm once; stop leaves them, they are a
# cache and no service. Only files: what a project can reach itself differs from machine to machine.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
home=${ANYON_CACHE:-$root/.cache}/real-packages
wanted="tree, semver 7.7.2"

is_there() { [ "$(cat "$home/fetched" 2>/dev/null)" = "$wanted" ]; }

fail() {
    echo "error: $1" >&2
    echo "hint:  $2" >&2
    exit 1
}

# Fetched beside and moved into place at the end, so that two at once do not hurt each other.
fetch() {
    new=$home.new-$$
    trap 'rm -rf "$new"' EXIT
    mkdir -p "$new"
    (cd "$new" && apt-get download -qq tree >/dev/null) ||
        fail "the Debian package tree could not be fetched" "apt-get update; check the connection"
    (cd "$new" && npm pack --silent semver@7.7.2 >/dev/null) ||
        fail "semver could not be fetched" "check the connection to the npm registry"
    mv "$new"/tree_*.deb "$new/tree.deb"
    mv "$new"/semver-*.tgz "$new/semver.tgz"
    printf '%s\n' "$wanted" >"$new/fetched"
    if ! is_there; then
        rm -rf "$home"
        mv -T "$new" "$home" 2>/dev/null || is_there
    fi
}

case ${1:-} in
start)
    if is_there; then exit 0; fi
    command -v npm >/dev/null || fail "npm was not found" "apt-get install npm"
    echo "Fetching $wanted into .cache/real-packages …" >&2
    fetch
    ;;
stop) ;;
status)
    if is_there; then echo "real packages: $wanted"; else echo "real packages: not fetched" && exit 1; fi
    ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
