"""Runs coroutines to their end on a loop, and leaves nothing of them behind."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable

Main = Callable[[], Awaitable[Any]]
NewLoop = Callable[[], Any]
Run = Callable[..., Any]


def finish(loop: Any) -> None:
    """Cancel what still runs on `loop`, shut its generators and executor down, and close it."""
    if loop.is_closed():
        return
    loop.set_task_factory(None)
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def turns(count: int = 1) -> None:
    """Let the loop make `count` turns."""
    for _ in range(count):
        await asyncio.sleep(0)
