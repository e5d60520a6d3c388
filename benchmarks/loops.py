"""The loops that can be measured: how each is made, and which are installed here.

A worker imports exactly one of them, so that no loop is measured in a process that another one
has touched.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import platform
import selectors
from typing import Callable

PROACTOR = "oxloop-proactor"
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# Measured unless --loops says otherwise, in the order of the table.
DEFAULT_LOOPS = ("asyncio", "uvloop", "oxloop", "oxloop-proactor")

# oxloop on the other selectors of the platform: "oxloop:poll" and so on.
SELECTORS = {
    "epoll": "EpollSelector",
    "kqueue": "KqueueSelector",
    "poll": "PollSelector",
    "select": "SelectSelector",
}


def factory(name: str) -> LoopFactory:
    """Return the function that makes a loop of that name; ImportError if it is not installed."""
    _, _, selector = name.partition(":")
    package = _package(name)
    if package == "asyncio":
        return asyncio.SelectorEventLoop
    module = importlib.import_module(package)
    if name == PROACTOR:
        proactor: LoopFactory = module.ProactorEventLoop
        return proactor
    if selector:
        kind: Callable[[], object] = getattr(selectors, SELECTORS[selector])
        return lambda: module.SelectorEventLoop(kind())
    made: LoopFactory = module.new_event_loop
    return made


def _package(name: str) -> str:
    return "oxloop" if name == PROACTOR else name.partition(":")[0]


def installed(name: str) -> bool:
    """Say whether a loop can be made here: its package is there, and what its package needs."""
    if importlib.util.find_spec(_package(name)) is None:
        return False
    if name != PROACTOR:
        return True
    return importlib.import_module("oxloop._native").proactor_unavailable() is None


def version(name: str) -> str:
    """Return the version of the package behind a loop's name, the interpreter's for asyncio."""
    package = _package(name)
    if package == "asyncio":
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Imported from where it was built.
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))
