"""asyncio's event loops in Rust.

``oxloop.run(main())`` runs a program on them; ``oxloop.install()`` makes asyncio's own functions
give them; ``python -m oxloop script.py`` runs a program that knows nothing of oxloop. Importing
this package changes nothing in asyncio.
"""

import sys
from asyncio import AbstractEventLoop, Handle, TimerHandle, get_running_loop

from oxloop._loops import ProactorEventLoop, SelectorEventLoop
from oxloop._native import IoUringProactor, Server, __version__
from oxloop._policy import (
    AbstractEventLoopPolicy,
    DefaultEventLoopPolicy,
    EventLoopPolicy,
    get_child_watcher,
    get_event_loop,
    get_event_loop_policy,
    new_event_loop,
    set_child_watcher,
    set_event_loop,
    set_event_loop_policy,
)
from oxloop._runner import install, run, uninstall
from oxloop._watchers import AbstractChildWatcher

if sys.platform == "win32":
    from oxloop._native import IocpProactor
    from oxloop._policy import WindowsProactorEventLoopPolicy, WindowsSelectorEventLoopPolicy

__all__: tuple[str, ...] = (
    "AbstractChildWatcher",
    "AbstractEventLoop",
    "AbstractEventLoopPolicy",
    "DefaultEventLoopPolicy",
    "EventLoopPolicy",
    "Handle",
    "IoUringProactor",
    "ProactorEventLoop",
    "SelectorEventLoop",
    "Server",
    "TimerHandle",
    "__version__",
    "get_child_watcher",
    "get_event_loop",
    "get_event_loop_policy",
    "get_running_loop",
    "install",
    "new_event_loop",
    "run",
    "set_child_watcher",
    "set_event_loop",
    "set_event_loop_policy",
    "uninstall",
)

if sys.platform == "win32":
    __all__ += (
        "IocpProactor",
        "WindowsProactorEventLoopPolicy",
        "WindowsSelectorEventLoopPolicy",
    )
