#!/bin/bash
# usage: test-all.sh VERSION...
# The tests on each of these Python versions that PATH or pyenv has, and a table at the end.
set -u
cd "$(dirname "$0")/.." || exit 1

find_python() { # prints the interpreter of version $1
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1"*/bin/python; do
        # A pyenv shim exists for versions that are not chosen, too: run it.
        if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

make test-engine || exit 1
failed=0
table=()
for version in "$@"; do
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        table+=("$version|not found|")
        continue
    fi
    echo
    echo "== Python $version: $python"
    log=build/logs/test-$version.log
    mkdir -p build/logs
    make test-python PYTHON="$python" VENV=".venv-$version" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    [ "$status" -eq 0 ] && result=passed || { result=FAILED; failed=1; }
    table+=("$version|$result|$(tail -n 20 "$log" | grep -E '(passed|failed|error).* in ' | tail -n 1 | tr -d =)")
done

echo
printf '%-8s %-10s %s\n' Python result tests
for row in "${table[@]}"; do
    IFS='|' read -r version result tests <<<"$row"
    printf '%-8s %-10s %s\n' "$version" "$result" "$tests"
done
exit $failed
