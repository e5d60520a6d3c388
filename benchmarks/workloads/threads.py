"""Other threads: callbacks that come from them, calls that are handed to them, and DNS."""

from __future__ import annotations

import asyncio
import socket
import threading

from workloads.model import InLoop, Workload


def _nothing() -> None:
    pass


async def _threadsafe(count: int) -> None:
    """A thread schedules callbacks as fast as it can while the loop runs them."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def produce() -> None:
        for _ in range(count - 1):
            loop.call_soon_threadsafe(_nothing)
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=produce)
    thread.start()
    await done
    thread.join()


async def _executor(count: int) -> None:
    """One call after the other handed to the default executor and awaited."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.run_in_executor(None, _nothing)


async def _name(count: int) -> None:
    """A name that the hosts file answers."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


async def _address(count: int) -> None:
    """A numeric address, for which nobody has to be asked."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)


WORKLOADS: tuple[Workload, ...] = (
    InLoop("call_soon_threadsafe", "threads", body=_threadsafe, batch=20_000),
    InLoop("run_in_executor", "threads", body=_executor, batch=500),
    InLoop("getaddrinfo_name", "threads", body=_name, batch=200),
    InLoop("getaddrinfo_address", "threads", body=_address, batch=500),
)
