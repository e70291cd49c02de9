#!/bin/sh
# Real projects that are not ours, for the e2e tests, in .cache/real-projects: real_projects.sh start|stop|status
#
# start fetches Flask's source distribution from PyPI and create-vite from npm once, in pinned
# versions, and unpacks both; stop leaves them, they are a cache and no service.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
home=${ANYON_CACHE:-$root/.cache}/real-projects
flask=3.1.2
vite=8.0.2
wanted="flask $flask, create-vite $vite"

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
    "$root/.venv/bin/python" -m pip download --disable-pip-version-check -q --no-deps \
        --no-binary flask -d "$new" "flask==$flask" >&2 ||
        fail "Flask's source could not be fetched" "check the connection to the Python package index"
    (cd "$new" && npm pack --silent "create-vite@$vite") >/dev/null ||
        fail "create-vite could not be fetched" "check the connection to the npm registry"
    tar -xzf "$new/flask-$flask.tar.gz" -C "$new" --no-same-owner
    mv "$new/flask-$flask" "$new/flask"
    tar -xzf "$new/create-vite-$vite.tgz" -C "$new" --no-same-owner package/template-react
    mv "$new/package/template-react" "$new/react"
    mv "$new/react/_gitignore" "$new/react/.gitignore" # as create-vite itself does
    printf '%s\n' "$wanted" >"$new/fetched"
    if ! is_there; then
        rm -rf "$home"
        mv -T "$new" "$home" 2>/dev/null || is_there
    fi
}

case ${1:-} in
start)
    if is_there; then exit 0; fi
    [ -x "$root/.venv/bin/python" ] || fail "no environment in .venv" "./run or ./test sets one up"
    command -v npm >/dev/null || fail "npm was not found" "apt-get install npm"
    echo "Fetching the sources of $wanted into .cache/real-projects …" >&2
    fetch
    ;;
stop) ;;
status)
    if is_there; then echo "real projects: $wanted"; else echo "real projects: not fetched" && exit 1; fi
    ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
