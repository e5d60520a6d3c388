"""Runs many tests, a few at a time, each in its own process and none past the time limit."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import child
from .outcome import Ending, Outcome

if TYPE_CHECKING:
    import unittest
    from collections.abc import Iterable, Iterator

#: Seconds between asking a test past its limit for its stack and killing it.
GRACE = 2.0


@dataclass
class _Running:
    name: str
    output: Path
    started: float
    kill_at: float
    past_limit: bool = False


class Pool:
    """Forks the children of this process; one at a time in a process, for it takes over SIGCHLD."""

    def __init__(self, tests: dict[str, unittest.TestCase], workers: int, limit: float) -> None:
        self._tests = tests
        self._workers = workers
        self._limit = limit
        self._running: dict[int, _Running] = {}
        self._folder = Path()

    def run(self, names: Iterable[str], backend: str) -> Iterator[Outcome]:
        """The outcomes of the tests called `names`, in the order in which they end."""
        waiting = iter(names)
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder, _child_signal() as ended:
            self._folder = Path(folder)
            try:
                while self._start_more(waiting, backend):
                    select.select([ended], [], [], self._seconds_to_next_limit())
                    with contextlib.suppress(BlockingIOError):
                        ended.recv(4096)
                    yield from self._reap(backend)
                    self._end_overdue()
            finally:
                for pid in self._running:
                    _kill_group(pid)
                    os.waitpid(pid, 0)
                self._running.clear()

    def _start_more(self, waiting: Iterator[str], backend: str) -> bool:
        while len(self._running) < self._workers:
            name = next(waiting, None)
            if name is None:
                break
            output = self._folder / name
            now = time.monotonic()
            pid = child.start(self._tests[name], backend, output)
            self._running[pid] = _Running(name, output, now, now + self._limit)
        return bool(self._running)

    def _seconds_to_next_limit(self) -> float:
        return max(0.0, min(it.kill_at for it in self._running.values()) - time.monotonic())

    def _reap(self, backend: str) -> Iterator[Outcome]:
        for pid, running in list(self._running.items()):
            reaped, status = os.waitpid(pid, os.WNOHANG)
            if reaped:
                del self._running[pid]
                _kill_group(pid)  # what the test started and left
                yield _outcome(running, backend, status)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for pid, running in self._running.items():
            if running.kill_at <= now:
                if running.past_limit:
                    _kill_group(pid)
                else:
                    os.kill(pid, signal.SIGABRT)
                running.past_limit = True
                running.kill_at = now + GRACE


@contextlib.contextmanager
def _child_signal() -> Iterator[socket.socket]:
    """A socket that becomes readable when a child ends."""
    readable, written = socket.socketpair()
    readable.setblocking(False)
    written.setblocking(False)
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    wakeup = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, handler)
        readable.close()
        written.close()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _outcome(running: _Running, backend: str, status: int) -> Outcome:
    seconds = time.monotonic() - running.started
    output = running.output.read_text(errors="replace") if running.output.exists() else ""
    if running.past_limit:
        ending = Ending.TIMED_OUT
        output += f"\nno end after {seconds:.0f} s\n"
    else:
        ending, note = _ending(status)
        output += note
    return Outcome(running.name, backend, ending, seconds, output)


def _ending(status: int) -> tuple[Ending, str]:
    if os.WIFSIGNALED(status):
        return Ending.DIED, f"\nkilled by {signal.Signals(os.WTERMSIG(status)).name}\n"
    code = os.WEXITSTATUS(status)
    for ending, exit_code in child.EXIT_CODES.items():
        if code == exit_code:
            return ending, ""
    return Ending.DIED, f"\nexited with {code}\n"
