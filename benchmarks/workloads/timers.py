"""Timers: many at once, mostly cancelled (timeouts) or all fired; accuracy of one."""

from __future__ import annotations

import asyncio
import sys

from workloads.model import InLoop, Lateness, Workload

# Deadlines are spread over this many seconds, in an order that a heap has to sort.
SPREAD = 0.1
STRIDE = 7919  # prime: visits every slot before it repeats


async def _set_and_fire(count: int, keep_every: int) -> None:
    """Set `count` timers, cancel all but one in `keep_every`, wait until those have fired."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    kept = [index for index in range(count) if index % keep_every == 0]
    left = len(kept)

    def fired() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    handles = [
        loop.call_later(index * STRIDE % count * SPREAD / count, fired) for index in range(count)
    ]
    for index, handle in enumerate(handles):
        if index % keep_every:
            handle.cancel()
    await done


async def _cancelled(count: int) -> None:
    await _set_and_fire(count, 10)


async def _fired(count: int) -> None:
    await _set_and_fire(count, 1)


async def _timeout(count: int) -> None:
    """A timeout around one turn of the loop: the timer is set and cancelled, never fires."""
    for _ in range(count):
        async with asyncio.timeout(10):  # type: ignore[attr-defined,unused-ignore]
            await asyncio.sleep(0)


# asyncio.timeout came with 3.11.
TIMEOUT = (
    (InLoop("timeout", "timers", body=_timeout, batch=5_000),)
    if sys.version_info >= (3, 11)
    else ()
)

WORKLOADS: tuple[Workload, ...] = (
    InLoop("timers_cancelled", "timers", body=_cancelled, batch=100_000),
    InLoop("timers_fired", "timers", body=_fired, batch=100_000),
    *TIMEOUT,
    Lateness("sleep_lateness", "timers", delay=0.0012),
)
