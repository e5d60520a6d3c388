"""The loops under test: stdlib asyncio, which is the oracle, and oxloop on each of its selectors."""

from __future__ import annotations

import asyncio
import importlib
import selectors
import sys
from dataclasses import dataclass
from typing import Any, Optional

PY310 = sys.version_info >= (3, 10)
PY311 = sys.version_info >= (3, 11)
PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
PY314 = sys.version_info >= (3, 14)


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
        return make() if self.selector is None else make(getattr(selectors, self.selector)())

    def oracle_loop(self) -> Any:
        """A fresh loop of stdlib asyncio on the same kind of selector."""
        selector = None if self.selector is None else getattr(selectors, self.selector)()
        return asyncio.SelectorEventLoop(selector)

    @property
    def source(self) -> str:
        """Python source that defines ``new_loop``, for a child process."""
        selector = "" if self.selector is None else f"selectors.{self.selector}()"
        return (
            f"import selectors, {self.package}\n"
            f"def new_loop():\n    return {self.package}.SelectorEventLoop({selector})\n"
        )


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("asyncio", "asyncio"),
        Backend("epoll", "oxloop", "EpollSelector"),
        Backend("poll", "oxloop", "PollSelector"),
        Backend("select", "oxloop", "SelectSelector"),
    )
}
