"""Callbacks, timers, tasks, threads, signals, names: what needs no transport."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from typing import Any, AsyncIterator

from soak.lifecycle import Injected, Round, lifecycle


@lifecycle()
async def callbacks(round_: Round) -> None:
    """call_soon(), with arguments, cancelled, and failing."""
    done = round_.loop.create_future()
    for number in range(round_.dice.randrange(20)):
        handle = round_.loop.call_soon(round_.bound(id), object())
        if number % 3 == 0:
            handle.cancel()
    round_.loop.call_soon(done.set_result, None)
    await done


@lifecycle()
async def timers(round_: Round) -> None:
    """Timers that are due, that are cancelled, and that fail."""
    loop = round_.loop
    done = loop.create_future()
    far = [loop.call_later(3600, id, bytearray(1000)) for _ in range(round_.dice.randrange(50))]
    round_.dice.shuffle(far)
    for _ in range(5):
        loop.call_later(round_.choose(-1, 0, 0.0001), round_.bound(id), object())
    loop.call_later(0.001, done.set_result, None)
    await done
    for handle in far:
        handle.cancel()


@lifecycle()
async def tasks(round_: Round) -> None:
    """Tasks that wait for each other, time out, are cancelled, or fail."""

    async def work(depth: int) -> None:
        if round_.chance(0.1):
            raise Injected
        if depth:
            await asyncio.gather(work(depth - 1), work(depth - 1), return_exceptions=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(round_.choose(0, 0.01)), 0.001)

    with contextlib.suppress(Injected):
        await round_.cut(work(2), 0.5)


@lifecycle()
async def threads(round_: Round) -> None:
    """call_soon_threadsafe() from several threads at once."""
    loop = round_.loop
    counts = [0]
    done = loop.create_future()
    count = round_.dice.randrange(1, 5)

    def arrived() -> None:
        counts[0] += 1
        if counts[0] == count * 20 and not done.done():
            done.set_result(None)

    callback = round_.bound(arrived, 0.01)

    def send() -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be left and closed meanwhile
            for _ in range(20):
                loop.call_soon_threadsafe(callback)

    started = [threading.Thread(target=send) for _ in range(count)]
    for thread in started:
        thread.start()
    dropped = False
    try:
        await done
    except GeneratorExit:  # by the collector, perhaps in the middle of threading's own code
        dropped = True
        raise
    finally:
        while started and not dropped:
            started.pop().join()


@lifecycle()
async def executor(round_: Round) -> None:
    """run_in_executor(), with results nobody waits for and functions that fail."""

    def work() -> bytes:
        if round_.chance(0.2):
            raise Injected
        return bytes(10_000)

    tasks = [round_.cut(round_.loop.run_in_executor(None, work), 0.3) for _ in range(3)]
    await asyncio.gather(*tasks, return_exceptions=True)


@lifecycle()
async def coroutines_from_threads(round_: Round) -> None:
    """run_coroutine_threadsafe(), waited for or cancelled in the thread."""

    def work(cancels: bool) -> None:
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.0001, object()), round_.loop)
        if cancels:
            future.cancel()
        else:
            future.result(10)

    await round_.loop.run_in_executor(None, work, round_.chance(0.3))


@lifecycle(alone=True)
async def signals(round_: Round) -> None:
    """Signal handlers that are set, replaced, called, fail, and removed."""
    loop = round_.loop
    done = loop.create_future()

    def arrived() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_signal_handler(signal.SIGUSR1, id, None)
    loop.add_signal_handler(signal.SIGUSR1, round_.bound(arrived))
    for _ in range(round_.dice.randrange(1, 5)):
        os.kill(os.getpid(), signal.SIGUSR1)
    await done
    await round_.turns()
    assert loop.remove_signal_handler(signal.SIGUSR1)


@lifecycle()
async def names(round_: Round) -> None:
    """getaddrinfo() and getnameinfo(), known, unknown and cancelled."""
    loop = round_.loop
    name = round_.choose("127.0.0.1", "::1", "localhost", "name.invalid")
    with contextlib.suppress(socket.gaierror):
        await round_.cut(loop.getaddrinfo(name, 80, type=socket.SOCK_STREAM))
    await round_.cut(loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST))


@lifecycle()
async def generators(round_: Round) -> None:
    """Asynchronous generators that are left in the middle."""

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)

    generator: Any = numbers()
    for _ in range(round_.dice.randrange(4)):
        await generator.__anext__()
    if round_.chance(0.5):
        await generator.aclose()
    del generator
    await round_.turns(8)


@lifecycle()
async def interrupts(round_: Round) -> None:
    """Callbacks, timers and tasks that raise what ends the run of the loop."""
    done = round_.loop.create_future()

    def interrupt() -> None:
        done.set_result(None)
        round_.fail(interrupts=1)

    round_.choose(
        lambda: round_.loop.call_soon(interrupt),
        lambda: round_.loop.call_later(0, interrupt),
        lambda: round_.loop.call_soon_threadsafe(interrupt),
    )()
    await done
