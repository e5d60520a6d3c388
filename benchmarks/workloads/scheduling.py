"""Callbacks: `call_soon` one at a time and in batches, and the life of the loop itself."""

from __future__ import annotations

import asyncio
from typing import Callable

from workloads.model import AroundLoop, InLoop, Workload


def _nothing() -> None:
    pass


async def _trivial() -> None:
    pass


async def _chain(count: int) -> None:
    """Each callback schedules the next: one callback in each turn."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done


async def _batch(count: int) -> None:
    """All callbacks in one turn."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    for _ in range(count - 1):
        loop.call_soon(_nothing)
    loop.call_soon(done.set_result, None)
    await done


def _run_until_complete(make: Callable[[], asyncio.AbstractEventLoop], count: int) -> None:
    loop = make()
    for _ in range(count):
        loop.run_until_complete(_trivial())
    loop.close()


def _create_close(make: Callable[[], asyncio.AbstractEventLoop], count: int) -> None:
    for _ in range(count):
        make().close()


WORKLOADS: tuple[Workload, ...] = (
    InLoop("call_soon_chain", "scheduling", body=_chain, batch=20_000),
    InLoop("call_soon_batch", "scheduling", body=_batch, batch=1_000),
    AroundLoop("run_until_complete", "scheduling", body=_run_until_complete, batch=2_000),
    AroundLoop("loop_create_close", "scheduling", body=_create_close, batch=200),
)
