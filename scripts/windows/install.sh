#!/bin/bash
# usage: install.sh VERSION
# Builds oxloop for the CPython for Windows in build/windows/VERSION, and installs it there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
version=$1
target=build/windows/$version/Lib/site-packages
messages=$target/oxloop.json

# PyO3 is built for one Python, and so is what uses it: each has a folder of its own. That begins as a copy of another
# one, since the rest, a standard library from its source among it, is the same for all.
builds=${CARGO_TARGET_DIR:-target}/windows
mkdir -p "$builds"
other=$(ls "$builds" | head -n 1)
if [ -n "$other" ] && [ ! -e "$builds/$version" ]; then
    rm -rf "$builds/.copy"
    cp -a "$builds/$other" "$builds/.copy"
    mv "$builds/.copy" "$builds/$version"
fi

PYO3_CROSS_PYTHON_VERSION=$version "$here/cargo.sh" build --locked --package oxloop-python \
    --target-dir "$builds/$version" \
    --profile "${MATURIN_PROFILE:-release}" --message-format json-render-diagnostics >"$messages"
built=$(sed -n 's/.*"filenames":\["\([^"]*_native\.dll\)".*/\1/p' "$messages" | tail -n 1)
rm "$messages"
"$here/../package.sh" "$built" "$target" ".cp${version//./}-win_amd64.pyd"
