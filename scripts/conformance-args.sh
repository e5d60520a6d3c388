#!/bin/bash
# usage: conformance-args.sh PYTHON
# Prints the arguments that make pytest leave out CPython's own asyncio tests where PYTHON has none.
set -eu
if "$1" -c 'import test.test_asyncio' 2>/dev/null; then exit; fi
version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
{
    echo
    echo "NOTE: this Python comes without its own tests, so CPython's asyncio tests are not run."
    echo "      To run them: apt-get install libpython$version-testsuite (Debian, Ubuntu),"
    echo "      dnf install python3-test (Fedora), or another build of Python."
    echo
} >&2
echo "--ignore=tests/conformance"
