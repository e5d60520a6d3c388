"""What a workload is: declarations only; `worker.py` carries them out.

Each workload names its operation, so that "per operation" means the same for every loop. Bodies
use asyncio's public interface only and never look at which loop runs them.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Union

if TYPE_CHECKING:
    from collections.abc import Awaitable

# What a started server is: the worker keeps it alive and asks it where it listens.
Listening = Union[asyncio.base_events.Server, socket.socket]


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    `name` is unique and what --filter matches; `group` heads a part of the table.
    """

    name: str
    group: str


@dataclass(frozen=True)
class InLoop(Workload):
    """A coroutine that performs `batch` operations inside a running loop, again and again."""

    body: Callable[[int], Awaitable[None]]
    batch: int


@dataclass(frozen=True)
class AroundLoop(Workload):
    """A function that performs `batch` operations on loops it makes itself."""

    body: Callable[[Callable[[], asyncio.AbstractEventLoop], int], None]
    batch: int


@dataclass(frozen=True)
class Load:
    """What the load generator does to a server.

    echo: each connection sends `size` bytes, waits for all of them, and repeats; an operation is a
    message. connect: connect, one such message, close; an operation is a connection. upload: send
    without end; an operation is a MiB. With `tls` all of it is encrypted, a connection's handshake
    included.
    """

    mode: str
    size: int
    connections: int
    tls: bool = False


@dataclass(frozen=True)
class Server(Workload):
    """A server that a load generator on another core drives; its own process's CPU counts."""

    serve: Callable[[], Awaitable[Listening]]
    load: Load


@dataclass(frozen=True)
class IdleMemory(Workload):
    """Resident memory of a server per connection that has echoed one message and is idle."""

    serve: Callable[[], Awaitable[Listening]]
    connections: int
    tls: bool = False


@dataclass(frozen=True)
class Lateness(Workload):
    """How late a sleep of `delay` seconds wakes up on an otherwise idle loop."""

    delay: float
