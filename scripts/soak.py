"""Lifecycles of everything that a loop offers, with faults, for hours: `make soak`.

A seeded random generator chooses what happens: connections are reset and half closed, tasks
cancelled, callbacks and protocols raise, descriptors run out, peers stop reading, processes fork,
loops are left, closed and abandoned with things in flight. The lifecycles stand in tests/soak.

At intervals the process counts what it holds. Exits with 1 if anything was reported that should not
have been, was not reported that should have been, took too long, or if anything grew. The first
quarter of the samples is warm-up; of the rest, the median of the first third is compared with the
median of the last. Descriptors, sockets, threads and children may not grow at all; objects, blocks
and memory by the tolerance that is printed. When something has grown, each lifecycle runs alone to
show which it is.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING, Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

from soak.holdings import TOLERANCES, Holdings, growth, types_of_objects
from soak.lifecycle import LIFECYCLES
from soak.spree import Failure, Spree, prepared
from support.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = 240  # at most, however long it takes
LARGEST = 60  # lifecycles on one loop
ATTRIBUTION = 10.0  # seconds for each lifecycle
INTERNED = 50_000  # strings, more than the process has at any time
HANG = 120  # seconds on one loop, after which all stacks are dumped
SHOWN = 10  # failures that are printed in full


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--loop", choices=list(BACKENDS), default="epoll", help="default: epoll")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, printed")
    parser.add_argument(
        "--only", default="", help="these lifecycles alone, by name, separated by commas"
    )
    parser.add_argument(
        "--faults-only", action="store_true", help="memory may grow: the run is under a sanitizer"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no attribution")
    chosen = parser.parse_args()
    chosen.names = [name for name in chosen.only.split(",") if name] or list(LIFECYCLES)
    unknown = set(chosen.names) - set(LIFECYCLES)
    if unknown:
        parser.error(f"no such lifecycle: {', '.join(sorted(unknown))}; {', '.join(LIFECYCLES)}")
    if chosen.seed is None:
        chosen.seed = random.SystemRandom().randrange(1 << 32)
    return chosen


class Samples:
    """What was held when. In a file, since a list of them would itself be what grows."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def add(self, holdings: Holdings) -> None:
        """Append one."""
        self._file.write(json.dumps(holdings) + "\n")

    def all(self) -> list[Holdings]:
        """Read them all, in order."""
        self._file.seek(0)
        return [Holdings(*json.loads(line)) for line in self._file]


class Soak:
    """One run, its failures and its samples."""

    def __init__(self, chosen: argparse.Namespace, samples: Samples) -> None:
        self.minutes: float = chosen.minutes
        self.quiet: bool = chosen.quiet
        self.spree = Spree(BACKENDS[chosen.loop].new_loop, chosen.names, chosen.seed)
        self.samples = samples
        self.failures = 0
        self.types: dict[str, int] = {}

    def run(self) -> None:
        """Run for as long as is asked for."""
        start = time.monotonic()
        end = start + self.minutes * 60
        interval = max(self.minutes * 60 / SAMPLES, 1)
        sample_at = start
        typed = False
        while time.monotonic() < end:
            self.use_a_loop()
            now = time.monotonic()
            if now < sample_at:
                continue
            holdings = Holdings.take()
            sample_at = time.monotonic() + interval
            self.samples.add(holdings)
            if not typed and now - start > self.minutes * 60 / 4:
                typed = True
                self.types = types_of_objects()
            self.show(holdings, now - start)

    def use_a_loop(self) -> None:
        """Run some lifecycles on a fresh loop."""
        dice = self.spree.dice
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            self.spree.use_a_loop(dice.randrange(1, LARGEST), dice.randrange(1, 9))
        except Failure as failure:
            self.failures += 1
            if self.failures <= SHOWN:
                print(f"\nFAILURE {self.failures}\n{failure}", flush=True)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def show(self, held: Holdings, seconds: float) -> None:
        """Print the progress line."""
        if self.quiet:
            return
        text = (
            f"{seconds / 60:6.1f} of {self.minutes:g} min  {sum(self.spree.rounds.values())} rounds"
            f"  {self.spree.loops} loops  {self.failures} failures  fds {held.descriptors}"
            f"  threads {held.threads}  children {held.children}  objects {held.objects}"
            f"  blocks {held.blocks}  malloc {held.malloced >> 10} KiB"
            f"  RSS {held.resident >> 10} KiB"
        )
        print(f"\r{text}" if sys.stdout.isatty() else text, end="", flush=True)
        print(end="" if sys.stdout.isatty() else "\n", flush=True)

    def grown_types(self) -> list[str]:
        """Say which types have more objects than after the warm-up, those that grew most first."""
        now = types_of_objects()
        more = {name: count - self.types.get(name, 0) for name, count in now.items()}
        most = sorted(more, key=lambda name: more[name], reverse=True)[:10]
        return [f"{name} +{more[name]}" for name in most if more[name] > 5]


def table(samples: list[Holdings], grown: dict[str, Any]) -> Iterator[str]:
    """Say what was held after the warm-up and in the end."""
    counted = samples[len(samples) // 4 :]
    third = max(len(counted) // 3, 1)
    yield f"{'':12} {'first':>12} {'after warm-up':>14} {'in the end':>12}  tolerance"
    for name in Holdings._fields:
        sizes = [getattr(sample, name) for sample in counted]
        first, last = statistics.median(sizes[:third]), statistics.median(sizes[-third:])
        share, least = TOLERANCES[name]
        allowed = f"{max(first * share, least):.0f}"
        mark = "  GROWS" if name in grown else ""
        yield (
            f"{name:12} {getattr(samples[0], name):12} {first:14.0f} {last:12.0f}  {allowed}{mark}"
        )


def attribute(chosen: argparse.Namespace) -> None:
    """Run each lifecycle alone, in a process of its own, and say which of them grow."""
    print("Each lifecycle alone:", flush=True)
    for name in chosen.names:
        command = [sys.executable, __file__, "--quiet", "--only", name, "--loop", chosen.loop]
        command += ["--minutes", str(ATTRIBUTION / 60), "--seed", str(chosen.seed)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        marked = [line for line in done.stdout.splitlines() if line.endswith("GROWS")]
        verdict = "flat" if not done.returncode else f"exit {done.returncode}"
        print("\n    ".join([f"  {name}: {verdict}", *marked]), flush=True)


def widen_interned_strings() -> None:
    """Let CPython's table of interned strings be as large as it gets.

    It grows when it is full of what is gone: by a MiB, after hundreds of thousands of rounds.
    """
    strings = [sys.intern(f"interned {number}") for number in range(INTERNED)]
    strings.clear()


def soak(chosen: argparse.Namespace, samples: Samples) -> int:
    """Run, report; 1 if anything is wrong."""
    widen_interned_strings()
    run = Soak(chosen, samples)
    with prepared():
        run.run()
        types = run.grown_types()
    taken = samples.all()
    grown = {} if chosen.faults_only else growth(taken)
    print(f"\n{chosen.loop}, seed {chosen.seed}: {chosen.minutes:g} minutes, {len(taken)} samples")
    print(f"{run.spree.loops} loops, {sum(run.spree.rounds.values())} rounds of", end=" ")
    print(", ".join(f"{name} {count}" for name, count in run.spree.rounds.items()))
    print("\n".join(table(taken, grown)))
    if "objects" in grown:
        print("types:", ", ".join(types))
    if run.failures:
        print(f"{run.failures} failures")
    if grown and not chosen.quiet and len(chosen.names) > 1:
        attribute(chosen)
    return 1 if grown or run.failures else 0


def main() -> int:
    """Soak."""
    chosen = arguments()
    faulthandler.enable()
    # A background job of a shell ignores SIGINT, and so would children that are to end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryFile("w+") as file:
        try:
            return soak(chosen, Samples(file))
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    os.environ.pop("PYTHONASYNCIODEBUG", None)
    sys.exit(main())
