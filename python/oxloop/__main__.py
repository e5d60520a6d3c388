"""The command line: ``python -m oxloop`` runs an unchanged asyncio program on oxloop's loops."""

from __future__ import annotations

import sys

import oxloop
from oxloop import _info, _policy, _program

USAGE = """\
usage: python -m oxloop script.py [argument ...]
       python -m oxloop -m module [argument ...]
       python -m oxloop -c code [argument ...]
       python -m oxloop info
       python -m oxloop --version | --help

Run an asyncio program on oxloop's event loops, as python itself would run it.
"info" prints the version, the build and the backends that are available here.

environment:
  OXLOOP_LOOP  the loop that the program gets: selector or proactor, which is io_uring on
               Linux; the default is selector, on Windows proactor
"""


def main(argv: list[str]) -> None:
    """Run the command line *argv* (without the program's name)."""
    if not argv:
        _refuse("a script, -m module or info is missing")
    first, rest = argv[0], argv[1:]
    if first in ("-h", "--help"):
        print(USAGE, end="")
    elif first in ("-V", "--version"):
        print(f"oxloop {oxloop.__version__}")
    elif first == "info":
        print("\n".join(_info.lines()))
    else:
        _run(first, rest)


def _run(first: str, rest: list[str]) -> None:
    if first in ("-m", "-c") and not rest:
        _refuse(f"argument expected for the {first} option")
    if first.startswith("-") and first not in ("-m", "-c"):
        _refuse(f"unknown option {first}")
    try:
        _policy.default_loop_class()
    except ValueError as error:
        _refuse(str(error))
    oxloop.install()
    if first == "-m":
        _program.run_module(rest[0], rest[1:])
    elif first == "-c":
        _program.run_code(rest[0], rest[1:])
    else:
        _program.run_script(first, rest)


def _refuse(reason: str) -> None:
    print(f"oxloop: {reason}\n{USAGE}", end="", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
