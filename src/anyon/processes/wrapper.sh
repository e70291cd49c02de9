# Is one process, in its directory: runs it, writes its exit. Its arguments: the name, the seconds after
# which a watcher ends it (or -), the file of its secrets (or -), the umask, the launcher's text.
# Leads a session of its own, and stands in no session, group or marker that is ended with the process.
exec >/dev/null # the launcher's output: who sees its end knows that no wrapper is in its session
name=$1 timeout=$2 secrets=$3 mask=$4 text=$5
ended=
trap 'ended=container_stopped' TERM # who ends even wrappers ends the container
trap : HUP INT QUIT
watcher=
if [ "$timeout" != - ]; then
    setsid sh -c 'eval "$1"' anyon-watch "$text" watch "$name" "$timeout" </dev/null &
    watcher=$!
fi
input=/dev/null
[ ! -e stdin ] || input=stdin
(
    [ ! -e reason ] || exit 143 # who ended it was quicker than its start
    umask "$mask"
    { printf 300 >/proc/self/oom_score_adj; } 2>/dev/null
    if [ "$secrets" != - ]; then
        . "$secrets"
        rm -f "$secrets"
    fi
    export ANYON_PROCESS="$name"
    . ./command
    exec "$@"
) <"$input" >>stdout 2>>stderr
code=$?
if [ -n "$watcher" ]; then
    reason=
    [ ! -e reason ] || read -r reason <reason
    # If it is at work it may not be done with what the program left behind.
    [ "$reason" = timeout ] || kill -KILL "-$watcher" "$watcher"
fi
while [ -e pid ] && [ ! -e exit ]; do
    reason=$ended
    [ ! -e reason ] || read -r reason <reason
    printf '%s %s\n' "$code" "$reason" >exit.new && mv exit.new exit && break
    sleep 1 # the disk may be full: an exit is not lost to that
done
