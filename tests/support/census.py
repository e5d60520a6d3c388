"""Counts what a process holds, to see that what is done often leaves nothing behind."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from dataclasses import dataclass
from typing import Awaitable, Callable

from support.backends import GIL
from support.open_files import open_files
from support.platforms import WINDOWS, WINE
from support.running import turns

#: How many rounds are counted. Under Wine, where one takes ten times as long, also fewer tell.
ROUNDS = 250 if WINE else 1000

#: So many rounds fill caches and free lists.
WARM_UP = 500


class MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
        )
    ]


def malloced() -> int:
    """The bytes that malloc() has given out, which native code leaks unseen by Python's collector.

    Zero where the C library cannot tell.
    """
    mallinfo2 = None if WINDOWS else getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = MallInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


@dataclass(frozen=True)
class Census:
    """What is there at one moment."""

    descriptors: int
    tasks: int
    objects: int
    blocks: int
    malloced: int

    @classmethod
    def take(cls) -> Census:
        """Count, after the collector has run."""
        gc.collect()
        return cls(
            descriptors=len(open_files()),
            tasks=len(asyncio.all_tasks()),
            objects=len(gc.get_objects()),
            blocks=sys.getallocatedblocks(),
            malloced=malloced(),
        )


async def assert_flat(once: Callable[[], Awaitable[object]], count: int = ROUNDS) -> None:
    """Do something `count` times and find that nothing has grown with it.

    Caches and free lists fill at first, so half as many go before, and not few (more without a GIL,
    where each thread has its own), and what leaks has to grow in both halves of what is counted.
    """
    half = count // 2
    for _ in range(max(half, WARM_UP) if GIL else 5 * half):
        await once()
    await turns(3)
    counts = [Census.take()]
    for _ in range(2):
        for _ in range(half):
            await once()
        await turns(3)
        counts.append(Census.take())
    first, second, third = counts
    assert first.descriptors == second.descriptors == third.descriptors
    assert first.tasks == second.tasks == third.tasks

    def growth(name: str) -> int:
        sizes = [getattr(census, name) for census in counts]
        return int(min(sizes[1] - sizes[0], sizes[2] - sizes[1]))

    # A leak of one small thing in each round is well above these.
    assert growth("objects") < half // 2, counts
    assert growth("blocks") < half, counts
    assert growth("malloced") < 8192 + half * 16, counts
