"""What ``python -m oxloop info`` prints: version, build, and the backends with their reasons."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from oxloop import _compat, _native

if TYPE_CHECKING:
    from collections.abc import Iterator

_SELECTORS = {
    "epoll": "Linux has it",
    "kqueue": "macOS and FreeBSD have it",
    "poll": "Unix has it",
    "select": "every system has it",
}

_PROACTORS = {
    "io_uring": "not in this release",
    "iocp": "not in this release",
}


def lines() -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"oxloop {_native.__version__}"
    for name, value in _native.build_info().items():
        if name != "version":
            yield _row(name, value)
    yield _row("python", f"{platform.python_implementation()} {platform.python_version()}")
    yield _row("system", platform.platform())
    policies = "yes" if _compat.HAS_POLICIES else "no: removed from this Python"
    yield _row("policies", policies)
    yield ""
    yield "SelectorEventLoop"
    yield from _selectors()
    yield "ProactorEventLoop"
    for name, reason in _PROACTORS.items():
        yield _row(name, f"no: {reason}")


def _selectors() -> Iterator[str]:
    available = _native.selectors_available()
    for position, name in enumerate(available):
        yield _row(name, "yes, the default" if position == 0 else "yes")
    for name, owners in _SELECTORS.items():
        if name not in available:
            yield _row(name, f"no: {owners}, this is {sys.platform}")


def _row(name: str, value: str) -> str:
    return f"  {name:<13} {value}"
