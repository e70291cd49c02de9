#!/bin/sh
# A Docker engine for tests and for trying Anyon: docker.sh start|stop|status
#
# An engine that already answers is used and never touched. Otherwise one is started, as root,
# from the distribution's packages (installed if missing); its data lives in the checkout's cache.
# `stop` ends only what `start` began. Both may be repeated, and survive a kill -9 of the engine.
set -eu

checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
state=${ANYON_CACHE:-$checkout/.cache}/services/docker
# Sockets below the run directory must stay shorter than 108 bytes, so it is not in the checkout.
run=/run/anyon-docker
socket=${ANYON_DOCKER_SOCKET:-/var/run/docker.sock}
log=$state/dockerd.log

say() { echo "docker: $*"; }
fail() {
    echo "docker: $1" >&2
    echo "docker: what to do: $2" >&2
    exit 1
}

answers() {
    # Another client's context or host must not mislead us: ask exactly this socket.
    [ -S "$socket" ] && timeout 10 docker -H "unix://$socket" version \
        --format '{{.Server.Version}}' 2>/dev/null
}

# is_alive PID NAME: a process of that name runs; a zombie or a re-used pid does not count.
is_alive() {
    [ -n "$1" ] && [ -r "/proc/$1/stat" ] || return 1
    case $(cat "/proc/$1/stat" 2>/dev/null) in
    "$1 ($2) Z"* | "$1 ($2) X"*) return 1 ;;
    "$1 ($2) "*) return 0 ;;
    *) return 1 ;;
    esac
}

has_ended() {
    case $(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null) in "" | Z | X) return 0 ;; *) return 1 ;; esac
}

# The pid of the engine that we started, if it is still that one (a pid is used again after a reboot).
our_pid() {
    read -r pid since 2>/dev/null <"$state/started" || return 0
    [ "$since" != "$(started_at "$pid")" ] || echo "$pid"
}
started_at() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null || true; }

pid_in() { cat "$1" 2>/dev/null || true; }

# until_gone PID NAME SECONDS
until_gone() {
    left=$(($3 * 10))
    while is_alive "$1" "$2"; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.1
    done
}

# end PID NAME SECONDS: TERM, wait, KILL.
end() {
    is_alive "$1" "$2" || return 0
    kill -TERM "$1" 2>/dev/null || true
    until_gone "$1" "$2" "$3" && return 0
    say "$2 ($1) ignores TERM; killing it"
    kill -KILL "$1" 2>/dev/null || true
    until_gone "$1" "$2" 10 || fail "$2 ($1) cannot be killed" "look at /proc/$1/stack; a reboot may be needed"
}

install() {
    missing=""
    command -v dockerd >/dev/null && command -v docker >/dev/null || missing="docker.io"
    command -v iptables >/dev/null || missing="$missing iptables"
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "no dockerd here, and no apt-get to install it with" \
        "install Docker or Podman by your distribution's means and start it"
    say "installing $missing"
    export DEBIAN_FRONTEND=noninteractive
    # The package starts an engine of its own, which `stop` would not end: it is told not to.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && policy="" || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"; }
    trap '[ -z "$policy" ] || rm -f "$policy"' EXIT
    # A third party's source that does not answer must not be in the way, hence no &&.
    # shellcheck disable=SC2086 # a list of words
    { apt-get -qq update; apt-get -qq install -y --no-install-recommends $missing; } \
        >"$state/apt.log" 2>&1 || {
        tail -n 5 "$state/apt.log" >&2
        fail "could not install $missing" "see $state/apt.log; check the package sources and the network"
    }
    # Debian 13 and later have the client in a package of its own.
    command -v docker >/dev/null || apt-get -qq install -y --no-install-recommends docker-cli \
        >>"$state/apt.log" 2>&1 || fail "could not install docker-cli" "see $state/apt.log"
    [ -z "$policy" ] || rm -f "$policy"
    trap - EXIT
}

prepare_cgroups() {
    grep -q ' cgroup2\? ' /proc/mounts && return 0
    say "mounting cgroup2"
    mount -t cgroup2 none /sys/fs/cgroup ||
        fail "no cgroups, and mounting them failed" "run in a machine or a container that has cgroups"
}

# A pid file whose process is gone, dead but not reaped, or another program, stops dockerd from starting.
drop_stale() {
    is_alive "$(pid_in "$run/docker.pid")" dockerd || rm -f "$run/docker.pid"
    is_alive "$(pid_in "$run/exec/containerd/containerd.pid")" containerd ||
        rm -f "$run/exec/containerd/containerd.pid"
}

launch() {
    # An empty file of settings: the machine's own could contradict the flags.
    echo '{}' >"$run/daemon.json"
    # 9 is the lock: the engine must not hold it.
    setsid dockerd --config-file "$run/daemon.json" --data-root "$state/data" \
        --exec-root "$run/exec" --pidfile "$run/docker.pid" -H "unix://$socket" \
        --log-opt max-size=1m --log-opt max-file=2 --userland-proxy=false \
        --default-address-pool base=10.200.0.0/14,size=24 \
        </dev/null >>"$log" 2>&1 9>&- &
    echo "$! $(started_at $!)" >"$state/started"
}

start() {
    if [ -n "${DOCKER_HOST:-}" ] && timeout 10 docker version >/dev/null 2>&1; then
        say "the engine at $DOCKER_HOST (DOCKER_HOST) answers"
        return 0
    fi
    if version=$(answers); then
        say "an engine answers at $socket (version $version)"
        return 0
    fi
    [ "$(id -u)" = 0 ] || fail "no engine answers at $socket, and starting one needs root" \
        "run this as root; or start Docker or rootless Podman and set DOCKER_HOST; or use --engine bubblewrap"
    mkdir -p "$state" "$run"
    exec 9>"$run/lock"
    timeout 300 flock 9 || fail "another start or stop has not ended in 5 minutes" "look for other docker.sh processes"
    # Someone may have started it while we waited; a package may have started its own.
    if version=$(answers); then say "an engine answers at $socket (version $version)"; return 0; fi
    install
    if version=$(answers); then say "an engine answers at $socket (version $version)"; return 0; fi
    prepare_cgroups
    ours=$(our_pid)
    if is_alive "$ours" dockerd; then
        say "our engine ($ours) runs but does not answer; ending it"
        end "$ours" dockerd 20
    fi
    drop_stale
    [ ! -S "$socket" ] || rm -f "$socket" # nobody answers there
    launch
    ours=$(our_pid)
    left=600
    until version=$(answers); do
        left=$((left - 1))
        if [ "$left" -le 0 ] || has_ended "$ours"; then
            tail -n 15 "$log" >&2
            fail "dockerd did not come up" "see $log; without iptables' nat table or overlayfs this machine cannot run it"
        fi
        sleep 0.1
    done
    say "started version $version at $socket (pid $ours, data in $state/data)"
}

stop() {
    [ -e "$state/started" ] || { say "nothing of ours to stop"; return 0; }
    [ "$(id -u)" = 0 ] || fail "stopping the engine needs root" "run this as root"
    mkdir -p "$run"
    exec 9>"$run/lock"
    timeout 300 flock 9 || fail "another start or stop has not ended in 5 minutes" "look for other docker.sh processes"
    ours=$(our_pid)
    containerd=$(pid_in "$run/exec/containerd/containerd.pid")
    end "$ours" dockerd 60
    end "$containerd" containerd 20
    # Containers of an engine that was killed are left to their shims, which name our address.
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        if tr '\0' ' ' 2>/dev/null <"$directory/cmdline" | grep -q "^[^ ]*containerd-shim.* -address $run/exec/"; then
            for child in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do
                kill -KILL "$child" 2>/dev/null || true
            done
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
    grep " $run/\| $state/data/" /proc/mounts | cut -d' ' -f2 | sort -r | while read -r mounted; do
        umount -l "$mounted" 2>/dev/null || true
    done
    rm -f "$state/started" "$run/docker.pid" "$run/exec/containerd/containerd.pid"
    [ ! -S "$socket" ] || answers >/dev/null || rm -f "$socket"
    say "stopped"
}

status() {
    if version=$(answers); then
        say "answers at $socket (version $version)"
    else
        say "no engine answers at $socket"
        return 3
    fi
}

case ${1:-} in
start) start ;;
stop) stop ;;
status) status ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
