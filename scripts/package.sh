#!/bin/bash
# usage: package.sh LIBRARY FOLDER SUFFIX
# Puts the package together in FOLDER/oxloop out of its Python sources and LIBRARY, the extension that cargo has built,
# whose name is to end with SUFFIX: sysconfig's EXT_SUFFIX.
set -euo pipefail
library=$(realpath "$1")
package=$(realpath -m "$2")/oxloop
cd "$(dirname "$0")/.."
rm -rf "$package"
mkdir -p "$(dirname "$package")"
cp -r python/oxloop "$package"
rm -f "$package"/_native*.{so,pyd}
cp "$library" "$package/_native$3"
