#!/bin/bash
# usage: wine.sh PROGRAM.exe [ARGUMENT...]
# Runs a program for Windows, LIMIT seconds at most (600 if it is not set).
#
# Python for Windows takes no file for its output, so it is a pipe; one that a child left behind may still hold open,
# which is why the reader is not waited for.
set -uo pipefail
prefix=$(cd "$(dirname "$0")/../.." && pwd)/build/windows/prefix
export WINEPREFIX=${WINEPREFIX:-$prefix} WINEDEBUG=${WINEDEBUG:--all} PYTHONDONTWRITEBYTECODE=1
exec 3> >(sed --unbuffered 's/\r$//')
reader=$!
timeout --signal KILL "${LIMIT:-600}" wine "$@" </dev/null >&3 2>&1
status=$?
exec 3>&-
timeout 2 tail --pid="$reader" -f /dev/null
kill "$reader" 2>/dev/null
exit $status
