"""Event loop policies: which loop belongs to which thread.

There is one policy in a process. Where asyncio has policies its slot is the truth: what
``set_event_loop_policy`` chooses is put there, so that ``asyncio.run`` follows it, and an oxloop
policy that was put there through asyncio is found. oxloop's default policy needs no slot: it is
what oxloop's functions use while nobody has chosen another, and asyncio does not see it.

The rules are those of Python 3.7 on every version: 3.12 and 3.14 changed asyncio's default
policy, 3.16 removed policies, and none of that changes what is here.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from asyncio import AbstractEventLoop, _get_running_loop
from typing import Any, Callable, Optional

from oxloop import _compat
from oxloop._loops import ProactorEventLoop, SelectorEventLoop
from oxloop._watchers import (
    AbstractChildWatcher,
    Choice,
    default_child_watcher,
    is_default,
    refuse_on_windows,
)


class AbstractEventLoopPolicy(_compat.AsyncioPolicy):  # type: ignore[misc]
    """The interface of an event loop policy; a subclass of asyncio's where asyncio has one."""

    def get_event_loop(self) -> AbstractEventLoop:
        """Return the event loop for the current context.

        Never None: raises if the context has no loop and the policy does not make one. Called
        from a coroutine or a callback it is the running loop.
        """
        raise NotImplementedError

    def set_event_loop(self, loop: Optional[AbstractEventLoop]) -> None:
        """Make *loop* the event loop for the current context."""
        raise NotImplementedError

    def new_event_loop(self) -> AbstractEventLoop:
        """Make a new event loop by this policy's rules; it is not set as anybody's loop."""
        raise NotImplementedError

    def get_child_watcher(self) -> AbstractChildWatcher:
        """Return the watcher of child processes (Unix only)."""
        raise NotImplementedError

    def set_child_watcher(self, watcher: Optional[AbstractChildWatcher]) -> None:
        """Make *watcher* the watcher of child processes (Unix only)."""
        raise NotImplementedError


LOOP_VARIABLE = "OXLOOP_LOOP"
"""The environment variable that chooses the loop which nobody has chosen in the program."""

DEFAULT_LOOP = "proactor" if sys.platform == "win32" else "selector"
"""What an unset ``OXLOOP_LOOP`` stands for: as in asyncio, which is by completion on Windows."""

_LOOPS: dict[str, type[AbstractEventLoop]] = {
    "selector": SelectorEventLoop,
    "proactor": ProactorEventLoop,
}


def default_loop_class() -> type[AbstractEventLoop]:
    """Return the class that ``OXLOOP_LOOP`` names; if it is unset or empty, the system's default.

    That is ``ProactorEventLoop`` on Windows, and ``SelectorEventLoop`` elsewhere, as in asyncio.

    Raises ``ValueError`` if it names none. Whether the loop can be had is not asked: its
    constructor says so, and nobody who chose one gets the other.
    """
    name = os.environ.get(LOOP_VARIABLE) or DEFAULT_LOOP
    if name not in _LOOPS:
        raise ValueError(f"{LOOP_VARIABLE} is {name!r}; it must be {' or '.join(_LOOPS)}")
    return _LOOPS[name]


def _default_loop() -> AbstractEventLoop:
    return default_loop_class()()


class _ThreadState(threading.local):
    """What a policy remembers of the thread that asks."""

    def __init__(self) -> None:
        self.loop: Optional[AbstractEventLoop] = None
        self.was_set = False  # by set_event_loop, also to None: then no loop is made on demand
        self.pid = os.getpid()  # a forked child does not inherit the loop of its parent


class DefaultEventLoopPolicy(AbstractEventLoopPolicy):
    """One event loop a thread, made on demand in the main thread alone.

    *loop_factory* makes the loops: ``DefaultEventLoopPolicy(loop_factory=ProactorEventLoop)``. By
    default the environment variable ``OXLOOP_LOOP`` chooses, "selector" or "proactor", and where
    it is unset they are a ``SelectorEventLoop`` each (on Windows a ``ProactorEventLoop``). Raises
    ``TypeError`` if *loop_factory* is neither callable nor None.

    To change what else it does, subclass it and override methods.
    """

    # asyncio's name for it: subclasses written for asyncio's policy replace it.
    _loop_factory: Callable[..., AbstractEventLoop] = staticmethod(_default_loop)

    def __init__(self, loop_factory: Optional[Callable[[], AbstractEventLoop]] = None) -> None:
        if loop_factory is not None:
            if not callable(loop_factory):
                raise TypeError(
                    f"loop_factory must be callable or None, not '{type(loop_factory).__name__}'"
                )
            self._loop_factory = loop_factory
        self._threads = _ThreadState()
        self._watcher: Optional[AbstractChildWatcher] = None

    def get_event_loop(self) -> AbstractEventLoop:
        """Return the running loop, else this thread's loop.

        The main thread's loop is made on demand. Raises ``RuntimeError`` in another thread that
        has no loop, and after ``set_event_loop(None)``.
        """
        running = _get_running_loop()
        if running is not None:
            return running
        state = self._thread_state()
        if state.loop is None and not state.was_set and _in_main_thread():
            self.set_event_loop(self.new_event_loop())
        loop = self._thread_state().loop
        if loop is None:
            name = threading.current_thread().name
            raise RuntimeError(f"There is no current event loop in thread {name!r}.")
        return loop

    def set_event_loop(self, loop: Optional[AbstractEventLoop]) -> None:
        """Make *loop* this thread's loop; None takes it away.

        Raises ``TypeError`` if *loop* is neither an ``AbstractEventLoop`` nor None.
        """
        if loop is not None and not isinstance(loop, AbstractEventLoop):
            raise TypeError(
                "loop must be an instance of AbstractEventLoop or None, "
                f"not '{type(loop).__name__}'"
            )
        state = self._thread_state()
        state.loop, state.was_set = loop, True
        if self._watcher is not None and _in_main_thread():
            self._watcher.attach_loop(loop)

    def new_event_loop(self) -> AbstractEventLoop:
        """Make a new loop by the policy's ``loop_factory``, else the one of ``OXLOOP_LOOP``.

        Raises ``ValueError`` if ``OXLOOP_LOOP`` is neither "selector" nor "proactor",
        ``RuntimeError`` if it is "proactor" and there is none here.
        """
        return self._loop_factory()

    def get_child_watcher(self) -> AbstractChildWatcher:
        """Return the watcher that was set, else one that uses pidfds where the kernel has them.

        Raises ``NotImplementedError`` on Windows.
        """
        refuse_on_windows()
        if self._watcher is None:
            self._watcher = default_child_watcher()
            if _in_main_thread():
                self._watcher.attach_loop(self._thread_state().loop)
        return self._watcher

    def set_child_watcher(self, watcher: Optional[AbstractChildWatcher]) -> None:
        """Make *watcher* the watcher of child processes and close the one before it.

        None brings the default back. Raises ``TypeError`` for anything but a watcher,
        ``NotImplementedError`` on Windows.
        """
        refuse_on_windows()
        if watcher is not None and not isinstance(watcher, AbstractChildWatcher):
            raise TypeError(
                "watcher must be an instance of AbstractChildWatcher or None, "
                f"not '{type(watcher).__name__}'"
            )
        before, self._watcher = self._watcher, watcher
        if before is not None and before is not watcher:
            before.close()

    def _thread_state(self) -> _ThreadState:
        state = self._threads
        if state.pid != os.getpid():
            state = self._threads = _ThreadState()
        return state


class WindowsSelectorEventLoopPolicy(DefaultEventLoopPolicy):
    """asyncio's policy of this name: ``SelectorEventLoop``s. Windows alone has it."""

    _loop_factory = SelectorEventLoop


class WindowsProactorEventLoopPolicy(DefaultEventLoopPolicy):
    """asyncio's policy of this name: ``ProactorEventLoop``s. Windows alone has it."""

    _loop_factory = ProactorEventLoop


EventLoopPolicy = DefaultEventLoopPolicy

_default = DefaultEventLoopPolicy()
_chosen: Optional[Any] = None  # by set_event_loop_policy; None: the default


def get_event_loop_policy() -> AbstractEventLoopPolicy:
    """Return the current event loop policy."""
    current = _compat.asyncio_policy()
    if isinstance(current, AbstractEventLoopPolicy):
        return current
    if _chosen is not None and (current is _chosen or not _compat.HAS_POLICIES):
        # Else asyncio was given another since: the choice is undone, there is one policy.
        return _chosen  # type: ignore[no-any-return]
    return _default


def set_event_loop_policy(policy: Optional[AbstractEventLoopPolicy]) -> None:
    """Make *policy* the policy of oxloop's functions and, where asyncio has policies, of asyncio.

    None gives oxloop and asyncio each its default back. Raises ``TypeError`` if *policy* is
    neither None nor an event loop policy (of oxloop's or asyncio's abstract class).
    """
    global _chosen, _default  # noqa: PLW0603 - the policy is the process's, in asyncio too
    accepted = _compat.AsyncioPolicy if _compat.HAS_POLICIES else AbstractEventLoopPolicy
    if policy is not None and not isinstance(policy, accepted):
        raise TypeError(
            "policy must be an instance of AbstractEventLoopPolicy or None, "
            f"not '{type(policy).__name__}'"
        )
    _compat.set_asyncio_policy(policy)
    _chosen = policy
    if policy is None:
        _default = DefaultEventLoopPolicy()


def get_event_loop() -> AbstractEventLoop:
    """Return the running loop, else what the policy's ``get_event_loop()`` returns."""
    running = _get_running_loop()
    if running is not None:
        return running
    return get_event_loop_policy().get_event_loop()


def set_event_loop(loop: Optional[AbstractEventLoop]) -> None:
    """Call the policy's ``set_event_loop(loop)``."""
    get_event_loop_policy().set_event_loop(loop)


def new_event_loop() -> AbstractEventLoop:
    """Call the policy's ``new_event_loop()``."""
    return get_event_loop_policy().new_event_loop()


def get_child_watcher() -> AbstractChildWatcher:
    """Call the policy's ``get_child_watcher()``. ``NotImplementedError`` on Windows."""
    refuse_on_windows()
    return get_event_loop_policy().get_child_watcher()


def set_child_watcher(watcher: Optional[AbstractChildWatcher]) -> None:
    """Call the policy's ``set_child_watcher(watcher)``. ``NotImplementedError`` on Windows."""
    refuse_on_windows()
    get_event_loop_policy().set_child_watcher(watcher)


def _chosen_child_watcher() -> Optional[AbstractChildWatcher]:
    """Return the watcher that the policy in force was given, oxloop's before asyncio's.

    None if it has but a default one: then a loop watches its children by itself.
    """
    for policy in (get_event_loop_policy(), _compat.asyncio_policy()):
        watcher = _watcher_of(policy)
        if watcher is not None and not is_default(watcher):
            return watcher
    return None


def _watcher_of(policy: Any) -> Optional[AbstractChildWatcher]:
    """Return the watcher of *policy*; asked for, a default policy would make one."""
    method = getattr(type(policy), "get_child_watcher", None)
    makes_one = (DefaultEventLoopPolicy.get_child_watcher, _compat.asyncio_get_child_watcher)
    if method is None or method in makes_one:
        return getattr(policy, "_watcher", None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return policy.get_child_watcher()  # type: ignore[no-any-return]
    except NotImplementedError:
        return None


Choice.find = staticmethod(_chosen_child_watcher)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
