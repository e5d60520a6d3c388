#!/bin/bash
# The extension under AddressSanitizer: the tests that come closest to memory, then a few minutes of soak.
#
# usage: PYTHON=.venv/bin/python MINUTES=2 scripts/sanitize.sh [PYTEST_ARG...]
#
# The interpreter needs pytest and trustme, and is not itself sanitized: the runtime is preloaded, and
# PYTHONMALLOC=malloc lets it see every object. What is reported by the allocator of the interpreter at
# exit is not of interest, so leaks are left to the soak's own counting.
set -eu
cd "$(dirname "$0")/.."

python=$(command -v "${PYTHON:-.venv/bin/python}")
target=$(rustc -vV | sed -n 's/^host: //p')
output=${CARGO_TARGET_DIR:-$PWD/target}/sanitize
archive=$(find "$(rustc --print sysroot)/lib/rustlib/$target/lib" -name 'librustc*_rt.asan.a' | head -n 1)
if [ -z "$archive" ]; then
    echo "this Rust toolchain has no AddressSanitizer for $target (rustup's toolchains do)" >&2
    exit 1
fi

echo "== Building with AddressSanitizer"
# --target keeps build scripts and procedural macros as they are.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes -Cdebuginfo=line-tables-only" \
    PYO3_BUILD_EXTENSION_MODULE=1 PYO3_PYTHON=$python CARGO_TARGET_DIR=$output \
    cargo build --quiet --locked --target "$target" --profile dev-release --package oxloop-python

# The runtime as a library: rustc links it into programs only, and one part of it is for these alone.
runtime=$output/libsanitizer.so # it looks for another one by the name libasan.so
shared=$output/libsanitizer.a
cp "$archive" "$shared"
ar d "$shared" "$(ar t "$archive" | grep asan_preinit)"
cc -shared -o "$runtime" -Wl,--whole-archive "$shared" -Wl,--no-whole-archive \
    -lpthread -ldl -lrt -lm -lresolv

package=$output/package
scripts/package.sh "$output/$target/dev-release/lib_native.so" "$package" \
    "$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')"

export PYTHONPATH=$package PYTHONMALLOC=malloc LD_PRELOAD=$runtime
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:detect_stack_use_after_return=1:abort_on_error=1}
# abort_on_error lets faulthandler print the Python stacks, too.

echo "== A fault, to see that it is found"
if "$python" -c "import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
block = libc.malloc(100)
libc.free(block)
ctypes.memset(block, 0, 100)" 2>/dev/null; then
    echo "a use of freed memory was not found: the sanitizer does not work here" >&2
    exit 1
fi

loops=(epoll)
if "$python" -c 'import sys; from oxloop import _native as n; sys.exit(n.proactor_unavailable() is not None)'; then
    loops+=(proactor)
fi

tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then
    tests=("${loops[@]/#/--backend=}" tests/test_arrivals.py tests/test_proactor.py tests/test_coroutine.py tests/test_robustness.py
        tests/test_stream_transport.py tests/test_datagram.py tests/test_pipes.py tests/test_sock.py
        tests/test_scheduling.py tests/test_sendfile.py tests/test_server.py tests/test_signals.py
        tests/test_threads.py tests/test_tls*.py tests/test_unix.py tests/test_watching.py
        tests/test_soak.py)
fi
echo "== Tests"
"$python" -X faulthandler -m pytest -q -p no:cacheprovider "${tests[@]}"
for loop in ${LOOP:-"${loops[@]}"}; do
    echo "== Soak on $loop"
    "$python" scripts/soak.py --faults-only --minutes "${MINUTES:-2}" --loop "$loop"
done
