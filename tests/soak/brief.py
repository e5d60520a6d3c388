"""Each lifecycle a few rounds, always the same ones: for the test suite."""

from __future__ import annotations

import asyncio
import gc
import traceback
from typing import Any, Callable, List, NamedTuple

from soak.holdings import links_of_descriptors, settle
from soak.lifecycle import LIFECYCLES
from soak.spree import Spree, prepared

ROUNDS = 10
INTERVALS = 6  # at most: as long as something has grown in each


class Count(NamedTuple):
    """What a lifecycle may leave behind."""

    descriptors: int
    tasks: int
    objects: int

    @classmethod
    def take(cls) -> Count:
        """Count, after what is on its way out has gone."""
        settle()
        objects = gc.get_objects()
        tasks = sum(isinstance(thing, asyncio.Task) for thing in objects)
        return cls(len(links_of_descriptors()), tasks, len(objects))


def grown(counts: List[Count]) -> List[str]:
    """What has grown in each interval; caches that fill do so in some."""
    least = {"descriptors": 0, "tasks": 0, "objects": ROUNDS // 2}
    steps = [
        [getattr(after, name) - getattr(before, name) for before, after in zip(counts, counts[1:])]
        for name in Count._fields
    ]
    return [
        f"{name} +{found}" for name, found in zip(Count._fields, steps) if min(found) > least[name]
    ]


def examine(new_loop: Callable[[], Any], name: str, leaves: bool) -> str:
    """Run one lifecycle alone, and say what is wrong; "" if nothing is."""
    spree = Spree(new_loop, [name], seed=1, leaves=leaves)
    spree.use_a_loop(ROUNDS)
    counts = [Count.take()]
    while len(counts) <= INTERVALS:
        spree.use_a_loop(ROUNDS)
        counts.append(Count.take())
        if len(counts) > 2 and not grown(counts):
            return ""
    return f"{name}: {grown(counts)}"


def main(new_loop: Callable[[], Any], group: str, *, leaves: bool) -> None:
    """Examine the lifecycles of a group and print what is wrong."""
    gc.collect()
    gc.freeze()  # what was imported: it need not be looked at each time
    for name, kind in LIFECYCLES.items():
        if kind.group != group:
            continue
        with prepared():
            try:
                wrong = examine(new_loop, name, leaves)
            except Exception:
                wrong = f"{name}: {traceback.format_exc()}"
        print(wrong, end="\n" if wrong else "", flush=True)
