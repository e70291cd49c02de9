#!/usr/bin/env bash
# gcsfuse for the tests, built once with Go into .cache/services/gcsfuse: `start` prints its path, `status`, `stop`,
# `remove`. Nothing runs: each test mounts for itself. The build takes one to three minutes on two cores; repeats none.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD/.cache/services/gcsfuse
# Version 3 has its own module path; later versions than this one want a newer Go.
version=v3.11.2
program=$root/$version/gcsfuse

fuse() { [ -c /dev/fuse ] && command -v fusermount3 >/dev/null; }

# The program that unmounts; the device is the kernel's, which no package can bring.
install_fuse() {
  if [ ! -c /dev/fuse ]; then
    echo "gcsfuse: this machine has no /dev/fuse; what to do: modprobe fuse, or give the container the device" >&2
    exit 3
  fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "gcsfuse: fusermount3 is not here; what to do: install the package fuse3, as root" >&2
    exit 3
  fi
  echo "gcsfuse: installing the package fuse3" >&2
  mkdir -p "$root"
  { apt-get -qq update || true; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends fuse3; } \
    >"$root/apt.log" 2>&1 || { tail -n 5 "$root/apt.log" >&2; exit 3; }
}

build() {
  local go
  go=$(command -v go || true)
  [ -n "$go" ] || go=$(ls /usr/local/go/bin/go 2>/dev/null || true)
  if [ -z "$go" ]; then
    echo "gcsfuse: Go is not here; what to do: install Go 1.26.5 or newer, or put a gcsfuse into the PATH" >&2
    exit 3
  fi
  echo "gcsfuse: building $version (a few minutes, once)" >&2
  mkdir -p "$root/$version"
  if ! GOBIN=$root/$version CGO_ENABLED=0 "$go" install -trimpath -ldflags="-s -w" \
    "github.com/googlecloudplatform/gcsfuse/v3@$version" >"$root/build.log" 2>&1; then
    tail -n 5 "$root/build.log" >&2
    echo "gcsfuse: it could not be built; what to do: see $root/build.log" >&2
    exit 3
  fi
}

case "${1:-}" in
  start)
    fuse || install_fuse
    mkdir -p "$root"
    exec 9>"$root/lock"
    flock 9
    [ -x "$program" ] || build
    echo "$program"
    ;;
  stop) ;;
  status) if [ -x "$program" ]; then echo "$program"; else echo "not built"; exit 1; fi ;;
  remove) rm -rf "$root" ;;
  *) echo "usage: $0 start|stop|status|remove" >&2; exit 2 ;;
esac
