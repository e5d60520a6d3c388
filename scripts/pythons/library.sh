#!/bin/bash
# usage: library.sh VERSION FOLDER
# Prints where the standard library of a CPython of that version is, with CPython's own tests: that of Debian unstable,
# whose packages are unpacked in FOLDER, so that it is the same on every machine. Only for a version that Debian has
# not, it is that of an interpreter of this machine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if "$here/debian_packages.sh" "$2" "libpython$1-stdlib" "libpython$1-minimal" "libpython$1-testsuite" 2>"$2.log"; then
    echo "$2/usr/lib/python$1"
    exit
fi
python=$("$here/find.sh" "$1")
[ -n "$python" ] || { cat "$2.log" >&2; exit 1; }
"$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'
