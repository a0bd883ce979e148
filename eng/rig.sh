# The guest rig: what its scripts share. Sourced, never run.
#
# Every script prints what it made (a path, a word) on stdout and everything else on stderr. Parts are made once, in
# $CAUSEWAY_CACHE (default: .cache in the repository), under a name that changes with their contents.

set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${CAUSEWAY_CACHE:-$repository/.cache}
mkdir -p "$cache"

say() { echo "${0##*/}: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# One builder at a time: two test runs may start together on an empty cache. The lock ends with the script.
lock() {
    exec 9>"$cache/$1.lock"
    flock --nonblock 9 || {
        say "waiting for another run that makes $1"
        flock 9
    }
}

# announce TEXT COMMAND...: runs COMMAND with its output in a log, and says every 15 seconds that it still does. The log is
# shown only if the command fails.
announce() {
    local text=$1 log started=$SECONDS pid status=0
    shift
    log=$(mktemp)
    say "$text"
    "$@" >"$log" 2>&1 9>&- &
    pid=$!
    while sleep 0.2; kill -0 "$pid" 2>/dev/null; do
        if (((SECONDS - started) >= 15)); then
            started=$SECONDS
            say "$text: still at it"
        fi
    done
    wait "$pid" || status=$?
    if ((status != 0)); then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "failed with status $status: $*"
    fi
    rm -f "$log"
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "must run as root (installs packages, exports files of any owner): try 'sudo $0'"
}

# The first Debian mirror in this machine's own apt configuration, whatever form that has.
debian_mirror() {
    local files found
    files=$(find /etc/apt/sources.list /etc/apt/sources.list.d -name '*.sources' -o -name '*.list' 2>/dev/null || true)
    # shellcheck disable=SC2086 # the list is meant to be split
    found=$(awk '
        /^URIs:/ { uri = $2 }
        /^Suites:/ && uri && $2 !~ /security|nodistro/ && uri ~ /debian\/?$/ { print uri; exit }
        $1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /^(https?|file):.*debian\/?$/) { print $i; exit } }' $files)
    [ "$found" ] || fail "no Debian mirror in /etc/apt/sources.list*: the guest's parts come from one"
    echo "$found"
}
