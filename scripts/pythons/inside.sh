#!/bin/bash
# usage: inside.sh command [argument ...]
# Runs a command inside the Debian that debian.sh has made, with this checkout at its own path, this machine's
# Rust toolchain and its certificates. As root; nothing of what is mounted outlives the command.
set -euo pipefail
cd "$(dirname "$0")/../.."
export ROOT=$PWD/build/pythons/debian CHECKOUT=$PWD
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}

exec unshare --mount --propagation private bash -c '
    set -e
    bind() { mkdir -p "$ROOT$1"; mount --rbind "$1" "$ROOT$1"; }
    for folder in /proc /dev /sys /etc/ssl/certs "$CARGO_HOME" "$RUSTUP_HOME" "$CHECKOUT"; do
        bind "$folder"
    done
    cp /etc/resolv.conf "$ROOT/etc/resolv.conf"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$ROOT/etc/pip.conf"
    # What is built inside needs the C library of inside.
    exec chroot "$ROOT" env -u LD_PRELOAD -u PIP_FIND_LINKS HOME=/root \
        PATH="$CARGO_HOME/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        CARGO_TARGET_DIR="$CHECKOUT/build/target-debian" \
        bash -c "cd \"\$CHECKOUT\" && exec \"\$@\"" bash "$@"
' bash "$@"
