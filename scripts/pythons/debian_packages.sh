#!/bin/bash
# usage: [SUITE=sid] debian_packages.sh FOLDER PACKAGE...
# Unpacks packages of Debian unstable, or of another suite, in FOLDER, by an apt that has nothing to do with the system's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
shift
work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,packages}
cd "$work"
touch status
mirror=$("$here/mirror.sh")
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror ${SUITE:-sid} main" >sources.list
# A mirror may be a snapshot that is past its date.
cat >apt.conf <<END
Dir::State "$work"; Dir::State::status "$work/status"; Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list"; Dir::Etc::sourceparts "/nonexistent";
Acquire::Check-Valid-Until "false"; APT::Architecture "amd64"; APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
END
export APT_CONFIG=$work/apt.conf
apt-get -qq update
cd packages
apt-get -qq download "$@"
for package in *.deb; do
    dpkg -x "$package" "$target"
done
