"""Where a test process exchanges asyncio's loop for oxloop's.

The tests make their loops by a few names, and nothing else of asyncio is touched:
``asyncio.SelectorEventLoop``, ``asyncio.EventLoop`` (3.13), ``asyncio.BaseEventLoop`` (some tests
make one and put mocks where asyncio keeps its selector), ``asyncio.DefaultEventLoopPolicy``
(``asyncio.events`` looks it up when a policy is first needed, in the package, or from 3.14 on in the
module of the system, so ``asyncio.new_event_loop``, ``asyncio.run`` and ``asyncio.Runner`` follow) and the loop with a
virtual clock of ``test.test_asyncio.utils``. It happens in the forked child, so that the process
which loaded the tests can run each of them on any backend.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import selectors
import sys
from typing import Any

from .suite import PACKAGE
from .virtual_time import VirtualTime, VirtualTimeOfProactor

WINDOWS = os.name == "nt"

#: ``asyncio`` is the untouched standard library: the oracle. ``selector`` waits in what oxloop takes
#: by itself on Windows.
BACKENDS = (
    ("asyncio", "proactor", "selector", "select")
    if WINDOWS
    else ("asyncio", "epoll", "poll", "select", "proactor")
)

_SELECTORS = {"epoll": "EpollSelector", "poll": "PollSelector", "select": "SelectSelector"}


def install(backend: str) -> None:
    """Make asyncio's own functions and classes give the loop of `backend` in this process."""
    if backend == "asyncio":
        return
    _make_a_task()
    loop_class = _loop_class(backend)
    policy_class = _policy_class(loop_class)
    if WINDOWS:
        _replace_both_loops(loop_class, backend)
    else:
        _replace(asyncio, "SelectorEventLoop", loop_class)
    base_class = _base_class(loop_class)
    _replace(asyncio, "BaseEventLoop", base_class)
    _replace(asyncio.base_events, "BaseEventLoop", base_class)
    _replace(asyncio, "DefaultEventLoopPolicy", policy_class)
    if sys.version_info >= (3, 13):
        _replace(asyncio, "EventLoop", loop_class)
    if sys.version_info >= (3, 14):
        system = importlib.import_module(f"asyncio.{'windows' if WINDOWS else 'unix'}_events")
        _replace(system, "_DefaultEventLoopPolicy", policy_class)
        _replace(asyncio, "_DefaultEventLoopPolicy", policy_class)
    clock = VirtualTimeOfProactor if backend == "proactor" else VirtualTime
    test_loop_class = type("TestLoop", (clock, base_class), {})
    _replace(importlib.import_module(f"{PACKAGE}.utils"), "TestLoop", test_loop_class)


def _replace_both_loops(loop_class: type[asyncio.AbstractEventLoop], backend: str) -> None:
    """The tests for Windows say which loop they want, by its class or by its policy."""
    import oxloop

    selector_class = oxloop.SelectorEventLoop if backend == "proactor" else loop_class
    _replace(asyncio, "SelectorEventLoop", selector_class)
    _replace(asyncio, "ProactorEventLoop", oxloop.ProactorEventLoop)
    for kind in ("Selector", "Proactor"):
        name = f"Windows{kind}EventLoopPolicy"
        _replace(asyncio, name, getattr(oxloop, name))


def _make_a_task() -> None:
    """Let oxloop look at asyncio's own ``BaseEventLoop`` while it is there: the first task does."""
    import oxloop

    loop = oxloop.SelectorEventLoop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def _replace(module: Any, name: str, value: object) -> None:
    setattr(module, name, value)


def _loop_class(backend: str) -> type[asyncio.AbstractEventLoop]:
    """oxloop's loop with the selector of `backend` where none is asked for, or its proactor."""
    import oxloop

    if backend in ("epoll", "selector"):  # what oxloop takes by itself on Linux
        return oxloop.SelectorEventLoop
    if backend == "proactor":
        return _proactor_class()
    selector_class: type[selectors.BaseSelector] = getattr(selectors, _SELECTORS[backend])

    class SelectorEventLoop(oxloop.SelectorEventLoop):
        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            super().__init__(selector_class() if selector is None else selector)

    return SelectorEventLoop


def _proactor_class() -> type[asyncio.AbstractEventLoop]:
    """The proactor in the place of a loop that many tests give a selector to."""
    import oxloop

    class ProactorEventLoop(oxloop.ProactorEventLoop):
        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            super().__init__()
            if selector is not None:
                selector.close()

    return ProactorEventLoop


def _base_class(loop_class: type[asyncio.AbstractEventLoop]) -> type[asyncio.AbstractEventLoop]:
    """The loop in the place of ``BaseEventLoop``, with the one private method that tests drive."""

    class BaseEventLoop(loop_class):  # type: ignore[valid-type, misc]
        def _run_once(self) -> None:
            self.call_soon(self.stop)
            self.run_forever()

    return BaseEventLoop


def _policy_class(loop_class: type[asyncio.AbstractEventLoop]) -> type[Any]:
    import oxloop

    if loop_class is oxloop.SelectorEventLoop:
        return oxloop.DefaultEventLoopPolicy

    class DefaultEventLoopPolicy(oxloop.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return loop_class()

    return DefaultEventLoopPolicy
