#!/usr/bin/env bash
# Writes the lock files, requirements/*.txt, from pyproject.toml: exact versions with hashes.
# Needs uv (in the development requirements). Commit the result.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
common=(--no-header --no-annotate --generate-hashes --universal --python-version 3.11 --no-emit-index-url -q)
"$uv" pip compile "${common[@]}" pyproject.toml -o requirements/run.txt
"$uv" pip compile "${common[@]}" --group dev pyproject.toml -c requirements/run.txt -o requirements/dev.txt
