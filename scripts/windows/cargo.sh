#!/bin/bash
# usage: cargo.sh COMMAND [ARGUMENT...]
# cargo for x86_64-pc-windows-gnu; what it runs, runs under Wine. The toolchain in use does it if it has that target's
# standard library (`rustup target add x86_64-pc-windows-gnu`); else Debian's, of /usr/bin, builds the library itself:
#     apt-get install --no-install-recommends rustc-web cargo-web rust-web-src
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=x86_64-pc-windows-gnu
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$here/wine.sh
command=$1
shift
if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    exec cargo "$command" --target "$target" "$@"
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/../../target}/windows
export CARGO_HOME=${CARGO_HOME:-$CARGO_TARGET_DIR/home}
export PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind
exec /usr/bin/cargo "$command" --target "$target" "$@"
