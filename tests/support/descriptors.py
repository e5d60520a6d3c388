"""A process that may open no further descriptor: a limit that Unix has."""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Iterator

#: How many descriptors are left by `few_descriptors`.
FEW = 100


@contextlib.contextmanager
def few_descriptors() -> Iterator[None]:
    """Let the process have but few descriptors more than it has."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + FEW, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[Callable[[], None]]:
    """Let the process open no further descriptor until the block or the given callable ends it.

    io_uring's operations keep to the limit of when they began: inside of `few_descriptors`, where
    there are but few to be used up, they find none either.
    """
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    used = [lowest]
    with contextlib.suppress(OSError):
        while len(used) < 2 * FEW:
            used.append(os.dup(0))
    if len(used) == 2 * FEW:  # too many to use up
        while used:
            os.close(used.pop())
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        while used:
            os.close(used.pop())

    try:
        yield allow
    finally:
        allow()
