"""Child watchers: how the loop learns that a child process has ended.

asyncio had them until 3.13; here they are on every version. The default watches a pidfd (Linux
5.3): no signal handler, no thread, and no other code's children. Where there is no pidfd a thread
waits for each child, which asyncio too falls back to.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from asyncio.log import logger
from typing import TYPE_CHECKING, Any, Callable, Optional

from oxloop import _compat

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class _OwnChildWatcher:
    """The interface of a child watcher, for Pythons whose asyncio has none.

    A watcher is used in a ``with`` block that starts the process and adds its handler, so that a
    watcher that reaps any child does not reap one that it does not know yet.
    """

    def add_child_handler(self, pid: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(pid, returncode, *args)`` when the process has ended.

        Replaces an earlier handler of the process. *callback* must be thread-safe.
        """
        raise NotImplementedError

    def remove_child_handler(self, pid: int) -> bool:
        """Forget the handler of the process; return whether there was one."""
        raise NotImplementedError

    def attach_loop(self, loop: Optional[asyncio.AbstractEventLoop]) -> None:
        """Leave the loop that the watcher was attached to and attach it to *loop*, if any."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what the watcher holds."""
        raise NotImplementedError

    def is_active(self) -> bool:
        """Return whether the watcher is ready to report the end of processes."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Begin to start a process; returns the watcher."""
        raise NotImplementedError

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """End what ``__enter__`` began."""
        raise NotImplementedError


if TYPE_CHECKING:
    AbstractChildWatcher = _OwnChildWatcher
else:
    AbstractChildWatcher = _compat.AsyncioChildWatcher or _OwnChildWatcher
    if AbstractChildWatcher is _OwnChildWatcher:
        AbstractChildWatcher.__name__ = AbstractChildWatcher.__qualname__ = "AbstractChildWatcher"


class _Unannounced:
    """A first base that keeps asyncio 3.12 and 3.13 from warning of the class being subclassed."""

    def __init_subclass__(cls) -> None:
        pass


class _StatelessChildWatcher(_Unannounced, AbstractChildWatcher):
    """A watcher that needs no loop of its own: each handler belongs to the loop that added it.

    So ``close()`` has nothing to do, and a child that was started before another watcher was set
    is still reported.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        pass

    def is_active(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def attach_loop(self, loop: Optional[asyncio.AbstractEventLoop]) -> None:
        pass


class PidfdChildWatcher(_StatelessChildWatcher):
    """Watches a child by its pidfd on the running loop (Linux 5.3 and later)."""

    def __init__(self) -> None:
        self._pidfds: dict[int, tuple[int, asyncio.AbstractEventLoop]] = {}

    def add_child_handler(self, pid: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(pid, returncode, *args)`` in the running loop when the child has ended.

        Raises ``RuntimeError`` outside a running loop, ``OSError`` if there is no such process.
        """
        loop = asyncio.get_running_loop()
        self.remove_child_handler(pid)
        pidfd: int = os.pidfd_open(pid)  # type: ignore[attr-defined, unused-ignore]
        try:
            loop.add_reader(pidfd, self._ended, pid, callback, args)
        except BaseException:
            os.close(pidfd)
            raise
        self._pidfds[pid] = pidfd, loop

    def remove_child_handler(self, pid: int) -> bool:
        """Forget the handler of the process; return whether there was one."""
        pidfd, loop = self._pidfds.pop(pid, (None, None))
        if pidfd is None or loop is None:
            return False
        if not loop.is_closed():  # a closed loop has forgotten its readers
            loop.remove_reader(pidfd)
        os.close(pidfd)
        return True

    def _ended(self, pid: int, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.remove_child_handler(pid)
        callback(pid, _reap(pid), *args)


class ThreadedChildWatcher(_StatelessChildWatcher):
    """Waits for each child in a daemon thread and reports to the loop that added it."""

    def add_child_handler(self, pid: int, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback(pid, returncode, *args)`` in the running loop when the child has ended.

        Raises ``RuntimeError`` outside a running loop.
        """
        loop = asyncio.get_running_loop()
        threading.Thread(
            target=_wait_and_report,
            name=f"waitpid-{pid}",
            args=(loop, pid, callback, args),
            daemon=True,
        ).start()

    def remove_child_handler(self, pid: int) -> bool:  # noqa: ARG002 - the interface's
        """Return False: the thread cannot be called back."""
        return False


def default_child_watcher() -> AbstractChildWatcher:
    """Return a new watcher of the best kind that this system has."""
    return PidfdChildWatcher() if _has_pidfd() else ThreadedChildWatcher()


def is_default(watcher: object) -> bool:
    """Return whether *watcher* does only what a loop does by itself when nobody chose one."""
    kinds = (PidfdChildWatcher, ThreadedChildWatcher, *_compat.AsyncioDefaultWatchers)
    return type(watcher) in kinds


class Choice:
    """Where loops learn which watcher was chosen; ``_policy``, which knows, puts the way in."""

    find: Callable[[], Optional[AbstractChildWatcher]] = staticmethod(lambda: None)


def refuse_on_windows() -> None:
    """Raise ``NotImplementedError`` on Windows, which has no child watchers."""
    if sys.platform == "win32":
        raise NotImplementedError("child watchers are not supported on Windows")


def _has_pidfd() -> bool:
    """Return whether the C library, the kernel and its sandbox let this process open pidfds."""
    try:
        os.close(os.pidfd_open(os.getpid()))  # type: ignore[attr-defined, unused-ignore]
    except (AttributeError, OSError):
        return False
    return True


def _wait_and_report(
    loop: asyncio.AbstractEventLoop,
    pid: int,
    callback: Callable[..., object],
    args: tuple[Any, ...],
) -> None:
    # The loop takes the exit code: it signals nobody who has got the number since (gh-127049).
    reap = functools.partial(_reap, pid)
    if hasattr(os, "waitid"):
        _wait_for_end(pid)
    else:  # macOS before Python 3.13
        returncode = reap()
        reap = functools.partial(int, returncode)

    try:
        loop.call_soon_threadsafe(lambda: callback(pid, reap(), *args))
    except RuntimeError:
        reap()
        if not loop.is_closed():
            raise
        logger.warning("Loop %r that handles pid %r is closed", loop, pid)


def _wait_for_end(pid: int) -> None:
    """Wait until the child has ended, and leave its exit code to be taken."""
    try:
        while True:
            news = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            if news is None or news.si_code != os.CLD_STOPPED:
                return
            # Which is told on macOS alone, and until it is taken (gh-158287).
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
    except ChildProcessError:
        return


def _reap(pid: int) -> int:
    """Wait for the child and return its exit code; negative: the signal that ended it.

    255 if somebody else has waited for it, as in asyncio.
    """
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        logger.warning("child process %d was waited for elsewhere: returncode 255", pid)
        return 255
    return os.waitstatus_to_exitcode(status)
