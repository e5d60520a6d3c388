#!/bin/bash
# usage: find.sh VERSION
# Prints the interpreter of that version (3.13, or 3.14t for the free-threaded one) that PATH or pyenv has; nothing if
# there is none.
set -u
cd "$(dirname "$0")/../.." || exit 1

identity='import sys, sysconfig; print("%d.%d" % sys.version_info[:2], end="")
print("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")'
for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1"*/bin/python; do
    # A pyenv shim exists for versions that are not chosen, too: run it.
    if [ "$("$candidate" -c "$identity" 2>/dev/null)" = "$1" ]; then
        "$candidate" -c 'import sys; print(sys.executable)'
        exit
    fi
done
