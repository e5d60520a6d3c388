#!/bin/bash
# usage: apt-get.sh PACKAGE...
# Installs packages of Debian; as another than root, or elsewhere, it says that they are missing and fails.
set -eu
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "missing: $*; to get them, as root on Debian or Ubuntu: apt-get install --no-install-recommends $*" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q -o=Dpkg::Use-Pty=0 >/dev/null
apt-get install -q -y --no-install-recommends -o=Dpkg::Use-Pty=0 "$@" >/dev/null
