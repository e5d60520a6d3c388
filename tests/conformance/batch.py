"""Runs many tests where no process can be forked: several in one process, each within the time limit.

A process gets a list of names and writes down how each test ended. One that takes too long ends its
process, as does one that crashes; the rest of the list goes to the next process.
"""

from __future__ import annotations

import concurrent.futures
import faulthandler
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from . import backends, suite
from .outcome import Ending, Outcome, run_here

if TYPE_CHECKING:
    import unittest
    from collections.abc import Iterable, Iterator

#: Tests of a module that share a process, if none of them ends it.
SIZE = 60

ROOT = Path(__file__).parents[2]
ENDINGS = "endings"
#: What faulthandler writes when the time is over, before it ends the process.
PAST_LIMIT = "Timeout ("


class Batches:
    """As `pool.Pool`, with `workers` processes at the same time."""

    def __init__(self, tests: dict[str, unittest.TestCase], workers: int, limit: float) -> None:
        del tests  # they are loaded in the processes
        self._workers = workers
        self._limit = limit

    def run(self, names: Iterable[str], backend: str) -> Iterator[Outcome]:
        """The outcomes of the tests called `names`, a list of them after the other."""
        lists = list(_cut(names))
        with concurrent.futures.ThreadPoolExecutor(self._workers) as workers:
            for outcomes in workers.map(lambda them: self._run_list(them, backend), lists):
                yield from outcomes

    def _run_list(self, names: list[str], backend: str) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(outcomes) < len(names):
            outcomes += self._run_process(names[len(outcomes) :], backend)
        return outcomes

    def _run_process(self, names: list[str], backend: str) -> list[Outcome]:
        """The outcomes up to that of the test which ended the process; at least one."""
        with tempfile.TemporaryDirectory(
            prefix="conformance-", ignore_cleanup_errors=True
        ) as place:
            folder = Path(place)
            command = [sys.executable, "-m", __name__, backend, str(self._limit), place]
            with open(folder / "log", "wb") as log:
                code = _communicate(command, log, names, len(names) * self._limit + 60)
            return list(_outcomes(folder, names, backend, code))


def _communicate(command: list[str], log: BinaryIO, names: list[str], seconds: float) -> object:
    """How the process ended, or why there is none."""
    try:
        child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
        )
    except OSError as error:
        return error
    try:
        child.communicate("\n".join(names), timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return child.returncode


def _cut(names: Iterable[str]) -> Iterator[list[str]]:
    for _, group in itertools.groupby(names, key=lambda name: name.split(".", 1)[0]):
        while some := list(itertools.islice(group, SIZE)):
            yield some


def _outcomes(folder: Path, names: list[str], backend: str, code: object) -> Iterator[Outcome]:
    endings = (folder / ENDINGS).read_text().splitlines() if (folder / ENDINGS).exists() else []
    for number, line in enumerate(endings):
        word, seconds = line.split(" ")
        output = _read(folder / str(number))
        yield Outcome(names[number], backend, Ending[word], float(seconds), output)
    if len(endings) == len(names):
        return
    output = _read(folder / str(len(endings))) + _read(folder / "log")
    ending = Ending.TIMED_OUT if PAST_LIMIT in output else Ending.DIED
    note = f"\nits process ended with {code}\n"
    yield Outcome(names[len(endings)], backend, ending, 0.0, output + note)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def main(backend: str, limit: float, folder: Path) -> None:
    """Be such a process; the names come by standard input."""
    names = sys.stdin.read().split("\n")
    tests = suite.load(sorted({name.split(".", 1)[0] for name in names}))
    backends.install(backend)
    os.chdir(folder)  # for os_helper.TESTFN
    sys.stdout = sys.stderr = open(1, "w", encoding="utf-8", buffering=1, closefd=False)
    with open(ENDINGS, "w", buffering=1) as endings:
        for number, name in enumerate(names):
            written = os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(written, 1)
            os.dup2(written, 2)
            os.close(written)
            faulthandler.dump_traceback_later(limit, exit=True, file=2)
            started = time.monotonic()
            ending = run_here(tests[name])
            faulthandler.cancel_dump_traceback_later()
            print(ending.name, round(time.monotonic() - started, 3), file=endings)
    os._exit(0)  # whatever a test has left


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
