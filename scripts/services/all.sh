#!/bin/sh
# Every service that the tests use: all.sh start|stop|status
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
services="docker images postgres prometheus gcsfuse"
case ${1:-} in
start | status) ;;
stop) services="gcsfuse prometheus postgres images docker" ;;
*)
    echo "usage: $0 start|stop|status" >&2
    exit 2
    ;;
esac
failed=0
for service in $services; do
    "$here/$service.sh" "$1" || {
        code=$?
        # Without these their tests are left out; only CI insists.
        case $service in
        postgres | prometheus | gcsfuse) [ -z "${CI:-}" ] || failed=$code ;;
        *) failed=$code ;;
        esac
    }
done
exit "$failed"
