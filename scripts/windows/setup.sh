#!/bin/bash
# usage: setup.sh
# Gets what building for Windows and running there takes: mingw, Wine and a Rust with that target, by apt-get where
# that can be done, and a Wine prefix in build/windows/prefix.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

packages=()
command -v wine >/dev/null || packages+=(wine wine64)
command -v x86_64-w64-mingw32-gcc >/dev/null || packages+=(gcc-mingw-w64-x86-64-win32)
[ ${#packages[@]} -eq 0 ] || scripts/apt-get.sh "${packages[@]}"
scripts/toolchain.sh x86_64-pc-windows-gnu

prefix=${WINEPREFIX:-$PWD/build/windows/prefix}
[ ! -e "$prefix/.made" ] || exit 0
echo "Making a Wine prefix in $prefix"
mkdir -p "$(dirname "$prefix")"
WINEPREFIX=$prefix WINEDEBUG=-all timeout --signal KILL 300 wineboot --init </dev/null 2>&1 | tr -d '\r' >/dev/null
x86_64-w64-mingw32-gcc -shared -O2 -o "$prefix/drive_c/windows/system32/bcryptprimitives.dll" \
    "$here/bcryptprimitives.c" -ladvapi32
# In a new prefix the first program that starts another one may be told of an internal error (1359).
WINEPREFIX=$prefix WINEDEBUG=-all timeout --signal KILL 60 wine cmd /c "cmd /c exit" </dev/null >/dev/null 2>&1 || true
touch "$prefix/.made"
