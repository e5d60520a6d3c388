"""Tasks and futures: what coroutines cost when they wait on each other and not on I/O."""

from __future__ import annotations

import asyncio

from workloads.model import InLoop, Workload

SLEEPERS = 100  # tasks that are ready in the same turn
GATHERED = 100  # coroutines in one gather


async def _trivial() -> None:
    pass


async def _sleep0(count: int) -> None:
    """An operation is one `sleep(0)` of one of a hundred tasks."""

    async def sleeper() -> None:
        for _ in range(count // SLEEPERS):
            await asyncio.sleep(0)

    await asyncio.wait([asyncio.ensure_future(sleeper()) for _ in range(SLEEPERS)])


async def _gather(count: int) -> None:
    """An operation is one coroutine gathered, among a hundred."""
    for _ in range(count // GATHERED):
        await asyncio.gather(*[_trivial() for _ in range(GATHERED)])


async def _queue(count: int) -> None:
    """An operation is one item put and got through a bounded queue between two tasks."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=10)

    async def produce() -> None:
        for item in range(count):
            await queue.put(item)

    producer = asyncio.ensure_future(produce())
    for _ in range(count):
        await queue.get()
    await producer


async def _create_task(count: int) -> None:
    """An operation is a task created and awaited."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.create_task(_trivial())


async def _future(count: int) -> None:
    """An operation is a future whose result a callback sets while a task waits for it."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


WORKLOADS: tuple[Workload, ...] = (
    InLoop("task_sleep0", "tasks", body=_sleep0, batch=20_000),
    InLoop("task_gather", "tasks", body=_gather, batch=10_000),
    InLoop("task_queue", "tasks", body=_queue, batch=20_000),
    InLoop("create_task", "tasks", body=_create_task, batch=5_000),
    InLoop("future_wakeup", "tasks", body=_future, batch=10_000),
)
