"""The loop's and the server's methods take what those of the running asyncio take."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Callable, Iterator

import pytest


def public_methods(owner: type) -> Iterator[str]:
    names = (name for name in dir(owner) if not name.startswith("_"))
    return (name for name in names if callable(getattr(owner, name)))


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(function).parameters)
    found.pop("self", None)
    return found


def compare(ours: Callable[..., Any], asyncios: Callable[..., Any]) -> None:
    mine, theirs = parameters(ours), parameters(asyncios)
    takes_any_keyword = any(p.kind is p.VAR_KEYWORD for p in mine.values())
    for name, parameter in theirs.items():
        if parameter.default is getattr(asyncio.base_events, "_unset", mine):
            continue  # taken, but its default cannot be said: `reuse_address` before Python 3.11
        if name not in mine:
            assert takes_any_keyword, f"lacks {parameter}"
            continue
        assert mine[name].kind == parameter.kind, parameter
        assert mine[name].default == parameter.default, parameter
    positional = [
        [name for name, p in found.items() if p.kind <= p.POSITIONAL_OR_KEYWORD]
        for found in (mine, theirs)
    ]
    given = len(positional[1])
    assert positional[0][:given] == positional[1][: len(positional[0])]


@pytest.mark.parametrize("name", sorted(public_methods(asyncio.SelectorEventLoop)))
def test_loop(oxloop: Any, name: str) -> None:
    for kind in (oxloop.SelectorEventLoop, oxloop.ProactorEventLoop):
        compare(getattr(kind, name), getattr(asyncio.SelectorEventLoop, name))


@pytest.mark.parametrize("name", sorted(public_methods(asyncio.Server)))
def test_server(oxloop: Any, name: str) -> None:
    compare(getattr(oxloop.Server, name), getattr(asyncio.Server, name))


def test_keywords_are_accepted(oxloop: Any) -> None:
    """The signatures are not only said."""
    loop = oxloop.SelectorEventLoop()
    called = []
    try:
        loop.call_soon(callback=lambda: called.append("soon"))
        loop.call_soon_threadsafe(callback=lambda: called.append("threadsafe"))
        loop.call_later(delay=0, callback=lambda: called.append("later"))
        loop.call_at(when=loop.time(), callback=loop.stop)
        loop.run_forever()
    finally:
        loop.close()
    assert called == ["soon", "threadsafe", "later"]
