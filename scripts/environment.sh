#!/usr/bin/env bash
# Makes the isolated environment .venv from a lock file; does nothing when it is up to date.
#
# usage: scripts/environment.sh run|dev
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?run or dev}

fail() { printf 'error: %s\n' "$1" >&2; printf 'hint:  %s\n' "$2" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    printf '%s' "$candidate"
    return
  done
  fail "Python 3.11 or later was not found" "apt-get install python3 python3-venv, or set PYTHON=/path/to/python3.11"
}

python=$(find_python)
wanted=$(cat "requirements/$kind.txt" pyproject.toml | sha256sum | cut -d' ' -f1)
stamp=.venv/.anyon-$kind
# The development environment holds all that running needs.
if [ "$kind" = run ] && [ -f .venv/.anyon-dev ]; then exec "$0" dev; fi
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

echo "Setting up the isolated environment .venv from requirements/$kind.txt …" >&2
if ! [ -x .venv/bin/pip ]; then
  "$python" -m venv .venv || fail "no virtual environment could be made" "apt-get install python3-venv"
fi
.venv/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r "requirements/$kind.txt" \
  || fail "the locked packages could not be installed" "check the connection to the Python package index, then run the same command again"
# hatchling is locked with the rest for developers; elsewhere pip builds in isolation.
.venv/bin/python -m pip --disable-pip-version-check install -q --no-deps -e . \
  || fail "Anyon itself could not be installed" "run the same command again; the lines above say why"
printf '%s' "$wanted" > "$stamp"
