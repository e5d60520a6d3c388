"""Runs lifecycles on a loop until there have been enough, several at a time, and ends the loop.

A loop ends cleanly, or with things in flight: left by its tasks, closed, or not even closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import sys
import traceback
import warnings
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set

from soak import (  # noqa: F401  importing them registers their lifecycles
    connections,
    datagrams,
    pipes,
    processes,
    scheduling,
    shortages,
    sockets,
    tls,
)
from soak.holdings import children
from soak.lifecycle import LIFECYCLES, Exited, Injected, Interrupted, Lifecycle, Round, Toll

#: Seconds that one lifecycle may take. The longest waits a second for a listener to try again.
LIMIT = 10
NewLoop = Callable[[], Any]


class Failure(Exception):
    """Something went wrong in a lifecycle; the text tells what."""


def fail(*told: Any) -> Failure:
    return Failure("\n".join(str(part) for part in told))


class Reports:
    """A loop's exception handler, which knows what has to come and what may."""

    def __init__(self, toll: Toll) -> None:
        self.toll = toll
        self.tolerated: Set[type] = set()
        self.unexpected: List[str] = []
        self.abandoned = False

    def __call__(self, loop: Any, context: Dict[str, Any]) -> None:
        """Sort one report."""
        error = context.get("exception")
        if isinstance(error, Injected):
            self.toll.reported += 1
        elif self.abandoned and (
            error is None or "future" in context or isinstance(error, asyncio.InvalidStateError)
        ):
            pass  # a task that was destroyed while it was pending, or that nobody waits for now
        elif isinstance(error, asyncio.CancelledError):
            pass  # asyncio.streams asks a cancelled task for its exception before 3.12
        elif not isinstance(error, tuple(self.tolerated)) and not from_sslproto(error):
            self.unexpected.append(f"reported: {context}\n{trace_of(error)}")


def trace_of(error: Optional[BaseException]) -> str:
    """The traceback, as text."""
    if error is None:
        return ""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def from_sslproto(error: Any) -> bool:
    """Whether asyncio's SSLProtocol tripped over itself, as it does where calls cross its end."""
    trace = error.__traceback__ if isinstance(error, AttributeError) else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.endswith("sslproto.py")


class Spree:
    """Many rounds of some lifecycles, loop after loop."""

    def __init__(
        self, new_loop: NewLoop, lifecycles: Sequence[str], seed: int, *, leaves: bool = True
    ) -> None:
        self.new_loop = new_loop
        #: Whether loops are also ended with things in flight.
        self.leaves = leaves
        self.dice = random.Random(seed)
        self.lifecycles = [LIFECYCLES[name] for name in lifecycles]
        self.rounds = dict.fromkeys(lifecycles, 0)
        self.loops = 0
        self._failures: List[str] = []

    def use_a_loop(self, rounds: int, at_once: int = 4) -> None:
        """Run `rounds` lifecycles on a fresh loop and end it; Failure tells of what went wrong."""
        toll = Toll()
        reports = Reports(toll)
        loop = self.new_loop()
        self.loops += 1
        loop.set_exception_handler(reports)
        loop.set_debug(self.dice.random() < 0.1)
        queue = [self.dice.choice(self.lifecycles) for _ in range(rounds)]
        may_abandon = all(kind.abandons for kind in queue)
        in_flight = self.dice.random() < 0.3 and self.leaves
        asyncio.set_event_loop(loop)
        try:
            main = loop.create_task(self._run(queue, at_once, reports, in_flight))
            drive(loop, main, toll)
            reports.abandoned = in_flight
            self._end(loop, toll, in_flight, may_abandon)
        finally:
            asyncio.set_event_loop(None)
            loop = main = None
            if in_flight:
                kill_children()
        self._check(reports)

    def _check(self, reports: Reports) -> None:
        toll = reports.toll
        if reports.unexpected:
            self._failures += reports.unexpected
        if toll.reported != toll.raised and not reports.abandoned:
            self._failures.append(f"{toll.raised} errors raised, {toll.reported} reported")
        if toll.interrupts != toll.interrupted and not reports.abandoned:
            self._failures.append(f"{toll.interrupts} interrupts, {toll.interrupted} came out")
        while UNRAISABLE:
            self._failures.append(UNRAISABLE.pop())
        if self._failures:
            failures, self._failures = self._failures, []
            raise fail(*failures)

    async def _run(
        self, queue: List[Lifecycle], at_once: int, reports: Reports, in_flight: bool
    ) -> None:
        """Start the lifecycles of the queue, `at_once` at a time."""
        running: List[asyncio.Task[None]] = []
        for kind in queue:
            while len(running) > (0 if kind.alone else at_once - 1):
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                running = [task for task in running if not task.done()]
            task = asyncio.ensure_future(self._one(kind, reports))
            running.append(task)
            if kind.alone:
                await asyncio.wait(running)
                running = []
        if running and not in_flight:
            await asyncio.wait(running)

    async def _one(self, kind: Lifecycle, reports: Reports) -> None:
        """One round, its failure written down with its seed."""
        seed = self.dice.randrange(1 << 32)
        round_ = Round(random.Random(seed), self.new_loop, reports.toll)
        reports.tolerated.update(kind.tolerates)  # also when the round is over: reports come late
        try:
            await asyncio.wait_for(kind.body(round_), LIMIT)
        except Exception as error:
            if not reports.abandoned and not from_sslproto(error):
                where = f"{kind.name} (seed {seed})"
                self._failures.append(f"{where} failed:\n{traceback.format_exc()}")
        self.rounds[kind.name] += 1

    def _end(self, loop: Any, toll: Toll, in_flight: bool, may_abandon: bool) -> None:
        """End the loop in one of the ways that there are."""
        ways = (
            ["cancel", "close", "abandon" if may_abandon else "close"] if in_flight else ["clean"]
        )
        way = self.dice.choice(ways)
        if way in ("clean", "cancel"):
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                drive(loop, asyncio.gather(*tasks, return_exceptions=True), toll)
            drive(loop, loop.create_task(loop.shutdown_asyncgens()), toll)
        drive(loop, loop.create_task(loop.shutdown_default_executor()), toll)
        if way != "abandon":
            loop.close()


def kill_children() -> None:
    """Kill the children that a loop has left in flight."""
    for number in children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def drive(loop: Any, future: Any, toll: Toll) -> None:
    """Run the loop until `future` is done, also when what runs on it interrupts it."""
    while not future.done():
        try:
            loop.run_until_complete(future)
        except (Interrupted, Exited):
            toll.interrupted += 1
        except RuntimeError as error:
            # The end of the last run was queued when it was interrupted.
            if not toll.interrupted or "stopped before Future completed" not in str(error):
                raise
    if not future.cancelled() and not isinstance(future.exception(), (Interrupted, Exited)):
        future.result()


def unraisable(what: Any) -> None:
    """Be sys.unraisablehook: a coroutine may fail while it is left in the middle, nothing else may."""
    # Nor what asyncio's own transports do when they are collected after their loop is closed.
    ours = str(getattr(what.object, "__module__", "")).startswith("asyncio.")
    # A native coroutine that is dropped has no object by then, and may find that others went first.
    left = what.object is None and isinstance(what.exc_value, (RuntimeError, AttributeError))
    if not asyncio.iscoroutine(what.object) and not ours and not left:
        UNRAISABLE.append(f"unraisable: {what.err_msg} {what.object!r}: {what.exc_value!r}")


UNRAISABLE: List[str] = []


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Make warnings and logs of what is left in flight quiet."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, sys.unraisablehook = sys.unraisablehook, unraisable
        try:
            yield
        finally:
            gc.collect()
            sys.unraisablehook = before
            logger.setLevel(level)
