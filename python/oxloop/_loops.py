"""The event loop classes: names and docstrings over what ``oxloop._native`` does."""

from __future__ import annotations

import functools
import sys
from typing import Any, Callable, Optional

from oxloop import _compat, _native, _watchers

if sys.platform == "win32":
    from oxloop._named_pipes import NamedPipes as _Base
    from oxloop._native import IocpProactor as Proactor
else:
    from asyncio import AbstractEventLoop as _Base

    from oxloop._native import IoUringProactor as Proactor


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
class _EventLoop(_native.EventLoop, _Base):  # type: ignore[misc]
    """What the loops share that is not native."""

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


class SelectorEventLoop(_EventLoop):
    """An event loop over the readiness interface of the system.

    *selector* chooses it: None for the most efficient one that the system has,
    ``selectors.EpollSelector()``, ``PollSelector()``, ``SelectSelector()`` or
    ``KqueueSelector()`` for the native backend of that kind. An instance of any other subclass
    of ``selectors.BaseSelector`` is used through its own methods. On Windows None stands for the
    completion port, which knows no limit of sockets, and has pipes and processes, too.

    A drop-in for ``asyncio.SelectorEventLoop``. A loop belongs to the thread that runs it; from
    another thread only ``call_soon_threadsafe`` may be called.
    """


class ProactorEventLoop(_EventLoop):
    """An event loop over the completion interface of the system: io_uring or a completion port.

    *proactor* says how it is used: an ``IoUringProactor`` on Linux, an ``IocpProactor`` on Windows,
    None for one with its defaults.

    Everything that ``SelectorEventLoop`` can do it can do, datagrams and ``add_reader`` included,
    and a loop belongs to the thread that runs it here, too.

    Raises ``TypeError`` for any other *proactor*, and ``RuntimeError`` with the reason where
    there is none: another system, an old kernel, a sandbox that forbids it, a limit on
    memory or descriptors. ``python -m oxloop info`` prints that reason.
    """

    def __init__(self, proactor: Optional[Proactor] = None) -> None:
        if proactor is None:
            proactor = Proactor()
        elif not isinstance(proactor, Proactor):
            raise TypeError(
                f"proactor must be an {Proactor.__name__} or None, not '{type(proactor).__name__}'"
            )
        self._init_proactor(proactor)
