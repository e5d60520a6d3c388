#!/bin/bash
# Tests the kqueue selector, and what goes with it on macOS and FreeBSD, over libkqueue on Linux.
#
# usage: scripts/test-kqueue.sh PYTHON [PYTEST ARGUMENT...]
#
# libkqueue is Debian's (experimental, unpacked below build/ and nowhere else); where there is no apt-get
# nothing is tested and the exit status is 1. A kernel that has kqueue is another thing: see
# crates/engine/src/selector/libkqueue.rs for what the library does otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
shift
root=$PWD/build/libkqueue
output=${CARGO_TARGET_DIR:-$PWD/target}/kqueue

if [ ! -e "$root/usr/lib" ]; then
    command -v apt-get >/dev/null || { echo "libkqueue is fetched by apt-get, which is not here" >&2; exit 1; }
    echo "Fetching libkqueue of Debian experimental into $root"
    SUITE=experimental scripts/pythons/debian_packages.sh "$root" libkqueue-dev libkqueue0t64
fi
libraries=$(dirname "$(find "$root/usr/lib" -name 'libkqueue.so.0')")
export LD_LIBRARY_PATH=$libraries RUSTFLAGS="--cfg oxloop_libkqueue -L $libraries" CARGO_TARGET_DIR=$output

echo "== The engine"
# Left out is what libkqueue cannot do: to forget a number that was closed or is a file's by now.
# It has a thread, which may get a signal that is sent to the process, and no two that begin with it at
# once: one test at a time.
cargo test --quiet --locked --package oxloop-engine --lib --test inbox --test timers -- --test-threads=1
cargo test --quiet --locked --package oxloop-engine --test selector -- --test-threads=1 \
    --skip descriptors_closed_later_never_make_waiting_fail \
    --skip numbers_reused_by_a_regular_file_can_be_deregistered

echo "== The loop: reading, writing, wake-ups, timers, signals, processes"
PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON=$(readlink -f "$(dirname "$python")")/$(basename "$python") \
    cargo build --quiet --locked --package oxloop-python
package=$output/package
scripts/package.sh "$output/debug/lib_native.so" "$package" \
    "$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')"
export PYTHONPATH=$package OXLOOP_LIBKQUEUE=1
"$python" -c 'from oxloop import _native; assert _native.selectors_available()[0] == "kqueue"'
if [ $# -eq 0 ]; then
    # What libkqueue and this Linux do not show: it takes a socket's error before the loop can see it;
    # it does not watch regular files, nor eventfds, nor processes; tests that are about pidfd.
    left_out="a_peer_that_resets or all_errors or connection_that_is_refused or the_connection_was_lost_by
        or start_serving_later or refuses_new_connections or read_error
        or regular_file or reused_by_a_file or eventfd
        or TestWatchers or waited or on_a_closed_loop or dropped_transport"
    set -- -k "not ($(echo $left_out))" tests/test_scheduling.py tests/test_threads.py tests/test_watching.py \
        tests/test_signals.py tests/test_subprocess.py tests/test_streams.py tests/test_stream_transport.py \
        tests/test_datagram.py tests/test_server.py tests/test_pipes.py
fi
"$python" -m pytest -q -p no:cacheprovider --backend best "$@"
