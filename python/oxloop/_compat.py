"""Every difference between Python versions that the package has to know.

This is the only module that looks at ``sys.version_info``; the others ask it. What it knows:

* Event loop policies: asyncio's public names until 3.13; deprecated in 3.14, where the same
  objects live on under an underscore and the public names warn; removed in 3.16.
* Child watchers: asyncio has them until 3.13 (deprecated from 3.12), not after.
* ``asyncio.Runner`` came with 3.11.
* Coroutine functions: asyncio marks them until 3.15, :mod:`inspect` from 3.12 on.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import coroutines, events
from typing import Any, Callable, Optional

if sys.version_info >= (3, 14):
    _POLICY_NAMES = ("_AbstractEventLoopPolicy", "_get_event_loop_policy", "_set_event_loop_policy")
else:
    _POLICY_NAMES = ("AbstractEventLoopPolicy", "get_event_loop_policy", "set_event_loop_policy")

# Looked up rather than imported: 3.16 has none of them, and its pre-releases lost them midway.
_policy_class, _get_policy, _set_policy = (getattr(events, name, None) for name in _POLICY_NAMES)

HAS_POLICIES: bool = None not in (_policy_class, _get_policy, _set_policy)
"""Whether this Python's asyncio has event loop policies to plug into."""

AsyncioPolicy: Any = _policy_class if HAS_POLICIES else object
"""asyncio's abstract event loop policy; ``object`` where asyncio has none."""

if sys.version_info >= (3, 14):
    AsyncioChildWatcher: Any = None
else:
    AsyncioChildWatcher = getattr(asyncio, "AbstractChildWatcher", None)
"""asyncio's abstract child watcher; None where it has none (3.14 and later, and Windows)."""

if sys.version_info >= (3, 14):
    _asyncio_watcher_names: tuple[str, ...] = ()
elif sys.version_info >= (3, 12):
    _asyncio_watcher_names = ("ThreadedChildWatcher", "PidfdChildWatcher")
else:  # where the one by pidfd is attached to a loop
    _asyncio_watcher_names = ("ThreadedChildWatcher",)

AsyncioDefaultWatchers: tuple[Any, ...] = tuple(
    getattr(asyncio, name) for name in _asyncio_watcher_names if hasattr(asyncio, name)
)
"""The child watchers that asyncio's policy makes by itself: nobody need have chosen them."""

asyncio_get_child_watcher: Any = getattr(
    getattr(asyncio, "DefaultEventLoopPolicy", None) if sys.version_info < (3, 14) else None,
    "get_child_watcher",
    None,
)
"""The method of asyncio's default policy; None where there are no watchers."""


def mark_coroutine_function(function: Any) -> None:
    """Let *function*, which is no ``async def``, count as a coroutine function all the same."""
    function._is_coroutine = getattr(coroutines, "_is_coroutine", None)
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)


Runner: Any = getattr(asyncio, "Runner", None)
"""``asyncio.Runner``; None before 3.11."""


def asyncio_policy() -> Optional[Any]:
    """Return asyncio's current policy, or None where asyncio has no policies."""
    return _get_policy() if _get_policy is not None and HAS_POLICIES else None


def set_asyncio_policy(policy: Optional[Any]) -> None:
    """Make *policy* asyncio's; None gives asyncio its default back.

    Does nothing where asyncio has no policies.
    """
    if _set_policy is not None and HAS_POLICIES:
        _set_policy(policy)


def replace_new_event_loop(factory: Callable[[], Any]) -> Callable[[], Any]:
    """Make *factory* what ``asyncio.new_event_loop`` is, and return what it was.

    The only door that asyncio leaves once policies are gone: ``asyncio.run`` and
    ``asyncio.Runner`` ask ``asyncio.events.new_event_loop`` for their loop. Called by
    ``install()`` and ``uninstall()`` alone, on Pythons without policies alone.
    """
    before = events.new_event_loop
    events.new_event_loop = asyncio.new_event_loop = factory
    return before
