"""The loops under test: stdlib asyncio, which is the oracle, and oxloop on each of its selectors."""

from __future__ import annotations

import asyncio
import importlib
import pathlib
import selectors
import sys
from dataclasses import dataclass
from typing import Any, Optional

from support.user_selectors import UserSelector

PY310 = sys.version_info >= (3, 10)
PY311 = sys.version_info >= (3, 11)
PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
PY314 = sys.version_info >= (3, 14)
#: Whether one thread at a time runs Python code (`sys._is_gil_enabled` is new in Python 3.13).
GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


@dataclass(frozen=True)
class Backend:
    """A kind of loop: the package whose names make it, and the selector class it is given."""

    name: str
    package: str
    selector: Optional[str] = None

    @property
    def is_oracle(self) -> bool:
        """True for stdlib asyncio."""
        return self.package == "asyncio"

    def module(self) -> Any:
        """The package under test, imported."""
        return importlib.import_module(self.package)

    def new_loop(self) -> Any:
        """A fresh loop of this kind."""
        make = self.module().SelectorEventLoop
        return make() if self.selector is None else make(self._new_selector())

    def _new_selector(self) -> selectors.BaseSelector:
        found: selectors.BaseSelector = SELECTORS[str(self.selector)]()
        return found

    def oracle_loop(self) -> Any:
        """A fresh loop of stdlib asyncio on the same kind of selector."""
        selector = None if self.selector is None else self._new_selector()
        return asyncio.SelectorEventLoop(selector)

    @property
    def source(self) -> str:
        """Python source that defines ``new_loop``, for a child process."""
        selector = ""
        if self.selector is not None:
            make = SELECTORS[self.selector]
            selector = f"{make.__module__}.{make.__name__}()"
        folder = str(pathlib.Path(__file__).parents[1])
        return (
            f"import sys; sys.path.append({folder!r})\n"
            f"import selectors, support.user_selectors, {self.package}\n"
            f"def new_loop():\n    return {self.package}.SelectorEventLoop({selector})\n"
        )


SELECTORS = {
    make.__name__: make
    for make in (
        selectors.EpollSelector,
        selectors.PollSelector,
        selectors.SelectSelector,
        UserSelector,
    )
}

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("asyncio", "asyncio"),
        Backend("epoll", "oxloop", "EpollSelector"),
        Backend("poll", "oxloop", "PollSelector"),
        Backend("select", "oxloop", "SelectSelector"),
        Backend("user", "oxloop", "UserSelector"),
    )
}

# "user" is for --backend alone: its waits are those of Python's select(), its turns asyncio's pace.
DEFAULT_BACKENDS = ("asyncio", "epoll", "poll", "select")
