#!/bin/bash
# usage: python.sh VERSION
# Puts a CPython for Windows together in build/windows/VERSION (3.13, or 3.14t for the free-threaded one), for Wine:
# its library and extension modules from a wheel that brings them along, the standard library with CPython's own tests
# from Debian unstable, and what oxloop's tests need. It takes pip, mingw and apt-get.
set -euo pipefail
version=$1
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
PYTHON=${PYTHON:-python3}
target=$PWD/build/windows/$version
parts=$target.parts
plain=${version%t}
tag=${version//./}

[ ! -e "$target/.made" ] || exit 0
rm -rf "$target" "$parts"
mkdir -p "$target/Lib/site-packages" "$parts"

for_windows=("$PYTHON" -m pip download -q --only-binary=:all: --platform win_amd64 --implementation cp
    --python-version "$plain" --abi "cp$tag" --abi abi3 --abi none)
"${for_windows[@]}" --no-deps --dest "$parts/python" panda3d==1.10.16
"$PYTHON" "$here/unpack_python.py" "$parts"/python/*.whl "$target" ${version#"$plain"}

library=$("$here/../pythons/library.sh" "$plain" "$parts/library")
tar -C "$library" -c --exclude=sitecustomize.py --exclude=lib-dynload --exclude=site-packages \
    --exclude='config-*' --exclude=__pycache__ --exclude=EXTERNALLY-MANAGED . | tar -C "$target/Lib" -x

x86_64-w64-mingw32-gcc -O2 -municode "-DPYTHON_DLL=\"python$tag.dll\"" -o "$target/python.exe" "$here/python.c"
[ "$version" != "$plain" ] || "$here/forward.sh" "$target/python$tag.dll" "$target/python3.dll"

# mypy, which the tests of the stubs need, is for Linux to run.
grep -v '^mypy' tests/requirements.txt >"$parts/requirements.txt"
"${for_windows[@]}" --dest "$parts/wheels" --requirement "$parts/requirements.txt" colorama
for wheel in "$parts"/wheels/*.whl; do
    "$PYTHON" -m zipfile --extract "$wheel" "$target/Lib/site-packages"
done
rm -rf "$parts"
touch "$target/.made"
