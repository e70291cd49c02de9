#!/usr/bin/env bash
# A private Postgres for tests, from Debian's package: `start` prints its URL, `stop`, `status`, `remove`.
# It lives in .cache/services/postgres, listens on a loopback port, and belongs to this checkout alone.
# Repeats are harmless. It is made for tests: it does not wait for the disk.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD/.cache/services/postgres
data=$root/data

installed() { find /usr/lib/postgresql -maxdepth 3 -name pg_ctl 2>/dev/null | sort -V | tail -1; }

# As root it is installed from the distribution's packages; the package's own server is not started.
install() {
  [ -z "$(installed)" ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Postgres is not installed; as root: apt-get install postgresql" >&2
    exit 3
  fi
  echo "postgres: installing" >&2
  local policy=/usr/sbin/policy-rc.d log=$root/apt.log
  if [ -e "$policy" ]; then policy=""; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"; fi
  # A third party's source that does not answer must not be in the way: the update may fail.
  apt-get -qq update >"$log" 2>&1 || true
  if ! DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends postgresql >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "Postgres could not be installed; see $log, and check the package sources and the network" >&2
    [ -z "$policy" ] || rm -f "$policy"
    exit 3
  fi
  [ -z "$policy" ] || rm -f "$policy"
}

# Postgres refuses to run as root: then it runs as the package's own user.
as_owner() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/tmp "$@")
  else
    "$@"
  fi
}

url() { echo "postgresql://anyon@127.0.0.1:$(cat "$root/port")/postgres"; }

is_running() { [ -f "$data/postmaster.pid" ] && as_owner "$bin/pg_ctl" -D "$data" status >/dev/null 2>&1; }

free_port() {
  python3 -c 'import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])'
}

# A cluster that another user must reach cannot lie below a directory that is closed to them.
place() {
  if [ "$(id -u)" = 0 ] && ! as_owner test -x "$root"; then
    local outside
    outside=/var/tmp/anyon-postgres-$(echo "$root" | cksum | cut -d' ' -f1)
    mkdir -p "$outside"
    chown postgres "$outside"
    data=$outside/data
  elif [ "$(id -u)" = 0 ]; then
    chown postgres "$root"
  fi
}

mkdir -p "$root"
if [ "${1:-}" = start ]; then install; fi
found=$(installed)
if [ -z "$found" ]; then
  if [ "${1:-}" = status ]; then echo "not installed" && exit 1; fi
  exit 0 # nothing to stop or remove
fi
bin=$(dirname "$found")
place
case "${1:-}" in
  start)
    exec 9>"$root/lock"
    flock 9
    if [ ! -f "$data/PG_VERSION" ]; then
      as_owner "$bin/initdb" -D "$data" -U anyon --auth=trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
    fi
    if ! is_running; then
      free_port >"$root/port"
      options="-c listen_addresses=127.0.0.1 -c port=$(cat "$root/port") -c unix_socket_directories= -c fsync=off -c max_connections=200"
      as_owner "$bin/pg_ctl" -D "$data" -w -t 60 -l "$data/server.log" -o "$options" start >/dev/null 9>&- || {
        echo "Postgres did not start; its words are in $data/server.log" >&2
        exit 1
      }
    fi
    url
    ;;
  stop)
    if is_running; then as_owner "$bin/pg_ctl" -D "$data" -w -m fast stop >/dev/null; fi
    ;;
  status)
    if is_running; then url; else echo "not running"; exit 1; fi
    ;;
  remove)
    if is_running; then as_owner "$bin/pg_ctl" -D "$data" -w -m immediate stop >/dev/null; fi
    rm -rf "$data" "$root"
    ;;
  *)
    echo "usage: $0 start|stop|status|remove" >&2
    exit 2
    ;;
esac
