"""Measures loops on workloads: `python benchmarks/run.py --quick`.

Each measurement is a fresh process. Loops take turns within a round, so that a machine that gets
slower meanwhile does so for all of them, and the ratios of a round are taken within it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import loops
import machine
import measurement
import table
import workloads

if TYPE_CHECKING:
    from workloads.model import Workload


# Cores that others may use during a measurement before it is taken again.
TOLERATED = 0.1


class Progress:
    """One line on stderr: how far the run is, what it measures, how long it will take."""

    WIDTH = 28

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.started = time.monotonic()
        self.shown = sys.stderr.isatty()

    def show(self, what: str) -> None:
        """Draw the line again."""
        if not self.shown:
            return
        filled = self.WIDTH * self.done // self.total
        took = time.monotonic() - self.started
        left = took / self.done * (self.total - self.done) if self.done else 0
        bar = "#" * filled + "." * (self.WIDTH - filled)
        clock = f"{int(left) // 60}:{int(left) % 60:02}"
        line = f"[{bar}] {self.done}/{self.total} {clock} left  {what}"
        sys.stderr.write(f"\r\x1b[K{line[:119]}")
        sys.stderr.flush()

    def say(self, message: str) -> None:
        """Print a line that stays, above the bar."""
        sys.stderr.write(f"\r\x1b[K{message}\n" if self.shown else f"{message}\n")

    def end(self) -> None:
        """Take the line away."""
        if self.shown:
            sys.stderr.write("\r\x1b[K")


class Run:
    """All rounds of one run, and what came of them."""

    def __init__(
        self,
        names: list[str],
        chosen: list[Workload],
        plan: measurement.Plan,
        retakes: int,
    ) -> None:
        self.names = names
        self.chosen = chosen
        self.plan = plan
        self.retakes = retakes
        self.disturbances: list[float] = []
        self.samples: table.Samples = {
            workload.name: {name: {} for name in names} for workload in chosen
        }
        self.failures: dict[str, str] = {}

    def rounds(self, count: int) -> None:
        """Take every measurement `count` times."""
        progress = Progress(count * len(self.chosen) * len(self.names))
        for number in range(count):
            # Another loop goes first in each round.
            turn = number % len(self.names)
            order = self.names[turn:] + self.names[:turn]
            for workload in self.chosen:
                for name in order:
                    progress.show(f"{workload.name} {name}")
                    self._take(name, workload, progress)
                    progress.done += 1
        progress.end()

    def _take(self, name: str, workload: Workload, progress: Progress) -> None:
        key = f"{workload.name} {name}"
        if key in self.failures:
            return
        try:
            taken = self._undisturbed(name, workload)
        except measurement.UnsupportedError as error:
            self.failures[key] = f"unsupported: {error}"
        except (measurement.MeasurementError, OSError, ValueError) as error:
            self.failures[key] = f"{type(error).__name__}: {error}"
        else:
            for metric, value in taken.items():
                self.samples[workload.name][name].setdefault(metric, []).append(round(value, 4))
            return
        # A loop that failed once is not compared by its other rounds.
        self.samples[workload.name][name].clear()
        progress.say(f"{key}: {self.failures[key]}")

    def _undisturbed(self, name: str, workload: Workload) -> dict[str, float]:
        """Measure, again if others used the machine; return the least disturbed measurement."""
        least, best = float("inf"), {}
        for _ in range(1 + self.retakes):
            disturbance = machine.Disturbance()
            taken = measurement.take(name, workload, self.plan)
            share = disturbance.share()
            if share < least:
                least, best = share, taken
            if share < TOLERATED:
                break
        self.disturbances.append(least)
        return best

    def result(self) -> dict[str, Any]:
        """Return what --json writes."""
        native = self.plan.generator[0] != sys.executable
        return {
            "machine": machine.description(),
            "loops": {name: loops.version(name) for name in self.names},
            "load_generator": "native" if native else "python",
            "seconds": self.plan.seconds,
            "disturbance": round(median(self.disturbances), 3) if self.disturbances else 0.0,
            "groups": {workload.name: workload.group for workload in self.chosen},
            "samples": self.samples,
            "failures": self.failures,
        }


def _written(result: dict[str, Any]) -> str:
    """Return the result as JSON with a workload on a line: short, and diffs can be read."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(value)}"
        for key, value in result.items()
        if key != "samples"
    ]
    rows = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in result["samples"].items()]
    lines.append('"samples": {\n' + ",\n".join(rows) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--loops",
        default="",
        help="comma-separated; default: asyncio, uvloop "
        "and oxloop, as far as installed; oxloop:poll, rloop, ... on request",
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        help="part of a workload's or a group's name; may be given more than once",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument(
        "--retakes",
        type=int,
        default=2,
        help="how often a measurement is taken again that others disturbed",
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", type=pathlib.Path, help="write the result to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    parser.add_argument("--list", action="store_true", help="print the workloads and end")
    parser.add_argument(
        "--python-load",
        action="store_true",
        help="use load.py even where the native load generator is built",
    )
    return parser.parse_args()


def _loops(wanted: str) -> list[str]:
    if not wanted:
        return [name for name in loops.DEFAULT_LOOPS if loops.installed(name)]
    names = wanted.split(",")
    for name in names:
        if not loops.installed(name):
            sys.exit(f"run.py: {name} is not installed for {sys.executable}")
    return names


def _plan(arguments: argparse.Namespace) -> measurement.Plan:
    native = None if arguments.python_load else measurement.native_generator()
    fallback = (sys.executable, str(measurement.HERE / "load.py"))
    cores: list[int | None] = [None, None]
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        cores = sorted(os.sched_getaffinity(0))[:2]  # type: ignore[assignment]
    seconds = 0.2 if arguments.quick else arguments.seconds
    return measurement.Plan(
        seconds=seconds,
        warmup=0.1 if arguments.quick else 0.3,
        server_cpu=cores[0],
        load_cpu=cores[1],
        generator=(str(native),) if native else fallback,
    )


def _raise_file_limit() -> None:
    """Thousands of idle connections need as many descriptors, here and in the worker."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    arguments = _arguments()
    chosen = workloads.matching(arguments.filter)
    if arguments.list:
        print("\n".join(f"{workload.group:12} {workload.name}" for workload in chosen))
        return 0
    if not chosen:
        sys.exit("run.py: no workload matches")
    names = _loops(arguments.loops)
    plan = _plan(arguments)
    if plan.generator[0] == sys.executable:
        print(
            "The native load generator is not built, load.py takes its place: rates of servers "
            "are its limit.",
            file=sys.stderr,
        )
    _raise_file_limit()
    if arguments.json:
        # Now, rather than fail after many minutes.
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    run = Run(names, chosen, plan, arguments.retakes)
    run.rounds(1 if arguments.quick else arguments.rounds)
    result = run.result()
    if arguments.json:
        arguments.json.write_text(_written(result), encoding="utf-8")
    if result["disturbance"] > TOLERATED:
        print(
            f"Others used {result['disturbance']:.2f} cores meanwhile: be sure of nothing here.",
            file=sys.stderr,
        )
    cells = table.rows(result)
    print(table.markdown(cells) if arguments.markdown else table.text(cells))
    failed = [text for text in run.failures.values() if not text.startswith("unsupported")]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
