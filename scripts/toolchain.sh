#!/bin/bash
# usage: toolchain.sh TARGET [COMMAND [ARGUMENT...]]
# Runs a command (cargo, maturin) with a Rust toolchain that compiles for TARGET: the one in use if it has that target's
# standard library (`rustup target add`), else Debian's, which ships the library's source, and builds it. As root that
# one is installed if it is missing. Without a command this is all that is done.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=$1
shift

if sysroot=$(rustc --print sysroot 2>/dev/null) && [ -d "$sysroot/lib/rustlib/$target/lib" ]; then
    [ $# -eq 0 ] || exec "$@"
    exit
fi
if ! { [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library/std ]; }; then
    echo "There is no standard library for $target here (rustup target add $target): it takes Debian's Rust" >&2
    "$root/scripts/apt-get.sh" rustc-web cargo-web rust-web-src rust-web-clippy
fi
[ $# -ne 0 ] || exit 0
# All by the environment, as cargo-clippy and maturin start a cargo of their own. Debian's may be another version than
# the one in use, and has its own folders.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/debian
export CARGO_HOME=${CARGO_HOME:-$CARGO_TARGET_DIR/home}
export PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind
exec "$@"
