"""The event loop classes: names and docstrings over what ``oxloop._native`` does."""

from __future__ import annotations

import asyncio
from typing import NoReturn, Optional

from oxloop import _native, _watchers


# misc: typeshed promises asyncio's own Server class.
class SelectorEventLoop(_native.EventLoop, asyncio.AbstractEventLoop):  # type: ignore[misc]
    """An event loop over the readiness interface of the system.

    *selector* chooses it: None for the most efficient one that the system has,
    ``selectors.EpollSelector()``, ``PollSelector()``, ``SelectSelector()`` or
    ``KqueueSelector()`` for the native backend of that kind. An instance of any other subclass
    of ``selectors.BaseSelector`` is used through its own methods.

    A drop-in for ``asyncio.SelectorEventLoop``. A loop belongs to the thread that runs it; from
    another thread only ``call_soon_threadsafe`` may be called.
    """

    def _child_watcher(self) -> Optional[_watchers.AbstractChildWatcher]:
        """Return the watcher that was chosen; None: the loop watches the child by its pidfd."""
        return _watchers.Choice.find()

    def _waiting_child_watcher(self) -> _watchers.AbstractChildWatcher:
        """Return what watches a child that the loop cannot watch."""
        return _watchers.ThreadedChildWatcher()


class ProactorEventLoop(asyncio.AbstractEventLoop):
    """An event loop over the completion interface of the system.

    Not available in this release: the constructor raises ``RuntimeError``.
    """

    def __init__(self, proactor: object = None) -> NoReturn:  # noqa: ARG002 - asyncio's
        raise RuntimeError(
            "ProactorEventLoop is not available in this release of oxloop; "
            "use oxloop.SelectorEventLoop"
        )
