#!/bin/sh
# The real coding agents that the e2e tests drive, from npm, in .cache/agents: agents.sh start|stop|status
#
# start installs them once, in pinned versions; stop leaves them, they are a cache and no service.
# AGENTS_MORE=1 also installs those that only a person tries (Gemini CLI, opencode, Qwen Code).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
home=$root/.cache/agents
packages="@anthropic-ai/claude-code@2.1.332 @openai/codex@0.171.0"
if [ "${AGENTS_MORE:-}" = 1 ]; then
    packages="$packages @google/gemini-cli@0.61.0 opencode-ai@1.18.33 @qwen-code/qwen-code@0.24.4"
fi

installed() {
    [ "$(cat "$home/installed" 2>/dev/null)" = "$packages" ] &&
        [ -x "$home/node_modules/.bin/claude" ] && [ -x "$home/node_modules/.bin/codex" ]
}

case ${1:-} in
start)
    if installed; then exit 0; fi
    if ! command -v npm >/dev/null; then
        echo "error: npm was not found, which brings the coding agents" >&2
        echo "hint:  apt-get install npm" >&2
        exit 1
    fi
    echo "Installing the coding agents from npm into .cache/agents …" >&2
    mkdir -p "$home"
    rm -f "$home/installed"
    [ -f "$home/package.json" ] || echo '{"name": "agents", "private": true}' >"$home/package.json"
    # shellcheck disable=SC2086 # one word for each package
    npm install --prefix "$home" --no-audit --no-fund --no-progress --save-exact $packages >&2
    printf '%s\n' "$packages" >"$home/installed"
    ;;
stop) ;;
status)
    if installed; then echo "agents: installed"; else echo "agents: not installed" && exit 1; fi
    ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
