"""What a process holds at one moment, and whether that grows.

The rule of `growth`: the first quarter of the samples is warm-up. Of the rest, the median of the first
third is compared with the median of the last. Descriptors, sockets, threads and children may not grow
at all, objects, blocks and memory by no more than a tolerance, since caches and the heap's
fragmentation go on for a while.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from support.census import malloced

#: By what share of the first median, and by how much at least, each of these may grow.
TOLERANCES: Dict[str, Tuple[float, float]] = {
    "descriptors": (0, 0),
    "sockets": (0, 0),
    "threads": (0, 0),
    "children": (0, 0),
    "objects": (0.005, 100),
    "blocks": (0.005, 300),
    "malloced": (0.02, 256 * 1024),
    "resident": (0.03, 2 << 20),
}


class Holdings(NamedTuple):
    """What there is at one moment; memory in bytes."""

    descriptors: int
    sockets: int
    threads: int
    children: int
    objects: int
    blocks: int
    malloced: int
    resident: int

    @classmethod
    def take(cls) -> Holdings:
        """Count, after what is on its way out has gone."""
        settle()
        links = links_of_descriptors()
        return cls(
            descriptors=len(links),
            sockets=sum(link.startswith("socket:") for link in links),
            threads=len(os.listdir("/proc/self/task")),
            children=len(children()),
            objects=len(gc.get_objects()),
            blocks=sys.getallocatedblocks(),
            malloced=malloced(),
            resident=resident(),
        )


def links_of_descriptors() -> List[str]:
    """What each descriptor of this process is."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the listing's own
            continue
    return found


def children() -> List[str]:
    """The numbers of the child processes, zombies included."""
    found: List[str] = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                found += file.read().split()
        except OSError:
            continue
    return found


def resident() -> int:
    """The resident set, proc(5), without the free pages that malloc() keeps: how many is chance.

    One small piece that lives on at the end of the heap keeps all of it (malloc_trim(3)).
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def settle(limit: float = 5) -> None:
    """Collect, and wait for threads and children that nobody holds any more."""
    end = time.monotonic() + limit
    while True:
        gc.collect()
        # What Popen does with children whose object was dropped before they ended.
        subprocess._cleanup()  # type: ignore[attr-defined]
        if (threading.active_count() == 1 and not children()) or time.monotonic() > end:
            gc.collect()
            return
        time.sleep(0.01)


def types_of_objects() -> Dict[str, int]:
    """How many objects of each type the collector knows."""
    counts: Dict[str, int] = collections.Counter(
        f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects()
    )
    return dict(counts)


def growth(samples: Sequence[Any], names: Sequence[str] = Holdings._fields) -> Dict[str, Any]:
    """What has grown by more than its tolerance: name to (first median, last median)."""
    counted = samples[len(samples) // 4 :]
    third = max(len(counted) // 3, 1)
    grown = {}
    for name in names:
        sizes = [getattr(sample, name) for sample in counted]
        first, last = statistics.median(sizes[:third]), statistics.median(sizes[-third:])
        share, least = TOLERANCES[name]
        if last - first > max(first * share, least):
            grown[name] = (first, last)
    return grown
