"""Ends a test that takes too long: by a signal, and where there are no alarms by a thread that sends one."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import weakref
from types import FrameType
from typing import Any, Callable, Iterator, Optional

from support.platforms import WINDOWS


class TimeLimitExceeded(KeyboardInterrupt):
    """A test ran for too long. A KeyboardInterrupt, because a loop swallows other exceptions."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def expire(signum: int, frame: Optional[FrameType]) -> None:
        raise TimeLimitExceeded

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


#: The loops that may be running.
loops: weakref.WeakSet[Any] = weakref.WeakSet()


class _Watch:
    """One thread for all tests, so that none sees threads come and go.

    It has the main thread run the handler of SIGABRT, which no test sets. What waits there is not
    interrupted by that, so the loops that the tests have made are woken.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seconds: Optional[float] = None
        self._thread: Optional[threading.Thread] = None

    @contextlib.contextmanager
    def __call__(self, seconds: float) -> Iterator[None]:
        def expire(signum: int, frame: Optional[FrameType]) -> None:
            raise TimeLimitExceeded

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        before = signal.signal(signal.SIGABRT, expire)
        self._set(seconds or None)
        try:
            yield
        finally:
            self._set(None)
            signal.signal(signal.SIGABRT, before)

    def _set(self, seconds: Optional[float]) -> None:
        with self._changed:
            self._seconds = seconds
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                waited_for = self._seconds
                if not self._changed.wait(waited_for) and waited_for is not None:
                    self._seconds = None
                    _thread.interrupt_main(signal.SIGABRT)
                    for loop in list(loops):
                        with contextlib.suppress(RuntimeError):  # it is closed
                            loop.call_soon_threadsafe(int)


#: `with time_limit(seconds):` raises TimeLimitExceeded in it after that time; 0 is no limit.
time_limit: Callable[[float], contextlib.AbstractContextManager[None]] = (
    _Watch() if WINDOWS else _alarm
)
