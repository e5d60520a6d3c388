"""Threads: a loop in each of many at once, and what may happen when one touches the loop of another.

Loop state belongs to the running thread; misuse from another one raises, and is never undefined
behaviour, with the GIL or without.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any, Callable, List

import pytest
from support.backends import GIL, Backend
from support.children import run_python
from support.running import Run
from support.sockets import LOCALHOST

THREADS = 4


def together(work: Callable[[int], None]) -> None:
    """Run `work(index)` in some threads, which start at the same time; raise what one of them raised."""
    start = threading.Barrier(THREADS)
    errors: List[BaseException] = []

    def one(index: int) -> None:
        start.wait()
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def exchange() -> int:
    """Send through a server of the running loop and count what comes back."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, LOCALHOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    received = 0
    for size in (1, 1000, 100_000):
        writer.write(b"x" * size)
        received += len(await reader.readexactly(size))
        await asyncio.gather(*(asyncio.sleep(0, result=number) for number in range(20)))
        await loop.run_in_executor(None, len, "")
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return received


def test_a_loop_in_each_thread(backend: Backend) -> None:
    received = [0] * THREADS

    def work(index: int) -> None:
        loop = backend.new_loop()
        try:
            for _ in range(5):
                received[index] += loop.run_until_complete(exchange())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    together(work)
    assert received == [5 * 101_001] * THREADS


def test_loops_call_each_other(backend: Backend) -> None:
    """A counter goes round through all loops by call_soon_threadsafe()."""
    laps = 500
    loops = [backend.new_loop() for _ in range(THREADS)]
    seen: List[List[int]] = [[] for _ in range(THREADS)]

    def step(count: int) -> None:
        index = count % THREADS
        seen[index].append(count)
        if count < laps * THREADS:
            following = (index + 1) % THREADS
            loops[following].call_soon_threadsafe(step, count + 1)
        if count > laps * THREADS - THREADS:
            loops[index].stop()

    loops[1].call_soon_threadsafe(step, 1)
    together(lambda index: loops[index].run_forever())
    for loop in loops:
        loop.close()
    assert sorted(count for counts in seen for count in counts) == list(
        range(1, laps * THREADS + 1)
    )


def test_a_loop_is_run_by_one_thread_at_a_time(backend: Backend) -> None:
    if backend.is_oracle and not GIL:
        pytest.skip("asyncio looks, and then leaps")
    loop = backend.new_loop()
    refused: List[str] = []
    everybody = threading.Barrier(THREADS)

    def work(index: int) -> None:
        everybody.wait()
        try:
            loop.run_forever()
        except RuntimeError as error:
            refused.append(str(error))
            if len(refused) == THREADS - 1:
                loop.call_soon_threadsafe(loop.stop)

    together(work)
    loop.close()
    assert refused == ["This event loop is already running"] * (THREADS - 1)


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="there is a GIL before Python 3.13")
def test_the_gil_stays_as_it_is(backend: Backend) -> None:
    child = run_python(
        "import asyncio, sys\n"
        "before = sys._is_gil_enabled()\n" + backend.source + "new_loop().close()\n"
        "print(sys._is_gil_enabled() == before)\n",
        options=["-W", "error"],
    )
    assert (child.stdout, child.stderr) == ("True\n", "")


def test_calls_from_other_threads_break_nothing(run: Run, backend: Backend) -> None:
    """asyncio documents none of these as safe, and neither do we; but the loop and its memory stay sound."""
    if backend.is_oracle:
        pytest.skip("asyncio promises nothing")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # Without a GIL, a transport that is misused while its loop begins to wait fails, and says so.
        loop.set_exception_handler(lambda loop, context: None)
        server = await loop.create_server(Echo, LOCALHOST, 0)
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        count = 0

        def nothing() -> None:
            nonlocal count
            count += 1

        def misuse() -> None:
            for _ in range(300):
                for call in (
                    lambda: loop.call_soon(nothing),
                    lambda: loop.call_soon(nothing).cancel(),
                    lambda: loop.call_later(3600, nothing).cancel(),
                    lambda: loop.call_later(0, nothing),
                    lambda: transport.write(b"x" * 100),
                    lambda: transport.writelines([b"x", b"y"]),
                    lambda: transport.get_write_buffer_size(),
                    lambda: transport.pause_reading(),
                    lambda: transport.resume_reading(),
                    lambda: repr((loop, transport, server)),
                    lambda: loop.create_future().cancel(),
                    lambda: loop.time(),
                ):
                    try:
                        call()
                    except (RuntimeError, AttributeError):
                        pass  # refused; `AttributeError`: a race inside of asyncio.Future

        await asyncio.gather(*(loop.run_in_executor(None, misuse) for _ in range(THREADS)))
        transport.abort()
        server.close()
        await server.wait_closed()
        assert count > 0

    run(main)


def test_one_coroutine_and_many_threads(backend: Backend) -> None:
    """One of them resumes it; the others are told that it runs, or has ended."""
    if backend.is_oracle and not GIL:
        pytest.skip("CPython 3.14.0 without a GIL: its own coroutines crash now and then")
    refusals = {"coroutine already executing", "cannot reuse already awaited coroutine"}
    loop = backend.new_loop()
    for _ in range(200):
        coroutine = loop.create_server(Echo, LOCALHOST, 0)
        outcomes: List[str] = []

        def work(index: int) -> None:
            try:
                coroutine.throw(ValueError("mine"))  # noqa: B023 - called in this round
            except (RuntimeError, ValueError) as error:
                outcomes.append(str(error))  # noqa: B023

        together(work)
        assert outcomes.count("mine") == 1
        assert set(outcomes) <= refusals | {"mine"}
        assert len(outcomes) == THREADS
    loop.close()
