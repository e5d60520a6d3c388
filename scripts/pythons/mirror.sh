#!/bin/bash
# Prints the address of this machine's mirror of Debian.
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)
[ -n "$mirror" ] ||
    mirror=$(sed -n 's/^deb \(\[.*\] \)\?\([a-z]*:[^ ]*\) .*/\2/p' /etc/apt/sources.list | head -n 1)
echo "$mirror"
