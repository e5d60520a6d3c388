"""The lists of tests that do not pass, each line with its reason.

A line of ``expectations/*.txt`` is ``pattern [versions] reason``: a pattern as of `fnmatch` over
names such as ``test_events.PollEventLoopTests.test_close`` (its module is always spelled out),
optionally the Python versions it is for (``[<3.12]``, ``[>=3.11.4,<3.13]``, ``[==3.9]``) and the
kind of system (``[unix]``, ``[windows]``, ``[wine]``), and why. ``#`` begins a comment line. The
file says what kind of reason it is. ``not_run.txt`` names what is left out altogether: modules,
classes and tests.
"""

from __future__ import annotations

import fnmatch
import operator
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(__file__).parent / "expectations"

#: Each kind of reason for which a test may fail on oxloop, and what it means.
KINDS = {
    "white_box": "tests asyncio's own private classes and attributes",
    "differs": "a difference on purpose, described in docs/compatibility.md",
}

#: Those of Wine, which stands in for Windows, fail on asyncio itself as well.
WINE = "wine"

#: And those that fail on asyncio alone.
WINE_ORACLE = "wine_asyncio"

NOT_RUN = "not_run"


_LINE = re.compile(r"(?P<pattern>\S+)(?:\s+\[(?P<versions>[^]]+)\])?\s+(?P<reason>.+)")
_CONDITION = re.compile(r"(<|<=|>|>=|==)(\d+(?:\.\d+){1,2})")
_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Expectation:
    """One line of one list."""

    kind: str
    pattern: str
    reason: str
    where: str

    @property
    def module(self) -> str:
        return self.pattern.split(".", 1)[0]

    def covers(self, name: str) -> bool:
        return fnmatch.fnmatchcase(name, self.pattern)


class BadExpectation(Exception):
    """A line that cannot be read, or that names no test of this Python version."""


def read(kind: str, version: tuple[int, ...] = sys.version_info[:3]) -> list[Expectation]:
    """The lines of ``expectations/<kind>.txt`` that are for `version`."""
    path = FOLDER / f"{kind}.txt"
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        where = f"{path.name}:{number}"
        match = _LINE.fullmatch(text)
        if match is None:
            raise BadExpectation(f"{where}: not `pattern [versions] reason`: {text}")
        if _is_for(match["versions"], version, where):
            found.append(Expectation(kind, match["pattern"], match["reason"], where))
    return found


def _is_for(versions: str | None, version: tuple[int, ...], where: str) -> bool:
    for condition in versions.split(",") if versions else ():
        if condition.strip() in SYSTEMS:
            if not SYSTEMS[condition.strip()]:
                return False
            continue
        match = _CONDITION.fullmatch(condition.strip())
        if match is None:
            raise BadExpectation(f"{where}: not a version range: [{versions}]")
        bound = tuple(map(int, match[2].split(".")))
        if not _COMPARE[match[1]](version[: len(bound)], bound):
            return False
    return True


def on_wine() -> bool:
    """Whether this is Wine's Windows."""
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


SYSTEMS = {"unix": os.name != "nt", "windows": os.name == "nt", "wine": on_wine()}


class Expectations:
    """The lists that apply to one backend on this Python version."""

    def __init__(self, backend: str) -> None:
        kinds = [] if backend == "asyncio" else list(KINDS)
        if on_wine():
            kinds += [WINE, WINE_ORACLE] if backend == "asyncio" else [WINE]
        self._lines = [line for kind in kinds for line in read(kind)]

    def check(self, names: Iterable[str], modules: Iterable[str]) -> list[str]:
        """What is wrong with the lists, given all the test names of `modules`."""
        names = list(names)
        loaded = set(modules)
        faults = [
            f"{line.where}: {line.pattern} names no test of this Python version"
            for line in self._lines
            if line.module in loaded and not any(map(line.covers, names))
        ]
        for name in names:
            covering = [line.where for line in self._lines if line.covers(name)]
            if len(covering) > 1:
                faults.append(f"{name} is listed more than once: {', '.join(covering)}")
        return faults

    def find(self, name: str) -> Expectation | None:
        """The line that covers the test `name`."""
        return next((line for line in self._lines if line.covers(name)), None)
