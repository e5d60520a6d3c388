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

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

# Measured unless --loops says otherwise, in the order of the table.
DEFAULT_LOOPS = ("asyncio", "uvloop", "oxloop")

# oxloop on the other selectors of the platform: "oxloop:poll" and so on.
SELECTORS = {
    "epoll": "EpollSelector",
    "kqueue": "KqueueSelector",
    "poll": "PollSelector",
    "select": "SelectSelector",
}


def factory(name: str) -> LoopFactory:
    """Return the function that makes a loop of that name; ImportError if it is not installed."""
    package, _, selector = name.partition(":")
    if package == "asyncio":
        return asyncio.SelectorEventLoop
    module = importlib.import_module(package)
    if selector:
        kind: Callable[[], object] = getattr(selectors, SELECTORS[selector])
        return lambda: module.SelectorEventLoop(kind())
    made: LoopFactory = module.new_event_loop
    return made


def installed(name: str) -> bool:
    """Say whether the package behind a loop's name can be imported."""
    return importlib.util.find_spec(name.partition(":")[0]) is not None


def version(name: str) -> str:
    """Return the version of the package behind a loop's name, the interpreter's for asyncio."""
    package = name.partition(":")[0]
    if package == "asyncio":
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # Imported from where it was built.
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))
