#!/bin/bash
# usage: test-module.sh BACKEND MODULE
# Runs one module of CPython's own tests of asyncio on oxloop and the CPython for Windows 3.13. A line says how it
# ended; the output is in LOGS.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
backend=$1 module=$2
log=$LOGS/conformance-$backend-$module.log
started=$SECONDS
LIMIT=${LIMIT:-900} "$here/wine.sh" build/windows/3.13/python.exe -m tests.conformance --backend "$backend" \
    --workers 1 "$module" >"$log"
status=$?
printf '%-30s %4d s  %s\n' "$module" $((SECONDS - started)) "$(grep '^CPython ' "$log" || tail -n 1 "$log")"
[ $status -eq 0 ] || echo "$backend $module: $log" >>"$LOGS/conformance-$backend.failed"
