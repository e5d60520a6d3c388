"""The table: medians, and ratios taken round by round.

Of a result that is on disk: `python benchmarks/table.py result.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from statistics import median
from typing import Any

# A result: the numbers of each round, by workload, loop and metric.
Samples = dict[str, dict[str, dict[str, list[float]]]]

# What the others are compared with.
BASELINES = ("asyncio", "uvloop")

# oxloop's other loop, which is compared with oxloop's first.
PROACTOR = "oxloop-proactor"

# What a row shows and compares; less is better in each.
METRICS = ("cpu_us", "rss_kib", "late_us")
UNITS = {"cpu_us": "us", "rss_kib": "KiB", "late_us": "us late"}


def metric(row: dict[str, dict[str, list[float]]]) -> str | None:
    """Return the metric that a workload's loops were measured in, None if none of them was."""
    for name in METRICS:
        if any(name in measured for measured in row.values()):
            return name
    return None


def ratio(
    row: dict[str, dict[str, list[float]]], name: str, loop: str, against: str
) -> float | None:
    """Return the median over the rounds of `against` divided by `loop`, both of one round.

    Rounds are minutes apart and machines drift; the loops of a round are seconds apart.
    """
    ours, theirs = row.get(loop, {}).get(name), row.get(against, {}).get(name)
    if not ours or not theirs:
        return None
    pairs = list(zip(theirs, ours))
    if min(min(pair) for pair in pairs) <= 0:
        return None
    return median(b / a for b, a in pairs)


def better(row: dict[str, dict[str, list[float]]], loop: str, against: str) -> float | None:
    """Return how many times less a loop needs than another, None where that means nothing."""
    name = metric(row)
    if name is None or name == "late_us":
        return None
    return ratio(row, name, loop, against)


def cell(row: dict[str, dict[str, list[float]]], loop: str, name: str | None) -> str:
    values = row.get(loop, {}).get(name or "")
    if not values:
        return "-"
    value = median(values)
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _faster(row: dict[str, dict[str, list[float]]], loop: str, against: str) -> float | None:
    inverse = ratio(row, "rate", loop, against)
    return None if inverse is None else 1 / inverse


def _geometric_mean(values: list[float | None]) -> float | None:
    logs = [math.log(value) for value in values if value is not None]
    return math.exp(sum(logs) / len(logs)) if logs else None


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the table's cells, its head first and the geometric means last.

    Compared is oxloop, or the last of the loops where it is not among them; its proactor, if it was
    measured, too, with its selector loop.
    """
    samples: Samples = result["samples"]
    names = list(result["loops"])
    loop = "oxloop" if "oxloop" in names else names[-1]
    baselines = [name for name in names if name in BASELINES and name != loop]
    head = ["workload", "unit", *names]
    head += [f"CPU vs {against}" for against in baselines]
    head += [f"rate vs {against}" for against in baselines]
    both = PROACTOR in names and "oxloop" in names
    head += ["proactor's CPU vs selector"] if both else []
    cells = [head]
    for workload, row in samples.items():
        name = metric(row)
        line = [workload, UNITS.get(name or "", "-"), *(cell(row, each, name) for each in names)]
        line += [_times(better(row, loop, against)) for against in baselines]
        line += [_times(_faster(row, loop, against)) for against in baselines]
        line += [_times(better(row, PROACTOR, "oxloop"))] if both else []
        cells.append(line)
    means = [
        _times(_geometric_mean([compare(row, loop, against) for row in samples.values()]))
        for compare in (better, _faster)
        for against in baselines
    ]
    if both:
        ratios = [better(row, PROACTOR, "oxloop") for row in samples.values()]
        means.append(_times(_geometric_mean(ratios)))
    cells.append(["geometric mean", "", *("" for _ in names), *means])
    return cells


def text(cells: list[list[str]]) -> str:
    """Return the cells as columns for a terminal."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = []
    for line in cells:
        first = line[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        lines.append("  ".join((first, *rest)))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def markdown(cells: list[list[str]]) -> str:
    """Return the cells as a table for a document."""
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    lines.insert(1, "|---|" + "--:|" * (len(cells[0]) - 1))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--no-rates", action="store_true", help="leave out what depends on others")
    arguments = parser.parse_args()
    cells = rows(json.loads(arguments.result.read_text(encoding="utf-8")))
    if arguments.no_rates:
        kept = [index for index, title in enumerate(cells[0]) if not title.startswith("rate")]
        cells = [[line[index] for index in kept] for line in cells]
    print(markdown(cells) if arguments.markdown else text(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
