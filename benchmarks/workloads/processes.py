"""Child processes: what starting one and waiting for its end costs the parent."""

from __future__ import annotations

import asyncio
import shutil

from workloads.model import InLoop, Workload

PROGRAM = shutil.which("true") or "true"


async def _one_by_one(count: int) -> None:
    for _ in range(count):
        process = await asyncio.create_subprocess_exec(PROGRAM)
        await process.wait()


async def _at_once(count: int) -> None:
    await asyncio.gather(*(_one_by_one(1) for _ in range(count)))


async def _with_output(count: int) -> None:
    for _ in range(count):
        process = await asyncio.create_subprocess_exec(PROGRAM, stdout=asyncio.subprocess.PIPE)
        await process.communicate()


WORKLOADS: tuple[Workload, ...] = (
    InLoop("process_exec_wait", "processes", body=_one_by_one, batch=20),
    InLoop("process_exec_wait_50", "processes", body=_at_once, batch=50),
    InLoop("process_communicate", "processes", body=_with_output, batch=20),
)
