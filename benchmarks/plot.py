"""Draws a result of run.py: `python benchmarks/plot.py result.json result.svg`.

Bars are what a loop needs per operation, each workload scaled to its most expensive loop, so a
shorter bar is better and the numbers at their ends have the unit.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from html import escape
from statistics import median
from typing import Any

import table

# Pixels.
WIDTH = 860
LABEL = 250  # where bars begin
BAR = 480  # the longest bar
THICK = 11
GAP = 2  # between the bars of a workload
SPACE = 10  # between workloads
HEADING = 34
TOP = 84

COLOURS = {"asyncio": "#b8bfc8", "uvloop": "#6c93c4", "oxloop": "#d9622b"}
OTHERS = ("#7ba05b", "#8f6fb0", "#c9a227", "#4f9d9d")

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 }
.note { font-size: 11.5px; fill: #636c76 }
.group { font-size: 13px; font-weight: 600 }
.value { font-size: 10px; fill: #57606a }
"""


class Drawing:
    """An SVG that grows downwards."""

    def __init__(self, loops: list[str]) -> None:
        self.loops = loops
        others = iter(OTHERS * len(loops))
        self.colours = {loop: COLOURS.get(loop) or next(others) for loop in loops}
        self.parts: list[str] = []
        self.y = TOP

    def text(self, x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> None:
        """Write a text whose baseline is at y."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">'
            f"{escape(content)}</text>"
        )

    def bar(self, x: float, y: float, width: float, loop: str) -> None:
        """Draw a bar in the loop's colour."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{max(width, 1):.1f}" height="{THICK}" rx="1.5" '
            f'fill="{self.colours[loop]}"/>'
        )

    def legend(self) -> None:
        """Say which colour is which loop."""
        x = float(LABEL)
        for loop in self.loops:
            self.bar(x, 60, 18, loop)
            self.text(x + 24, 70, loop)
            x += 46 + 8 * len(loop)

    def heading(self, group: str) -> None:
        """Begin a group of workloads."""
        self.y += HEADING
        self.text(16, self.y - 12, group, "group")
        self.parts.append(
            f'<line x1="16" x2="{WIDTH - 16}" y1="{self.y - 5}" y2="{self.y - 5}" '
            'stroke="#d0d7de"/>'
        )

    def workload(self, title: str, values: dict[str, tuple[float, str]]) -> None:
        """Draw the bars of a workload: for each loop its value and how that is written."""
        top = self.y
        height = len(self.loops) * (THICK + GAP)
        self.text(LABEL - 12, top + height / 2 + 3, title, anchor="end")
        largest = max(value for value, _ in values.values())
        for loop in self.loops:
            if loop in values:
                value, label = values[loop]
                width = BAR * value / largest
                self.bar(LABEL, self.y, width, loop)
                self.text(LABEL + width + 6, self.y + THICK - 2, label, "value")
            else:
                self.text(LABEL + 2, self.y + THICK - 2, f"{loop}: not supported", "value")
            self.y += THICK + GAP
        self.y += SPACE

    def document(self) -> str:
        """Return the whole SVG."""
        height = self.y + 12
        return "\n".join(
            (
                (
                    f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
                    f'viewBox="0 0 {WIDTH} {height}" role="img">'
                ),
                f"<style>{STYLE}</style>",
                f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
                *self.parts,
                "</svg>\n",
            )
        )


def _values(row: dict[str, dict[str, list[float]]]) -> dict[str, tuple[float, str]]:
    name = table.metric(row)
    if name is None or name == "late_us":
        return {}
    unit = "µs" if name == "cpu_us" else table.UNITS[name]
    return {
        loop: (median(measured[name]), f"{table.cell(row, loop, name)} {unit}")
        for loop, measured in row.items()
        if measured.get(name)
    }


def draw(result: dict[str, Any]) -> str:
    """Return the SVG of a result."""
    drawing = Drawing(list(result["loops"]))
    machine, versions = result["machine"], result["loops"]
    drawing.text(16, 26, "CPU per operation: shorter is better", "title")
    named = [f"{loop} {versions[loop]}" for loop in versions if loop != "asyncio"]
    about = [f"CPython {machine['python']}", *named, machine["system"], machine["cpu"]]
    drawing.text(16, 44, " · ".join(about), "note")
    drawing.legend()
    group = ""
    for workload, row in result["samples"].items():
        values = _values(row)
        if not values:
            continue
        if result["groups"][workload] != group:
            group = result["groups"][workload]
            drawing.heading(group)
        drawing.workload(workload, values)
    return drawing.document()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("svg", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.svg.write_text(draw(json.loads(arguments.result.read_text())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
