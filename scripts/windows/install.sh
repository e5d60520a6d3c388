#!/bin/bash
# usage: install.sh VERSION
# Builds oxloop for the CPython for Windows in build/windows/VERSION, and installs it there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
version=$1
target=build/windows/$version/Lib/site-packages
messages=$target/oxloop.json
PYO3_CROSS_PYTHON_VERSION=$version "$here/cargo.sh" build --locked --package oxloop-python \
    --profile "${MATURIN_PROFILE:-release}" --message-format json-render-diagnostics >"$messages"
built=$(sed -n 's/.*"filenames":\["\([^"]*_native\.dll\)".*/\1/p' "$messages" | tail -n 1)
rm "$messages"
"$here/../package.sh" "$built" "$target" ".cp${version//./}-win_amd64.pyd"
