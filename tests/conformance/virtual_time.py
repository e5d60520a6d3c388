"""oxloop's loop with the clock that CPython's tests of tasks and futures drive.

``test.test_asyncio.utils.TestLoop`` is a subclass of asyncio's private ``BaseEventLoop`` with its
own turn. This one has the same contract on public ground: ``loop.time`` is overridden, and a
selector of the user's own stands where the loop would wait. The generator given by a test is sent
the time of each new timer, after the turn that made it, and answers how far the clock moves; when
the loop is closed it must have ended. Some tests also ask ``_ready`` whether a callback waits for
its turn. A proactor has no selector; there a callback of our own stands in each turn.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import asyncio
    import contextvars

    # What it is mixed into; the backend decides which class that is.
    _Loop = asyncio.SelectorEventLoop
else:
    _Loop = object

Clock = Generator[Optional[float], float, None]


class _NothingReady(selectors.BaseSelector):
    """Never waits and never sees an event; tells `turn` when the loop comes to it."""

    def __init__(self) -> None:
        self.turn: Callable[[], None] = lambda: None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fileobj] = key = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turn()
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualTime(_Loop):
    """Mixed into a loop class: time stands still until the test's generator moves it."""

    def __init__(self, gen: Callable[[], Clock] | None = None) -> None:
        self._now = 0.0
        self._ready: list[asyncio.Handle] = []
        self._new_timers: list[float] = []
        self._clock = gen() if gen is not None else _stopped_clock()
        self._must_end = gen is not None
        next(self._clock)
        self._make()

    def _make(self) -> None:
        selector = _NothingReady()
        super().__init__(selector)
        selector.turn = self._turn

    def time(self) -> float:
        return self._now

    def advance_time(self, advance: float | None) -> None:
        """Move the clock by `advance` seconds."""
        if advance:
            self._now += advance

    def call_soon(  # type: ignore[override] # typeshed's has a TypeVarTuple
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        self._new_timers.append(when)
        return super().call_at(when, callback, *args, context=context)

    def run_forever(self) -> None:
        try:
            super().run_forever()
        finally:
            self._move_clock()

    def close(self) -> None:
        super().close()
        if self._must_end:
            self._must_end = False
            try:
                self._clock.send(0)
            except StopIteration:
                return
            raise AssertionError("the test made fewer timers than its clock expects")

    def _turn(self) -> None:
        self._ready.clear()  # all of them are called in this turn
        self._move_clock()

    def _move_clock(self) -> None:
        timers, self._new_timers = self._new_timers, []
        for when in timers:
            self.advance_time(self._clock.send(when))


class VirtualTimeOfProactor(VirtualTime):
    """The same where there is no selector: a callback in each turn keeps the loop from waiting."""

    def _make(self) -> None:
        super(VirtualTime, self).__init__()
        super(VirtualTime, self).call_soon(self._in_each_turn)

    def _in_each_turn(self) -> None:
        self._turn()
        super(VirtualTime, self).call_soon(self._in_each_turn)


def _stopped_clock() -> Clock:
    yield None
