"""Descriptors that the program watches itself: `add_reader` and `remove_reader`."""

from __future__ import annotations

import asyncio
import socket

from workloads.model import InLoop, Workload


def _nothing() -> None:
    pass


async def _churn(count: int) -> None:
    """Add a reader and remove it again, without a turn of the loop between."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for _ in range(count):
            loop.add_reader(ours, _nothing)
            loop.remove_reader(ours)


async def _cycle(count: int) -> None:
    """Add a reader on a descriptor that is readable; its callback removes it and wakes a task."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()

    def readable(waiter: asyncio.Future[None]) -> None:
        loop.remove_reader(ours)
        waiter.set_result(None)

    with ours, theirs:
        theirs.send(b"x")
        for _ in range(count):
            waiter = loop.create_future()
            loop.add_reader(ours, readable, waiter)
            await waiter


WORKLOADS: tuple[Workload, ...] = (
    InLoop("reader_churn", "watching", body=_churn, batch=5_000),
    InLoop("reader_cycle", "watching", body=_cycle, batch=5_000),
)
