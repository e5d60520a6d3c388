#!/bin/bash
# usage: install.sh VERSION
# Builds oxloop for the CPython for Windows in build/windows/VERSION, and installs it there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
version=$1
target=build/windows/$version/Lib/site-packages/oxloop
PYO3_CROSS_PYTHON_VERSION=$version "$here/cargo.sh" build --locked --package oxloop-python \
    --profile "${MATURIN_PROFILE:-release}" --message-format json-render-diagnostics >"$target.json"
built=$(sed -n 's/.*"filenames":\["\([^"]*_native\.dll\)".*/\1/p' "$target.json" | tail -n 1)
rm -rf "$target" "$target.json"
cp -r python/oxloop "$target"
rm -f "$target"/*.so "$target"/*.pyd
cp "$built" "$target/_native.cp${version//./}-win_amd64.pyd"
