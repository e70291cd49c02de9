# Runs inside a container, in any POSIX sh (dash, busybox): `sh -c 'eval "$1"' anyon <this text> <mode>…`.
#
#   launch                     reads requests on stdin, one a line, and answers `<number> <word>…`
#   wrap …                     is one process: claims its directory, runs it, writes its exit
#   watch <name> <seconds>     ends a process that overran its timeout while no server looked
#
# A process's directory is $runs/<name>. Whoever creates `pid` there first runs it, nobody else.
set -f
text=$1 mode=$2
shift 2
runs=/run/anyon
vault=/run/anyon-secrets

start_of() { # sets $started to the start time of process $1, or fails
    started=
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${stat##*) }
    [ "$1" != Z ] && [ "$1" != X ] || return 1
    started=${20}
}

read_boot() { # sets $boot: which boot of the machine and which start of the container this is
    read -r boot </proc/sys/kernel/random/boot_id || boot=unknown
    start_of 1 || started=unknown
    boot=$boot/$started
}

tree_of() { # sets $tree to the pids of all that belongs to process $1, its wrapper left out
    wrapper=0
    { read -r wrapper _ <"$runs/$1/pid"; } 2>/dev/null
    case $wrapper in '' | *[!0-9]*) wrapper=0 ;; esac
    tree=' '
    set +f
    for file in $(grep -las "ANYON_PROCESS=$1" /proc/[0-9]*/environ); do
        file=${file#/proc/}
        tree="$tree${file%/environ} "
    done
    for file in /proc/[0-9]*/fd/[12]; do
        if [ "$file" -ef "$runs/$1/stdout" ] || [ "$file" -ef "$runs/$1/stderr" ]; then
            file=${file#/proc/}
            tree="$tree${file%%/*} "
        fi
    done
    set -- /proc/[0-9]*/stat
    set -f
    table=
    for file; do
        { read -r stat <"$file"; } 2>/dev/null || continue
        pid=${stat%% *}
        set -- ${stat##*) }
        [ "$1" = Z ] || table="$table $pid:$2:$4"
    done
    grown=1
    while [ -n "$grown" ]; do
        grown=
        for row in $table; do
            pid=${row%%:*} row=${row#*:}
            case $tree in *" $pid "*) continue ;; esac
            case " $wrapper$tree" in
            *" ${row%:*} "* | *" ${row#*:} "*) tree="$tree$pid " grown=1 ;;
            esac
        done
    done
    kept=' '
    for pid in $tree; do
        case "$kept" in *" $pid "*) continue ;; esac
        case "$table " in *" $pid:"*) [ "$pid" = "$wrapper" ] || kept="$kept$pid " ;; esac
    done
    tree=$kept
}

end_tree() { # ends all of process $1: TERM, $2 tenths of a second, KILL, and all that once more
    for round in 1 2; do
        tree_of "$1"
        [ "$tree" != ' ' ] || return 0
        kill -TERM $tree 2>/dev/null
        kill -CONT $tree 2>/dev/null
        tenths=0
        while [ "$tenths" -lt "$2" ]; do
            sleep 0.1
            tree_of "$1"
            [ "$tree" != ' ' ] || break
            tenths=$((tenths + 1))
        done
        for again in 1 2 3 4 5 6 7 8; do
            [ "$tree" != ' ' ] || break
            kill -KILL $tree 2>/dev/null
            sleep 0.05
            tree_of "$1"
        done
    done
}

end_process() { # records why process $1 is ended ($3), unless it is over, and ends its tree
    trap '' PIPE
    if [ ! -e "$runs/$1/exit" ]; then
        umask 0
        { printf '%s\n' "$3" >"$runs/$1/reason.$3" && ln "$runs/$1/reason.$3" "$runs/$1/reason"; } 2>/dev/null
    fi
    end_tree "$1" "$2"
}

check() { # answers request $1: how the process $2 stands
    answer=gone pid= since= when=
    { read -r pid since when <"$runs/$2/pid"; } 2>/dev/null
    case $pid in
    '' | *[!0-9]*) ;;
    *) [ "$when" = "$boot" ] || answer=elsewhere
       if [ "$answer" = gone ] && start_of "$pid" && [ "$started" = "$since" ]; then answer=alive; fi ;;
    esac
    printf '%s\n' "$1 $answer"
}

take_secrets() { # keeps the next $2 lines of stdin in a file of the vault; sets $secrets to its name
    secrets=$vault/$1
    umask 077
    if ! { [ -d "$vault" ] && printf '' >"$secrets"; } 2>/dev/null; then secrets=/dev/null; fi
    count=$2
    while [ "$count" -gt 0 ] && IFS= read -r line; do
        printf '%s\n' "$line"
        count=$((count - 1))
    done >"$secrets"
    umask "$mask"
}

spawn() { # answers request $1 by way of the wrapper of process $2, which ends the shell between
    (
        setsid sh -c 'eval "$1"' anyon-process "$text" wrap "$@" "$boot" "$mask" </dev/null
        :
    ) 2>/dev/null
    [ $? = 137 ] || printf '%s\n' "$1 failed"
}

launch() {
    for tool in setsid grep ln mv rm sleep; do
        command -v $tool >/dev/null || { printf '%s\n' "missing $tool"; exit 1; }
    done
    mask=$(umask)
    read_boot
    printf '%s\n' "ready $boot"
    while read -r verb number name rest; do
        set -- $rest
        case $verb in
        start)
            secrets=-
            [ "$2" = 0 ] || take_secrets "$name.$$.$number" "$2"
            if [ "$secrets" = /dev/null ]; then
                printf '%s\n' "$number no-vault"
            else
                spawn "$number" "$name" "$1" "$secrets" 2>/dev/null
            fi ;;
        check) check "$number" "$name" ;;
        kill) ( (end_process "$name" "$1" "$2"; printf '%s\n' "$number done") & ) ;;
        remove) ( (rm -rf "$runs/$name"; printf '%s\n' "$number done") & ) ;;
        esac
    done
}

wrap() { # number name timeout secrets boot mask
    # The shell between must go for the launcher to go on. It is there so that this one is not a
    # background job of a shell: those ignore INT and QUIT, for good, and so would all they run.
    [ "$PPID" = 1 ] || kill -KILL "$PPID"
    trap '' PIPE
    ended=
    trap 'ended=container_stopped' TERM # who ends even wrappers ends the container
    trap : HUP INT QUIT
    cd "$runs/$2" || { printf '%s\n' "$1 failed"; exit 1; }
    umask 0
    start_of $$
    if (set -C && printf '%s\n' "$$ $started $5" >pid) 2>/dev/null; then
        printf '%s\n' "$1 started"
    else
        [ "$4" = - ] || rm -f "$4"
        if [ -s pid ]; then printf '%s\n' "$1 known"; else printf '%s\n' "$1 failed"; fi
        exit 0
    fi
    exec >/dev/null
    watcher=
    if [ "$3" != - ]; then
        setsid sh -c 'eval "$1"' anyon-watch "$text" watch "$2" "$3" </dev/null &
        watcher=$!
    fi
    input=/dev/null
    [ ! -e stdin ] || input=stdin
    (
        trap - PIPE
        [ ! -e reason ] || exit 143 # who ended it was quicker than its start
        umask "$6"
        { printf 300 >/proc/self/oom_score_adj; } 2>/dev/null
        if [ "$4" != - ]; then
            . "$4"
            rm -f "$4"
        fi
        export ANYON_PROCESS="$2"
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
    while [ -d "$runs/$2" ] && [ ! -e exit ]; do
        reason=$ended
        [ ! -e reason ] || read -r reason <reason
        printf '%s %s\n' "$code" "$reason" >exit.new && mv exit.new exit && break
        sleep 1
    done
}

case $mode in
launch) launch ;;
wrap) wrap "$@" ;;
watch) sleep "$2" && end_process "$1" 50 timeout ;;
esac
