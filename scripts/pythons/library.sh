#!/bin/bash
# usage: library.sh VERSION FOLDER
# Prints where the standard library of a CPython of that version is, with CPython's own tests: that of an interpreter
# of this machine, or that of Debian unstable, whose packages are unpacked in FOLDER.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/find.sh" "$1")
if [ -n "$python" ] && "$python" -c 'import test.test_asyncio' 2>/dev/null; then
    "$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))'
    exit
fi
"$here/debian_packages.sh" "$2" "libpython$1-stdlib" "libpython$1-minimal" "libpython$1-testsuite"
echo "$2/usr/lib/python$1"
