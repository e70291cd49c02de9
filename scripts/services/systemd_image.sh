#!/usr/bin/env bash
# An image of a machine that boots systemd, for the test of the units: systemd_image.sh start|stop|status|remove
#
# `start` makes it from the distribution's packages and what Anyon requires from PyPI (in /opt/anyon, without Anyon
# itself) where it is missing, and prints its name. Needs an engine (docker.sh start) and root. The archive is kept in
# the checkout's cache: an engine that lost its images has it again in seconds. Nothing runs.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${ANYON_CACHE:-$PWD/.cache}/services/systemd-image
packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,ca-certificates,curl,fuse3,git,iproute2,procps,python3,python3-venv,util-linux
key=$(cat "$0" requirements/run.txt /etc/os-release | sha256sum | cut -c1-12)
image=anyon/systemd:$key
archive=$root/$key.tar

fail() {
  echo "systemd image: $1; what to do: $2" >&2
  exit 3
}

sources() { .venv/bin/python -c 'from anyon.images import sources; print(*sources.of_host(), sep="\n")'; }

# The certificate authorities and the package index of this machine are used for the time of the build, as for workspaces.
build() {
  local told suite
  [ "$(id -u)" = 0 ] || fail "making it needs root" "run it as root"
  command -v mmdebstrap >/dev/null || fail "mmdebstrap is not here" "scripts/services/images.sh start, or install it"
  echo "systemd image: making it (about a minute, once)" >&2
  new=$(mktemp -d "$root/new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  told=$(sources) || fail "no package sources" "see above"
  suite=${told%%$'\n'*}
  printf '%s\n' "${told#*$'\n'}" >"$new/host.sources"
  cp requirements/run.txt "$new/run.txt"
  cat >"$new/hook" <<'HOOK'
set -eu
for file in /usr/local/share/ca-certificates/*.crt; do
  if [ -f "$file" ]; then cp "$file" "$1/usr/local/share/ca-certificates/"; fi
done
chroot "$1" update-ca-certificates
cp "${0%/*}/run.txt" "$1/opt/run.txt"
index=$(pip config get global.index-url 2>/dev/null || true)
chroot "$1" python3 -m venv /opt/anyon
chroot "$1" env -u PIP_FIND_LINKS HOME=/root PIP_CERT=/etc/ssl/certs/ca-certificates.crt /opt/anyon/bin/pip install \
  --quiet --no-cache-dir --disable-pip-version-check ${index:+--index-url "$index"} --require-hashes -r /opt/run.txt
# What asks for hardware, a console or the time of day has no place in a container.
chroot "$1" systemctl mask --quiet systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
  systemd-timesyncd.service console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer
HOOK
  mmdebstrap --variant=minbase --include="$packages" --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook="sh $new/hook \"\$1\"" \
    --format=tar "$suite" "$new/root.tar" "$new/host.sources" >"$root/build.log" 2>&1 || {
    tail -n 8 "$root/build.log" >&2
    fail "it could not be made" "see $root/build.log"
  }
  mv "$new/root.tar" "$archive"
}

case "${1:-}" in
  start)
    mkdir -p "$root"
    exec 9>"$root/lock"
    flock 9
    if ! docker image inspect "$image" >/dev/null 2>&1; then
      [ -f "$archive" ] || build
      docker import -c 'ENV container=docker' "$archive" "$image" >/dev/null ||
        fail "no engine takes it" "scripts/services/docker.sh start"
      find "$root" -name '*.tar' ! -name "$key.tar" -delete
    fi
    echo "$image"
    ;;
  stop) ;;
  status) docker image inspect "$image" >/dev/null 2>&1 && echo "$image" || { echo "systemd image: not made"; exit 1; } ;;
  remove)
    docker image rm -f "$image" >/dev/null 2>&1 || true
    rm -rf "$root"
    ;;
  *) echo "usage: $0 start|stop|status|remove" >&2; exit 2 ;;
esac
