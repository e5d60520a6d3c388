#!/bin/bash
# usage: cargo.sh COMMAND [ARGUMENT...]
# cargo for x86_64-pc-windows-gnu; what it runs, runs under Wine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=x86_64-pc-windows-gnu
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$here/wine.sh
command=$1
shift
exec "$here/../toolchain.sh" $target cargo "$command" --target $target "$@"
