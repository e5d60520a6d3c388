"""What ``python -m oxloop info`` prints: version, build, and the backends with their reasons."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

from oxloop import _compat, _native, _policy

if TYPE_CHECKING:
    from collections.abc import Iterator

_SELECTORS = {
    "epoll": "Linux has it",
    "kqueue": "macOS and FreeBSD have it",
    "poll": "Unix has it",
    "select": "every system has it",
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
    yield _row("default loop", _default_loop())
    yield ""
    yield "SelectorEventLoop"
    yield from _selectors()
    yield "ProactorEventLoop"
    reason = _native.proactor_unavailable()
    here = "yes" if reason is None else f"no: {reason}"
    elsewhere = f"this is {sys.platform}"
    if sys.platform == "win32":
        yield _row("iocp", here)
        yield _row("io_uring", f"no: Linux has it, {elsewhere}")
    else:
        yield _row("io_uring", here)
        yield _row("iocp", f"no: Windows has it, {elsewhere}")


def _selectors() -> Iterator[str]:
    available = _native.selectors_available()
    default = available[0]
    if sys.platform == "win32":
        default = "iocp"  # by which the selector loop is told of readiness
        yield _row(default, "yes, the default")
    for name in available:
        yield _row(name, "yes, the default" if name == default else "yes")
    for name, owners in _SELECTORS.items():
        if name not in available:
            yield _row(name, f"no: {owners}, this is {sys.platform}")


def _default_loop() -> str:
    try:
        name = _policy.default_loop_class().__name__
    except ValueError as error:
        return f"none: {error}"
    chosen = os.environ.get(_policy.LOOP_VARIABLE)
    return f"{name}, chosen by {_policy.LOOP_VARIABLE}" if chosen else name


def _row(name: str, value: str) -> str:
    return f"  {name:<13} {value}"
