"""What is known not to pass on Windows: `tests/windows.txt`, each line with its reason.

A line is `pattern [conditions] reason`. The pattern names tests as pytest does, without the folder
(`test_pipes.py::TestReadPipe::test_repr`), with `*` for anything and `?` for a character; one without parameters is for all of
them. The conditions, if any, are backends of which one has to be that of the test, and versions of Python
(`<3.14`, `>=3.14`) that have to hold. A reason starts with whose it is:

Windows:  the system does otherwise
Wine:     the test meets a limit of Wine, and is not expected to fail on Windows itself
asyncio:  asyncio itself does otherwise, or cannot do it, on Windows
ours:     oxloop does otherwise there

Such a test has to fail. After `hangs, ` or `varies, ` before it, it is not run.
"""

from __future__ import annotations

import pathlib
import re
import sys
from dataclasses import dataclass
from typing import List, Optional

from support.platforms import WINE

PATH = pathlib.Path(__file__).parents[1] / "windows.txt"

_LINE = re.compile(
    r"(?P<pattern>\S+?\.py::\S+|\S+\.py)(?:\s+\[(?P<conditions>[^]]+)\])?"
    r"\s+(?P<reason>(?P<not_run>hangs, |varies, )?(?P<whose>Wine|Windows|asyncio|ours): .+)"
)


@dataclass(frozen=True)
class Expectation:
    """One line."""

    pattern: str
    conditions: str
    reason: str
    is_run: bool

    def covers(self, name: str, backend: Optional[str]) -> bool:
        """Whether it is for the test called `name`, on that backend if it has one."""
        backends = [it for it in self.conditions.split(",") if it and it[0] not in "<>"]
        if backends and backend not in backends:
            return False
        form = re.escape(self.pattern).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(rf"{form}(\[.*\])?", name) is not None


def read() -> List[Expectation]:
    """The lines that hold on this Windows and this version of Python."""
    found = []
    for number, line in enumerate(PATH.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ValueError(f"{PATH.name}:{number}: not `pattern [conditions] reason`: {text}")
        conditions = (match["conditions"] or "").replace(" ", "")
        if _is_for(conditions) and (WINE or match["whose"] != "Wine"):
            is_run = match["not_run"] is None
            found.append(Expectation(match["pattern"], conditions, match["reason"], is_run))
    return found


def _is_for(conditions: str) -> bool:
    for sign, version in re.findall(r"(<|>=)3\.(\d+)", conditions):
        if (sys.version_info < (3, int(version))) is not (sign == "<"):
            return False
    return True
