"""Which libraries there are, and what a process can say about them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata
from typing import Dict, List, Tuple

#: The loops that are run on; the first is the reference.
LOOPS = ("asyncio", "oxloop", "oxloop-proactor")


def package_of(loop: str) -> str:
    """The package that makes a loop."""
    return loop.partition("-")[0]


def kind_of(loop: str) -> str:
    """What OXLOOP_LOOP is for a loop: "proactor", "selector", or '' if it is not ours."""
    package, _, kind = loop.partition("-")
    return kind or ("selector" if package == "oxloop" else "")


@dataclass(frozen=True)
class Library:
    """One row of the table: a distribution, its module of checks, the service that it needs."""

    distribution: str
    needs: Tuple[str, ...] = ()  # other distributions without which its checks say nothing
    service: str = ""

    @property
    def module(self) -> str:
        """The module of its checks."""
        return "tests.downstream.with_" + self.distribution.replace("-", "_")

    def version(self) -> str:
        """The version that is installed, '' if it or what it needs is not."""
        try:
            for name in self.needs:
                metadata.version(name)
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return ""

    def checks(self) -> List[str]:
        """The names of its checks, in the order in which they are written."""
        names = vars(importlib.import_module(self.module))
        return [name for name in names if name.startswith("check_")]


_ALL = (
    Library("uvicorn", needs=("httptools", "websockets")),
    Library("hypercorn", needs=("httpx",)),
    Library("aiohttp"),
    Library("websockets"),
    Library("httpx", needs=("h2", "hypercorn")),
    Library("asyncpg", service="postgres"),
    Library("psycopg", needs=("psycopg-pool",), service="postgres"),
    Library("redis", service="redis"),
    Library("grpcio"),
    Library("pytest-asyncio"),
    Library("anyio"),
)

LIBRARIES: Dict[str, Library] = {library.distribution: library for library in _ALL}
