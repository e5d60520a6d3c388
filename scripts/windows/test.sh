#!/bin/bash
# usage: test.sh [PART...]
# Tests oxloop on CPython for Windows, under Wine. The parts, all of which are run if none is named:
#
#   engine       the engine's tests
#   conformance  CPython's own tests of asyncio, on 3.13
#   examples     the programs of examples/ on both loop classes, on 3.13
#   3.13 3.14 3.14t   oxloop's own tests there; with a SelectSelector, which no version of Python changes, on 3.13
#   quick        instead of these: the engine, tests/test_windows*.py and those of sockets and streams on 3.13, and the
#                conformance of a few modules
#
# JOBS (the number of cores) tests run at the same time. The output of each is in build/logs/windows.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
export WINEPREFIX=$PWD/build/windows/prefix
export JOBS=${JOBS:-$(nproc)} LOGS=build/logs/windows
mkdir -p "$LOGS"
failed=()

# step NAME command...: runs it, with its output in a log that is shown if it fails.
step() {
    local name=$1 log status=0 started=$SECONDS
    log=$LOGS/${name// /-}.log
    shift
    "$@" >"$log" 2>&1 || status=$?
    printf '%-28s %5d s%s\n' "$name" $((SECONDS - started)) "$(summary "$log" "$status")"
    [ "$status" -eq 0 ] || failed+=("$name: $log")
}

# What the lines of a log have counted, added up; without what is asyncio's fault.
summary() { # LOG STATUS
    local counts
    counts=$(grep -E 'test result: | tests: |(passed|failed|errors?|skipped|xfailed).* in ' "$1" |
        sed 's/failed on asyncio too//' | grep -oE '\b[0-9]+ (passed|failed|errors?|listed|skipped|xfailed)\b' | awk '
            BEGIN { split("passed failed error errors listed skipped xfailed", words) }
            { count[$2] += $1 }
            END { for (i = 1; i in words; i++) if (count[words[i]]) printf "  %d %s", count[words[i]], words[i] }')
    [ "$2" -eq 0 ] && echo "${counts:-  done}" || echo "  FAILED ($2)$counts"
}

# What needs Unix (its sockets, descriptors and processes), or does not depend on the system and is tested there.
LEFT_OUT='test_(architecture|compatibility|signatures|stubs|soak|children|unix|datagram_queue)'

own_tests() { # VERSION [FILE...]
    local version=$1
    shift
    local files=("$@")
    [ $# -gt 0 ] || mapfile -t files < <(ls tests/test_*.py | grep -vE "$LEFT_OUT")
    rm -f "$LOGS/$version.failed"
    printf '%s\n' "${files[@]}" | xargs -P "$JOBS" -I{} "$here/test-file.sh" "$version" {}
    [ ! -e "$LOGS/$version.failed" ] || { cat "$LOGS/$version.failed"; return 1; }
}

conformance() { # BACKEND [MODULE...]
    local backend=$1 modules
    shift
    modules=("$@")
    [ $# -gt 0 ] || mapfile -t modules < <("$here/wine.sh" build/windows/3.13/python.exe -m tests.conformance --list |
        cut -d. -f1 | sort -u)
    rm -f "$LOGS/conformance-$backend.failed"
    printf '%s\n' "${modules[@]}" | xargs -P "$JOBS" -I{} "$here/test-module.sh" "$backend" {}
    [ ! -e "$LOGS/conformance-$backend.failed" ] || { cat "$LOGS/conformance-$backend.failed"; return 1; }
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(engine conformance examples 3.13 3.14 3.14t)
[ "${parts[*]}" != quick ] || parts=(engine quick)

"$here/setup.sh" || exit 1
# Beside what is built for release, which ends with minutes on a single core.
[[ " ${parts[*]} " != *" engine "* ]] ||
    "$here/cargo.sh" test --no-run --locked --package oxloop-engine >"$LOGS/engine-build.log" 2>&1 &
made=()
for part in "${parts[@]}"; do
    case $part in 3.14*) version=$part ;; engine) continue ;; *) version=3.13 ;; esac
    [[ " ${made[*]-} " != *" $version "* ]] || continue
    made+=("$version")
    step "Python $version" "$here/python.sh" "$version"
    step "oxloop for $version" "$here/install.sh" "$version"
done
wait
[ ${#failed[@]} -eq 0 ] || { printf '%s\n' "${failed[@]}"; exit 1; }

# It stays from one program to the next, as starting it takes seconds; but not for as long as the builds take.
wineserver --persistent=60 </dev/null >/dev/null 2>&1
trap 'WINEPREFIX=$WINEPREFIX wineserver -k 2>/dev/null' EXIT

for part in "${parts[@]}"; do
    case $part in
    engine) step engine "$here/cargo.sh" test --locked --package oxloop-engine ;;
    conformance)
        for backend in proactor selector; do step "conformance $backend" conformance $backend; done ;;
    examples) step examples own_tests 3.13 tests/test_examples.py ;;
    quick)
        step "tests 3.13" own_tests 3.13 tests/test_windows*.py \
            tests/test_{sock,stream_transport,streams,tls,server}.py
        step "conformance proactor" conformance proactor test_windows_events test_streams test_sock_lowlevel ;;
    3.13) step "tests $part" own_tests "$part" ;;
    *) BACKENDS=${BACKENDS:-proactor selector} step "tests $part" own_tests "$part" ;;
    esac
done

[ ${#failed[@]} -eq 0 ] || { echo; echo "FAILED:"; printf '  %s\n' "${failed[@]}"; exit 1; }
