#!/bin/bash
# Says what oxloop's build lacks on this machine and how to get it; exits with 1 if it lacks anything.
set -u
cd "$(dirname "$0")/.." || exit 1

PYTHON=${PYTHON:-python3}
missing=()

# How the system's package manager installs the package that is called $1 by apt, $2 by dnf, $3 by apk.
packages() {
    if command -v apt-get >/dev/null; then echo "apt-get install $1"
    elif command -v dnf >/dev/null; then echo "dnf install $2"
    elif command -v apk >/dev/null; then echo "apk add $3"
    elif [ "$(uname 2>/dev/null)" = Darwin ]; then echo "xcode-select --install, https://python.org"
    else echo "install it with your system's package manager"
    fi
}

need() { missing+=("$1
      to get it: $2"); }

version_at_least() { # VERSION MINIMUM
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

if ! version=$("$PYTHON" -c 'import platform; print(platform.python_version())' 2>/dev/null); then
    need "Python 3.9 or later ('$PYTHON' cannot be run)" \
        "$(packages 'python3 python3-venv' python3 python3), or: make PYTHON=/path/to/python"
elif ! version_at_least "$version" 3.9; then
    need "Python 3.9 or later ('$PYTHON' is $version)" "make PYTHON=/path/to/a/newer/python"
elif [ "$("$PYTHON" -c 'import sys; print(sys.implementation.name)')" != cpython ]; then
    need "CPython ('$PYTHON' is another Python)" "make PYTHON=/path/to/cpython"
elif ! "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then
    need "Python's modules venv and ensurepip (for '$PYTHON')" \
        "$(packages "python${version%.*}-venv" python3 python3)"
fi

rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rustup="https://rustup.rs (curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh)"
for tool in cargo rustc; do
    if ! version=$("$tool" --version 2>/dev/null | cut -d ' ' -f 2) || [ -z "$version" ]; then
        need "$tool, Rust's toolchain, $rust_minimum or later" "$rustup"
        break
    elif ! version_at_least "$version" "$rust_minimum"; then
        need "$tool $rust_minimum or later (this is $version)" "rustup update, or $rustup"
        break
    fi
done

compiler=${CC:-}
for candidate in cc gcc clang; do
    if [ -z "$compiler" ] && command -v "$candidate" >/dev/null; then compiler=$candidate; fi
done
if [ -z "$compiler" ] || ! command -v "${compiler%% *}" >/dev/null; then
    need "a C compiler (Rust links with it)" \
        "$(packages 'gcc libc6-dev' gcc 'gcc musl-dev')"
fi

if [ ${#missing[@]} -gt 0 ]; then
    echo "oxloop cannot be built here yet. Missing:" >&2
    printf '    * %s\n' "${missing[@]}" >&2
    exit 1
fi
