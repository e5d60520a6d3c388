"""The loops under test: stdlib asyncio, which is the oracle, and oxloop's on each selector and proactor.

On Windows asyncio's own loop is its ProactorEventLoop, which has most of what is tested, and the other
one is the backend `asyncio-selector`; oxloop's `selector` is the loop that was given none.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import pathlib
import selectors
import sys
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from support.platforms import WINDOWS
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
    """A kind of loop: the package whose names make it, the selector it is given, and its class."""

    name: str
    package: str
    selector: Optional[str] = None
    class_name: str = "SelectorEventLoop"

    @property
    def is_oracle(self) -> bool:
        """True for stdlib asyncio."""
        return self.package == "asyncio"

    def module(self) -> Any:
        """The package under test, imported."""
        return importlib.import_module(self.package)

    @property
    def is_proactor(self) -> bool:
        """True for a loop that has no selector."""
        return self.class_name == "ProactorEventLoop"

    @property
    def has_pipes(self) -> bool:
        """False for asyncio's SelectorEventLoop on Windows, and oxloop's over a given selector."""
        return not WINDOWS or self.is_proactor or self.name == "selector"

    def loop_class(self) -> Any:
        """The class of its loops."""
        return getattr(self.module(), self.class_name)

    def new_loop(self) -> Any:
        """A fresh loop of this kind."""
        make = self.loop_class()
        return make() if self.selector is None else make(self._new_selector())

    def _new_selector(self) -> selectors.BaseSelector:
        found: selectors.BaseSelector = SELECTORS[str(self.selector)]()
        return found

    def oracle_loop(self) -> Any:
        """A fresh loop of stdlib asyncio on the same kind of selector, for a proactor on the best."""
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
            f"def new_loop():\n    return {self.package}.{self.class_name}({selector})\n"
        )


SELECTORS = {
    name: getattr(selectors, name)
    for name in ("EpollSelector", "PollSelector", "SelectSelector")
    if hasattr(selectors, name)
}
SELECTORS["UserSelector"] = UserSelector

BACKENDS_OF_UNIX = (
    Backend("asyncio", "asyncio"),
    Backend("epoll", "oxloop", "EpollSelector"),
    Backend("poll", "oxloop", "PollSelector"),
    Backend("select", "oxloop", "SelectSelector"),
    Backend("proactor", "oxloop", class_name="ProactorEventLoop"),
    Backend("user", "oxloop", "UserSelector"),
    Backend("best", "oxloop"),
)

BACKENDS_OF_WINDOWS = (
    Backend("asyncio", "asyncio", class_name="ProactorEventLoop"),
    Backend("asyncio-selector", "asyncio"),
    Backend("proactor", "oxloop", class_name="ProactorEventLoop"),
    Backend("selector", "oxloop"),
    Backend("select", "oxloop", "SelectSelector"),
    Backend("user", "oxloop", "UserSelector"),
)

BACKENDS = {
    backend.name: backend for backend in (BACKENDS_OF_WINDOWS if WINDOWS else BACKENDS_OF_UNIX)
}


#: The class of the loop that a program gets which chooses none.
DEFAULT_LOOP = "ProactorEventLoop" if WINDOWS else "SelectorEventLoop"


@functools.cache
def proactor_unavailable() -> Optional[str]:
    """Why there is no proactor here, None if there is one."""
    reason: Optional[str] = importlib.import_module("oxloop._native").proactor_unavailable()
    return reason


def default_backends() -> Tuple[str, ...]:
    """What the tests run on unless they are told.

    "user" is for --backend alone: its waits are those of Python's select(), its turns asyncio's pace.
    So is "best", what a loop takes by itself: one of the others, but for a kqueue.
    """
    chosen = [name for name in BACKENDS if name not in ("user", "best")]
    if proactor_unavailable():
        chosen.remove("proactor")
    return tuple(chosen)
