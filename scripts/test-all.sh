#!/bin/bash
# usage: test-all.sh VERSION...
# The tests on each of these Python versions (3.13, or 3.14t for the free-threaded one), and a table at the end.
# A version that PATH and pyenv lack is fetched into build/pythons where that can be done.
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p build/logs

# Sets `run`, the command by which make tests on version $1; fails where there is no such Python.
choose_python() {
    local version=$1 python
    python=$(scripts/pythons/find.sh "$version")
    if [ -z "$python" ] && [ "$version" = 3.14t ]; then
        python=$(scripts/pythons/embedded.sh "$version")
    fi
    if [ -n "$python" ]; then
        run=(make test-python PYTHON="$python")
        return
    fi
    [ -x "build/pythons/debian/usr/bin/python$version" ] || return 1
    run=(scripts/pythons/inside.sh make test-python PYTHON="/usr/bin/python$version")
}

wanting=()
for version in "$@"; do
    [[ $version == *t ]] || [ -n "$(scripts/pythons/find.sh "$version")" ] ||
        [ -x "build/pythons/debian/usr/bin/python$version" ] || wanting+=("$version")
done
if [ ${#wanting[@]} -gt 0 ]; then
    echo "Fetching Python ${wanting[*]} of Debian unstable into build/pythons"
    scripts/pythons/debian.sh "${wanting[@]}"
fi

make test-engine || exit 1
failed=0
table=()
for version in "$@"; do
    if ! choose_python "$version"; then
        table+=("$version|not found|")
        continue
    fi
    echo
    echo "== Python $version: ${run[*]}"
    log=build/logs/test-$version.log
    "${run[@]}" VENV=".venv-$version" 2>&1 | tee "$log"
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
