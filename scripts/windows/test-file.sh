#!/bin/bash
# usage: test-file.sh VERSION FILE
# Runs one of oxloop's test files on the CPython for Windows of that version, on every loop of oxloop's (or those that
# BACKENDS names). A line says how it ended; the output is in LOGS.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
version=$1 file=$2
name=$(basename "$file" .py)
log=$LOGS/$version-$name.log
arguments=()
for backend in ${BACKENDS:-proactor selector select}; do arguments+=(--backend "$backend"); done
started=$SECONDS
LIMIT=${LIMIT:-600} "$here/wine.sh" "build/windows/$version/python.exe" -m pytest -p no:cacheprovider -q --tb=short \
    "$file" "${arguments[@]}" >"$log"
status=$?
printf '%-30s %4d s  %s\n' "$name" $((SECONDS - started)) "$(tail -n 1 "$log" | tr -d =)"
# Nothing is collected of what is about asyncio alone.
[ $status -eq 0 ] || [ $status -eq 5 ] || { echo "$version $name: $log" >>"$LOGS/$version.failed"; }
