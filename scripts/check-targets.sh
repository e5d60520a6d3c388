#!/bin/bash
# Type-checks the engine for the systems that this machine is not, and lints it for them where clippy is there.
#
# usage: scripts/check-targets.sh [TARGET...]
#
# The toolchain in use checks a target whose standard library it has (`rustup target add`). For the
# others any toolchain that ships std's source builds std itself: Debian's, which is looked for in
# /usr/bin, comes with
#     apt-get install --no-install-recommends rustc-web cargo-web rust-web-src rust-web-clippy
# Nothing is linked, so that no SDK is needed.
set -eu
cd "$(dirname "$0")/.."

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(x86_64-apple-darwin aarch64-apple-darwin x86_64-unknown-freebsd)
fi
output=${CARGO_TARGET_DIR:-$PWD/target}

check_with_own_std() {
    # By the environment, as cargo-clippy starts a second cargo.
    PATH=/usr/bin:/bin RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std,panic_unwind \
        CARGO_TARGET_DIR=$output/check-targets \
        CARGO_HOME=${CARGO_HOME:-$output/check-targets/home} \
        /usr/bin/cargo "$@"
}

for target in "${targets[@]}"; do
    echo "== $target"
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
        cargo clippy --target "$target" -p oxloop-engine --all-targets -- -D warnings
    elif [ -x /usr/bin/cargo ] && [ -d /usr/src ] && /usr/bin/cargo --version >/dev/null; then
        if [ -x /usr/bin/cargo-clippy ]; then
            check_with_own_std clippy --target "$target" -p oxloop-engine --all-targets -- -D warnings
        else
            check_with_own_std check --target "$target" -p oxloop-engine --all-targets
        fi
    else
        echo "no standard library for $target: see the head of $0" >&2
        exit 1
    fi
done
