"""Threads that act while a loop waits for I/O."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any, Callable, List

from support.platforms import WINDOWS

# The system calls in which a loop waits, by number on x86-64 and on arm64: epoll_wait, epoll_pwait,
# epoll_pwait2, poll, ppoll, select, pselect6, io_uring_enter.
WAITS = {
    "x86_64": {"232", "281", "441", "7", "271", "23", "270", "426"},
    "aarch64": {"22", "441", "73", "72", "426"},
}


def give_way() -> None:
    """Let other threads run: sched_yield(2), or Sleep(0) of Windows."""
    if WINDOWS:
        time.sleep(0)
    else:
        os.sched_yield()


def waits_in_the_kernel(thread: int) -> bool:
    """Whether a thread of this process waits for descriptors; True where the kernel does not tell.

    proc_pid_syscall(5): a file of one line that starts with the number of the system call.
    """
    try:
        with open(f"/proc/self/task/{thread}/syscall", encoding="ascii") as file:
            return file.read().split()[0] in WAITS[os.uname().machine]
    except (KeyError, OSError):
        return True


async def call_while_waiting(call: Callable[[], Any]) -> List[BaseException]:
    """Call from another thread while the running loop waits; the RuntimeError it raised, if any."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    mine = threading.get_native_id()
    errors: List[BaseException] = []

    def work() -> None:
        while not waits_in_the_kernel(mine):
            give_way()
        try:
            call()
        except RuntimeError as error:
            errors.append(error)
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        await done
    finally:
        thread.join()
    return errors
