#!/bin/bash
# Type-checks the engine and the extension for the systems that this machine is not, and lints them where clippy is there.
#
# usage: scripts/check-targets.sh [TARGET...]
#
# The toolchain in use checks a target whose standard library it has (`rustup target add`). For the
# others Debian's, which ships std's source, builds std itself; as root it is installed if it is
# missing. Nothing is linked, so that neither an SDK nor a Python of the system is needed.
set -eu
cd "$(dirname "$0")/.."

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd x86_64-pc-windows-msvc)
fi
output=${CARGO_TARGET_DIR:-$PWD/target}/check-targets
packages=(rustc-web cargo-web rust-web-src rust-web-clippy)
export PYO3_CROSS_PYTHON_VERSION=${PYO3_CROSS_PYTHON_VERSION:-3.13}
unset PYO3_PYTHON

has_own_std() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

# By the environment, as cargo-clippy starts a second cargo.
debian() {
    env PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind \
        CARGO_HOME="${CARGO_HOME:-$output/home}" "$@"
}

can_build_std() {
    [ -x /usr/bin/cargo ] && debian /usr/bin/cargo --version >/dev/null 2>&1 &&
        [ -d "$(debian /usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]
}

get_debian() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "Installing ${packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q -o=Dpkg::Use-Pty=0 >/dev/null
        apt-get install -q -y --no-install-recommends -o=Dpkg::Use-Pty=0 "${packages[@]}" >/dev/null
    fi
    can_build_std
}

for target in "${targets[@]}"; do
    echo "== $target"
    if has_own_std "$target"; then
        run=(env)
    elif can_build_std || get_debian; then
        run=(debian)
    else
        {
            echo "There is no standard library for $target here. To get it:"
            echo "    rustup target add $target"
            echo "or, on Debian 12 and later as root:"
            echo "    apt-get install --no-install-recommends ${packages[*]}"
        } >&2
        exit 1
    fi
    command=(check)
    lint=()
    if "${run[@]}" cargo clippy --version >/dev/null 2>&1; then
        command=(clippy)
        lint=(-- -D warnings)
    else
        echo "   (without clippy, which this toolchain has not)"
    fi
    CARGO_TARGET_DIR=$output "${run[@]}" cargo "${command[@]}" --quiet --locked --target "$target" \
        --workspace --all-targets "${lint[@]}"
done
