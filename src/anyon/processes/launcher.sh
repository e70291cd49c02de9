# Runs inside a container, in any POSIX sh (dash, busybox): `sh -c 'eval "$1"' anyon <this text> <mode>…`.
#
#   launch <wrapper's text>    reads requests on stdin, one a line, and answers `<number> <word>…`
#   end <name> <tenths> <reason> <number>   ends a process; in a session of its own, to be done with it
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

try() { # runs the words $1 with what follows as their arguments; fails where nothing can be forked
    words=$1
    shift
    command eval "$words" 2>/dev/null # as an argument of `command` it does not end this shell
}

tree_of() { # sets $tree to the pids of all that belongs to process $1, its wrapper left out
    marked=
    set +f
    try 'marked=$(grep -las "ANYON_PROCESS=$1" /proc/[0-9]*/environ)' "$1"
    set -f
    tree_from "$1" "$marked"
}

tree_from() { # the same, knowing already in which files ($2) its marker stands; needs no fork
    wrapper=0
    { read -r wrapper _ <"$runs/$1/pid"; } 2>/dev/null
    case $wrapper in '' | *[!0-9]*) wrapper=0 ;; esac
    tree=' '
    set +f
    for file in $2; do
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
            try 'sleep 0.1'
            tree_of "$1"
            [ "$tree" != ' ' ] || break
            tenths=$((tenths + 1))
        done
        for again in 1 2 3 4 5 6 7 8; do
            [ "$tree" != ' ' ] || break
            kill -KILL $tree 2>/dev/null
            try 'sleep 0.05'
            tree_of "$1"
        done
    done
}

strike() { # kills what is seen of process $1 without a fork: for a container that is full of them
    for again in 1 2 3 4 5 6 7 8; do
        tree_from "$1" ''
        [ "$tree" = ' ' ] || kill -KILL $tree 2>/dev/null
    done
}

end_process() { # records why process $1 is ended ($3), unless it is over, and ends its tree
    trap '' PIPE
    if [ ! -e "$runs/$1/exit" ]; then
        umask 0
        { printf '%s\n' "$3" >"$runs/$1/reason.$3"; } 2>/dev/null
        if ! try 'ln "$@"' "$runs/$1/reason.$3" "$runs/$1/reason" && [ ! -e "$runs/$1/reason" ]; then
            { printf '%s\n' "$3" >"$runs/$1/reason"; } 2>/dev/null
        fi
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

spawn() { # answers request $1: starts process $2 with timeout $3 and secrets $4, unless it was
    # Two shells: the outer one is killed by the inner one, so that nobody waits for it and it is
    # no background job. Those ignore INT and QUIT, for good, and so would all they run.
    (
        (cd "$runs/$2" && claim "$@")
        :
    ) </dev/null 2>/dev/null
    [ $? = 137 ] || printf '%s\n' "$1 failed"
}

claim() { # becomes the wrapper of the process in this directory, unless it has or had one
    number=$1 name=$2 timeout=$3 secrets=$4
    trap '' PIPE # the server may be gone by now; the process begins all the same
    read -r stat </proc/self/stat
    pid=${stat%% *}
    set -- ${stat##*) }
    parent=$2
    umask 0
    set -C
    if printf '%s\n' "$pid ${20} $boot" >pid; then
        set +C
        printf '%s\n' "$number started"
        trap - PIPE
        kill -KILL "$parent"
        exec setsid sh -c "$wrapper" anyon-process "$name" "$timeout" "$secrets" "$mask" "$text"
    fi
    [ "$secrets" = - ] || rm -f "$secrets"
    for again in 1 2 3 4 5 6 7 8 9 10; do # another launcher may be just between making and writing it
        [ ! -s pid ] || break
        sleep 0.1
    done
    if [ -s pid ]; then printf '%s\n' "$number known"; else printf '%s\n' "$number failed"; fi
    kill -KILL "$parent"
}

serve() { # answers the request $verb $number for process $name; fails where it could not begin
    case $verb in
    start)
        secrets=-
        [ "$2" = 0 ] || take_secrets "$name.$$.$number" "$2"
        if [ "$secrets" = /dev/null ]; then
            printf '%s\n' "$number no-vault"
        else
            spawn "$number" "$name" "$1" "$secrets"
        fi ;;
    check) check "$number" "$name" ;;
    kill) (setsid sh -c 'eval "$1"' anyon-end "$text" end "$name" "$1" "$2" "$number" </dev/null &) ;;
    remove) ( (rm -rf "$runs/$name"; printf '%s\n' "$number done") & ) ;;
    esac
}

launch() {
    for tool in setsid grep ln mv rm sleep; do
        command -v $tool >/dev/null || { printf '%s\n' "missing $tool"; exit 1; }
    done
    mask=$(umask)
    read_boot
    printf '%s\n' "ready $boot"
    while read -r verb number name rest && [ "$verb" != leave ]; do
        set -- $rest
        try 'serve "$@"' "$@" && continue
        if [ "$verb" = kill ]; then
            strike "$name"
            try 'serve "$@"' "$@" && continue
        fi
        printf '%s\n' "$number failed"
    done
}

case $mode in
launch) wrapper=$1 && launch ;;
end)
    end_process "$1" "$2" "$3"
    printf '%s\n' "$4 done" ;;
watch) sleep "$2" && end_process "$1" 50 timeout ;;
esac
