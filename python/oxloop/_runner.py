"""``oxloop.run``, and ``install``/``uninstall``, which make asyncio's own functions give our loops.

``run`` is ``asyncio.Runner`` with our loop factory. Python 3.9 and 3.10 have no Runner; there the
same steps are taken here, Ctrl-C included: the first one cancels the main task, so that it can
clean up, and ``KeyboardInterrupt`` is raised when it has ended; the second one raises at once.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, cast

from oxloop import _compat, _policy

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import FrameType

T = TypeVar("T")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: Optional[bool] = None,
    loop_factory: Optional[LoopFactory] = None,
) -> T:
    """Run the coroutine *main* on a new loop, close the loop, and return the coroutine's result.

    *loop_factory* makes the loop; by default it is ``oxloop.new_event_loop``, which the environment
    variable ``OXLOOP_LOOP`` chooses unless the program has set another policy. *debug* sets the
    loop's debug mode unless it is None. When *main* has ended the remaining tasks are cancelled,
    asynchronous generators are closed and the default executor is shut down.

    Raises ``RuntimeError`` if a loop is already running in this thread, ``KeyboardInterrupt``
    after Ctrl-C, and what *main* raises. As ``asyncio.run(loop_factory=...)`` in Python 3.12.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    factory = _policy.new_event_loop if loop_factory is None else loop_factory
    if _compat.Runner is None:
        return _run(main, debug, factory)
    with _compat.Runner(debug=debug, loop_factory=factory) as runner:
        result: T = runner.run(main)
    return result


def _run(main: Coroutine[Any, Any, T], debug: Optional[bool], factory: LoopFactory) -> T:
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    loop = factory()
    try:
        if debug is not None:
            loop.set_debug(debug)
        result: T = _Interruptible(loop, main).run()
        return result
    finally:
        try:
            _cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


class _Interruptible:
    """The main task of a run, and what Ctrl-C does to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, Any]) -> None:
        self._loop = loop
        self._task = loop.create_task(main)
        self._interrupts = 0

    def run(self) -> Any:
        handler = functools.partial(self._interrupt)  # one object, to recognise it at the end
        ours = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if ours:
            signal.signal(signal.SIGINT, handler)
        try:
            return self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            if self._interrupts > 0:
                raise KeyboardInterrupt from None
            raise
        finally:
            if ours and signal.getsignal(signal.SIGINT) is handler:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, _signum: int, _frame: Optional[FrameType]) -> None:
        self._interrupts += 1
        if self._interrupts > 1 or self._task.done():
            raise KeyboardInterrupt
        self._task.cancel()
        # The loop may be waiting in the kernel; it must notice that a task is ready.
        self._loop.call_soon_threadsafe(lambda: None)


def _cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()

    async def ended() -> None:
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(ended())
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            context = {
                "message": "unhandled exception during asyncio.run() shutdown",
                "exception": task.exception(),
                "task": task,
            }
            loop.call_exception_handler(context)


class _Installation:
    """What ``install()`` has done, so that ``uninstall()`` can undo it."""

    def __init__(self) -> None:
        self.policy: Optional[Any] = None  # the one that was put into asyncio's slot
        self.before: Optional[Any] = None  # what was there, a policy or asyncio.new_event_loop


_installed: Optional[_Installation] = None


def install() -> None:
    """Make asyncio's own functions give oxloop's loops: ``asyncio.run`` and the rest.

    oxloop's policy becomes asyncio's. Where asyncio has no policies (Python 3.16),
    ``asyncio.new_event_loop`` becomes oxloop's, which ``asyncio.run`` and ``asyncio.Runner``
    follow; ``asyncio.get_event_loop`` outside of a running loop does not.

    Calling it again does nothing.
    """
    global _installed  # noqa: PLW0603 - asyncio's slot, too, is the process's
    done = _Installation()
    if not _compat.HAS_POLICIES:
        if _installed is None:
            done.before = _compat.replace_new_event_loop(_policy.new_event_loop)
            _installed = done
        return
    done.before = _compat.asyncio_policy()
    if isinstance(done.before, _policy.AbstractEventLoopPolicy):
        return
    policy = _policy.get_event_loop_policy()
    if not isinstance(policy, _policy.AbstractEventLoopPolicy):
        policy = _policy.DefaultEventLoopPolicy()
    _policy.set_event_loop_policy(policy)
    done.policy = policy
    _installed = done


def uninstall() -> None:
    """Undo ``install()``: asyncio gets back what it had before.

    Does nothing if ``install()`` was not called, or if asyncio was given another policy since.
    """
    global _installed
    done, _installed = _installed, None
    if done is None:
        return
    if not _compat.HAS_POLICIES:
        _compat.replace_new_event_loop(cast("LoopFactory", done.before))
    elif _compat.asyncio_policy() is done.policy:
        _compat.set_asyncio_policy(done.before)
