"""Processes that play the other part of a workload, on another core: their CPU does not count."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Callable

# Seconds; one whose worker died must not live on.
LIFETIME = 300

PR_SET_PDEATHSIG = 1  # prctl(2)


def start(play: Callable[[], None]) -> None:
    """Fork a process that calls `play`, and ends with this one."""
    if os.fork() == 0:
        try:
            _leave_the_worker()
            with contextlib.suppress(OSError):
                play()
        finally:
            os._exit(0)


def _leave_the_worker() -> None:
    """Hold nothing of the worker's open that somebody waits for, and stay off its core."""
    signal.alarm(LIFETIME)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
        if others:
            os.sched_setaffinity(0, others)
