#!/bin/bash
# usage: debian.sh VERSION...
# Makes a Debian unstable in build/pythons/debian, with these versions of Python and what builds and tests oxloop
# with them. For a Debian or Ubuntu machine, as root: `inside.sh` changes root into it.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=build/pythons/debian

[ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || {
    echo "fetching Python $* takes root and apt-get" >&2
    exit 1
}
command -v mmdebstrap >/dev/null || apt-get install -q -y --no-install-recommends mmdebstrap >/dev/null
packages=(ca-certificates gcc libc6-dev make)
for version in "$@"; do
    packages+=("python$version-venv" "libpython$version-dev" "libpython$version-testsuite")
done
mirror=$(scripts/pythons/mirror.sh)

rm -rf "$root.new"
mkdir -p build/pythons
# A mirror may be a snapshot that is past its date.
mmdebstrap --quiet --variant=essential --aptopt='Acquire::Check-Valid-Until "false"' \
    --include="$(IFS=,; echo "${packages[*]}")" sid "$root.new" "$mirror"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root.new/etc/hosts"
rm -rf "$root"
mv "$root.new" "$root"
