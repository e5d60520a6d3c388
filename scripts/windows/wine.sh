#!/bin/bash
# usage: wine.sh PROGRAM.exe [ARGUMENT...]
# Runs a program for Windows, LIMIT seconds at most (600 if it is not set). Python for Windows takes no file for its
# output, so it is a pipe.
set -uo pipefail
prefix=$(cd "$(dirname "$0")/../.." && pwd)/build/windows/prefix
export WINEPREFIX=${WINEPREFIX:-$prefix} WINEDEBUG=${WINEDEBUG:--all} PYTHONDONTWRITEBYTECODE=1
timeout --signal KILL "${LIMIT:-600}" wine "$@" </dev/null 2>&1 | tr -d '\r'
