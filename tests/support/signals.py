"""Two signals that mean nothing to the tests' own process, and how to send it one."""

from __future__ import annotations

import os
import signal
import threading

from support.platforms import WINDOWS

#: Windows has no SIGUSR1 and SIGUSR2; the loop takes SIGINT, SIGBREAK and SIGTERM there.
USER: signal.Signals = signal.Signals["SIGBREAK" if WINDOWS else "SIGUSR1"]
OTHER: signal.Signals = signal.Signals["SIGTERM" if WINDOWS else "SIGUSR2"]


def send_to_self(number: int) -> None:
    """Send `number` to this process, where os.kill() would end it on Windows."""
    if WINDOWS:
        signal.raise_signal(number)
    else:
        os.kill(os.getpid(), number)


def send_to_main_thread(number: int) -> None:
    """Send `number` to the main thread; Windows runs C's handler in the thread that raises it."""
    if WINDOWS:
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
