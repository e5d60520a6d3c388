#!/bin/bash
# Type-checks the engine and the extension for the systems that this machine is not, and lints them where clippy is there.
#
# usage: scripts/check-targets.sh [TARGET...]
#
# By the toolchain that toolchain.sh finds. Nothing is linked, so that neither an SDK nor a Python of the system is
# needed.
set -eu
cd "$(dirname "$0")/.."

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd x86_64-pc-windows-msvc)
fi
export PYO3_CROSS_PYTHON_VERSION=${PYO3_CROSS_PYTHON_VERSION:-3.13}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/check-targets
unset PYO3_PYTHON

for target in "${targets[@]}"; do
    echo "== $target"
    scripts/toolchain.sh "$target"
    command=(check)
    lint=()
    if scripts/toolchain.sh "$target" cargo clippy --version >/dev/null 2>&1; then
        command=(clippy)
        lint=(-- -D warnings)
    else
        echo "   (without clippy, which this toolchain has not)"
    fi
    scripts/toolchain.sh "$target" cargo "${command[@]}" --quiet --locked --target "$target" \
        --workspace --all-targets "${lint[@]}"
done
