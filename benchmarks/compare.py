"""Compares two results of run.py: `python benchmarks/compare.py before.json after.json`.

The change of a loop is read against a baseline loop that is in both files, so that a machine that
was slower in one of the runs does not look like a regression.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from statistics import median
from typing import Any

import table

# A smaller change is noise on most machines: see README.md.
NOTICEABLE = 0.10


def _change(
    before: dict[str, Any], after: dict[str, Any], workload: str, loop: str, baseline: str | None
) -> float | None:
    """Return how many times less the loop needs after than before, None where it is unknown."""
    old, new = before["samples"].get(workload, {}), after["samples"].get(workload, {})
    name = table.metric(old)
    if name is None or name == "late_us" or not (old.get(loop) and new.get(loop)):
        return None
    if baseline is None:
        return float(median(old[loop][name]) / median(new[loop][name]))
    was, now = table.ratio(old, name, loop, baseline), table.ratio(new, name, loop, baseline)
    return None if was is None or now is None else now / was


def rows(
    before: dict[str, Any], after: dict[str, Any], loop: str, baseline: str | None
) -> list[list[str]]:
    """Return the table's cells, its head first."""
    cells = [["workload", "unit", "before", "after", "improvement", ""]]
    for workload, old in before["samples"].items():
        new = after["samples"].get(workload, {})
        change = _change(before, after, workload, loop, baseline)
        if change is None:
            continue
        name = table.metric(old)
        mark = "better" if change > 1 + NOTICEABLE else "WORSE" if change < 1 - NOTICEABLE else ""
        numbers = [table.cell(old, loop, name), table.cell(new, loop, name)]
        cells.append([workload, table.UNITS[name or ""], *numbers, f"{change:.2f}x", mark])
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=pathlib.Path)
    parser.add_argument("after", type=pathlib.Path)
    parser.add_argument("--loop", default="oxloop")
    parser.add_argument(
        "--against",
        default="asyncio",
        help="the loop that stands for the machine's speed; 'none' compares the bare numbers",
    )
    arguments = parser.parse_args()
    before = json.loads(arguments.before.read_text())
    after = json.loads(arguments.after.read_text())
    baseline = None if arguments.against == "none" else arguments.against
    cells = rows(before, after, arguments.loop, baseline)
    if len(cells) == 1:
        sys.exit(f"compare.py: nothing of {arguments.loop} is in both files")
    print(table.text(cells))
    return 1 if any(line[-1] == "WORSE" for line in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
