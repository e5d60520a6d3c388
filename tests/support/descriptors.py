"""A process that may open no further descriptor."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Callable, Iterator


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[Callable[[], None]]:
    """Let the process open no further descriptor until the block or the given callable ends it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield allow
    finally:
        allow()
