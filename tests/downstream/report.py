"""What came of it, as tables; and whose fault it is."""

from __future__ import annotations

import collections
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List

from .libraries import LOOPS

Result = Dict[str, Any]


@dataclass
class Row:
    """One library: the results of its checks on each loop, or the reason why there are none."""

    library: str
    version: str
    reason: str = ""
    results: Dict[str, List[Result]] = field(default_factory=dict)

    def counts(self, loop: str) -> List[str]:
        """How many of its checks are well on a loop, and how many are not."""
        results = self.results.get(loop)
        if results is None:
            return ["", ""]
        bad = sum(bool(self.fault(loop, result)) for result in results)
        return [str(len(results) - bad), str(bad)]

    def fault(self, loop: str, result: Result) -> str:
        """What is wrong with a result, '' if nothing is.

        What it leaves behind is wrong only where the same check on asyncio leaves less.
        """
        if result["error"]:
            return str(result["error"])
        left: collections.Counter[str] = collections.Counter(result["left"])
        left -= collections.Counter(self._reference(result["check"]).get("left", []))
        return "".join(f"left behind, {text}\n" for text in left.elements())

    def _reference(self, check: str) -> Result:
        found = (it for it in self.results.get(LOOPS[0], []) if it["check"] == check)
        return next(found, {})

    def ours(self) -> List[Result]:
        """The results on other loops than asyncio's that are wrong there alone."""
        return [
            result
            for loop, results in self.results.items()
            if loop != LOOPS[0]
            for result in results
            if self.fault(loop, result) and not self._reference(result["check"]).get("error")
        ]

    def as_json(self) -> Dict[str, Any]:
        """What is kept of it."""
        return {
            "library": self.library,
            "version": self.version,
            "reason": self.reason,
            "results": self.results,
        }


def _loops(rows: List[Row]) -> List[str]:
    """The loops that have run, in their order."""
    return list(dict.fromkeys(loop for row in rows for loop in row.results)) or list(LOOPS)


def _cells(row: Row, loops: List[str]) -> List[str]:
    count = str(max((len(results) for results in row.results.values()), default=0))
    counts = [cell for loop in loops for cell in row.counts(loop)]
    return [row.library, row.version, count, *counts]


def table(rows: List[Row]) -> str:
    """For the terminal."""
    loops = _loops(rows)
    lines = [f"{'':<16}{'':<10}{'':>7}" + "".join(f"{loop:>16}" for loop in loops)]
    titles = "".join(f"{'ok':>8}{'failed':>8}" for _ in loops)
    lines.append(f"{'library':<16}{'version':<10}{'checks':>7}{titles}")
    for row in rows:
        name, version, count, *counts = _cells(row, loops)
        text = f"{count:>7}" + "".join(f"{number:>8}" for number in counts)
        if row.reason:
            text = f"   {row.reason}"
        lines.append(f"{name:<16}{version:<10}{text}")
    return "\n".join(lines)


def markdown(rows: List[Row]) -> str:
    """For docs/compatibility.md."""
    system = f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}"
    loops = _loops(rows)
    titles = ["library", "version", "checks"]
    titles += [title for loop in loops for title in (f"{loop}: ok", "failed")]
    lines = [f"| {' | '.join(titles)} |", "|---|---|" + "--:|" * (len(titles) - 2)]
    for row in rows:
        cells = [row.library, row.reason] if row.reason else _cells(row, loops)
        cells += [""] * (len(titles) - len(cells))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"CPython {platform.python_version()}, {system}.", ""])


BEGIN = "<!-- written by: make downstream DOWNSTREAM_ARGS=--docs -->\n"
END = "<!-- end of what is written -->\n"


def put_into(page: Path, rows: List[Row]) -> None:
    """Replace the table of a page by this one."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table")
    page.write_text(f"{before}{begin}\n{markdown(rows)}\n{end}{after}", encoding="utf-8")


def faults(rows: List[Row]) -> List[str]:
    """What went wrong: ours last, where it is seen; before it what is asyncio's, too, or alone."""
    ours, others = [], []
    for row in rows:
        mine = row.ours()
        for loop, results in row.results.items():
            for result in results:
                fault = row.fault(loop, result)
                where = f"{row.library}: {result['check']} on {loop}"
                if fault and any(result is it for it in mine):
                    ours.append(f"\nOURS ALONE {where}\n{fault.rstrip()}")
                elif fault:
                    others.append(f"asyncio's: {where}: {fault.strip().splitlines()[-1]}")
    return others + ours
