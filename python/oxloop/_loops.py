"""The event loop classes: names and docstrings over what ``oxloop._native`` does."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Callable, NoReturn, Optional

from oxloop import _compat, _native, _watchers


def _coroutine_function(native: Callable[..., Any]) -> Any:
    """Return the method *native* as one that tools take for a coroutine function.

    ``unittest.mock`` mocks those in another way. A native method has no place for the mark.
    """

    @functools.wraps(native)
    def method(*args: Any, **kwargs: Any) -> Any:
        return native(*args, **kwargs)

    _compat.mark_coroutine_function(method)
    return method


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

    # Not those of sockets and pipes: they are called often, and a Python function has its price.
    for _name in (
        "connect_accepted_socket",
        "create_connection",
        "create_datagram_endpoint",
        "create_server",
        "create_unix_connection",
        "create_unix_server",
        "getaddrinfo",
        "getnameinfo",
        "sendfile",
        "shutdown_asyncgens",
        "shutdown_default_executor",
        "start_tls",
        "subprocess_exec",
        "subprocess_shell",
    ):
        locals()[_name] = _coroutine_function(getattr(_native.EventLoop, _name))
    del _name

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
