"""What a lifecycle is: one thing that a loop offers, from its making to its end, with random faults.

A lifecycle may end in any way that asyncio documents. It leaves nothing behind, it does not hang, and
what it raises in callbacks reaches the exception handler: each of these is checked by who runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Optional, Tuple, Type

from support.recorders import BufferedRecorder, Recorder


class Injected(Exception):
    """Raised in a callback; the loop has to report it."""


class Interrupted(KeyboardInterrupt):
    """Raised in a callback; it has to end the run of the loop."""


class Exited(SystemExit):
    """Raised in a callback; it has to end the run of the loop."""


Body = Callable[["Round"], Awaitable[None]]


@dataclass(frozen=True)
class Lifecycle:
    """One kind of thing, and what may happen to it."""

    name: str
    group: str
    body: Body
    #: Whether nothing else may run meanwhile: it changes what belongs to the process.
    alone: bool
    #: Whether its loop may be left without close().
    abandons: bool
    #: Which exceptions may be reported to the exception handler, beside `Injected`.
    tolerates: Tuple[Type[BaseException], ...]


LIFECYCLES: Dict[str, Lifecycle] = {}


def lifecycle(
    *,
    alone: bool = False,
    abandons: bool = True,
    tolerates: Tuple[Type[BaseException], ...] = (),
) -> Callable[[Body], Body]:
    """Register a lifecycle under its function's name, in the group named as its module."""

    def register(body: Body) -> Body:
        name = body.__name__
        group = body.__module__.rpartition(".")[2]
        LIFECYCLES[name] = Lifecycle(name, group, body, alone, abandons, tolerates)
        return body

    return register


class Toll:
    """What was raised on purpose in the callbacks of one loop, and what of it came out again."""

    def __init__(self) -> None:
        self.raised = 0
        self.reported = 0
        self.interrupts = 0
        self.interrupted = 0


class Round:
    """One run of a lifecycle on the running loop, and the dice it throws."""

    def __init__(self, dice: random.Random, new_loop: Callable[[], Any], toll: Toll) -> None:
        self.dice = dice
        self.new_loop = new_loop
        self.loop: Any = asyncio.get_running_loop()
        #: asyncio's own loops forget less well what is done behind their back.
        self.is_oracle = type(self.loop).__module__.startswith("asyncio.")
        self._toll = toll

    def chance(self, probability: float) -> bool:
        """True now and then."""
        return self.dice.random() < probability

    def choose(self, *choices: Any) -> Any:
        """One of them."""
        return self.dice.choice(choices)

    def data(self, most: int = 300_000) -> bytes:
        """Some bytes: mostly few."""
        size = self.choose(0, 1, 100, 4096, 70_000, most)
        return bytes(min(size, most))

    def fail(self, *, interrupts: float = 0.05) -> None:
        """Raise what the loop has to report, or now and then what has to end its run."""
        if self.chance(interrupts):
            self._toll.interrupts += 1
            raise self.choose(Interrupted, Exited)
        self._toll.raised += 1
        raise Injected

    def bound(self, function: Callable[..., Any], probability: float = 0.1) -> Callable[..., Any]:
        """`function` as a callback that now and then fails after it has done its work."""

        def callback(*args: Any) -> None:
            function(*args)
            if self.chance(probability):
                self.fail()

        return callback

    async def turns(self, most: int = 4) -> None:
        """Let the loop make a few turns."""
        for _ in range(self.dice.randrange(most + 1)):
            await asyncio.sleep(0)

    async def cut(self, awaitable: Awaitable[Any], probability: float = 0.2) -> Any:
        """Wait for something in a task that may be cancelled at any moment; None if it was."""
        task = asyncio.ensure_future(awaitable)
        try:
            if self.chance(probability):
                await self.turns(8)
                task.cancel()
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        return None if task.cancelled() else task.result()

    def protocol(self, *events: str) -> Any:
        """A recording protocol of either kind that may fail in one callback."""
        make = self.choose(FailingRecorder, FailingRecorder, FailingBufferedRecorder)
        return self._prepare(make(), events or EVENTS)

    def plain_protocol(self, *events: str) -> Any:
        """The same, but not a buffered one."""
        return self._prepare(FailingRecorder(), events or EVENTS)

    async def end(self, transport: Any, protocol: Any) -> None:
        """Make sure that a connection ends; asyncio's transports take no call after that."""
        if "lost" not in protocol.events:
            transport.abort()
        await protocol.lost()

    def _prepare(self, protocol: Any, events: Tuple[str, ...]) -> Any:
        protocol.round = self
        protocol.keep_open = self.chance(0.3)
        if self.chance(0.25):
            protocol.fails_in = self.choose(*events)
        return protocol


EVENTS = ("made", "data", "eof", "lost", "pause", "resume")


class Failing:
    """Fails, once, where a recording protocol notes a certain event."""

    round: Round
    fails_in: Optional[str] = None

    def record(self, event: str) -> None:
        """Note the event first."""
        super().record(event)  # type: ignore[misc]
        if event == self.fails_in:
            self.fails_in = None
            # One that comes out of write() would end who wrote, not the loop, and one in the middle of
            # what asyncio does when the kernel took everything would leave the rest undone.
            self.round.fail(interrupts=0 if event in ("pause", "resume", "made") else 0.05)


class FailingRecorder(Failing, Recorder):
    """A recording protocol that may fail."""


class FailingBufferedRecorder(Failing, BufferedRecorder):
    """A recording buffered protocol that may fail."""


@contextlib.contextmanager
def closing_all() -> Iterator[List[socket.socket]]:
    """A list of sockets that are closed in the end, whatever happens."""
    sockets: List[socket.socket] = []
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()
