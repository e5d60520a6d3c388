#!/bin/bash
# usage: forward.sh LIBRARY.dll TARGET.dll
# Makes a TARGET that has everything LIBRARY exports, by forwarding: the python3.dll beside python313.dll, by which
# wheels of the stable ABI ("abi3") find it.
set -euo pipefail
name=$(basename "$1" .dll)
definition=$(mktemp --suffix=.def)
trap 'rm -f "$definition"' EXIT
{
    echo "LIBRARY $(basename "$2")"
    echo EXPORTS
    x86_64-w64-mingw32-objdump -p "$1" |
        sed -n '/^\[Ordinal\/Name Pointer\] Table/,/^$/s/^\t\[ *[0-9]*\] \(.*\)/\1/p' |
        sed "s/.*/& = $name.&/"
} >"$definition"
x86_64-w64-mingw32-gcc -shared -nostdlib -Wl,--entry=0 -o "$2" "$definition"
