"""asyncio's own streams, which reach the loop's transports through asyncio's code."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, AsyncIterator, Callable, List, Tuple

import pytest
from support.backends import PY312, PY313
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, refusing_address, reset, tcp_pair

MEGABYTE = bytes(range(256)) * 4096

Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Tuple[str, int]]:
    """The address of a server that runs `handler` for each connection."""
    server = await asyncio.start_server(handler, LOCALHOST, 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        await turns(2)


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Tuple[Streams, Streams]]:
    """The streams of both ends of a connection."""
    left, right = tcp_pair()
    near = await asyncio.open_connection(sock=left, **options)
    far = await asyncio.open_connection(sock=right, **options)
    try:
        yield near, far
    finally:
        for _, writer in (near, far):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back."""
    while True:
        data = await reader.read(65536)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


def test_an_echo_server(run: Run) -> None:
    async def main() -> None:
        async with serving(echo) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main)


def test_an_echo_of_large_data(run: Run) -> None:
    async def main() -> None:
        async with serving(echo) as address:
            reader, writer = await asyncio.open_connection(*address)

            async def send() -> None:
                for _ in range(8):
                    writer.write(MEGABYTE)
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.ensure_future(send())
            assert await reader.readexactly(8 * len(MEGABYTE)) == MEGABYTE * 8
            assert await reader.read() == b""
            await sending
            writer.close()
            await writer.wait_closed()

    run(main)


def test_many_connections_at_the_same_time(run: Run) -> None:
    async def main() -> None:
        async with serving(echo) as address:

            async def talk(number: int) -> None:
                reader, writer = await asyncio.open_connection(*address)
                for count in range(5):
                    message = b"%d-%d\n" % (number, count)
                    writer.write(message)
                    await writer.drain()
                    assert await reader.readline() == message
                writer.close()
                await writer.wait_closed()

            await asyncio.gather(*(talk(number) for number in range(100)))
            # Before Python 3.12 the server does not wait for those who serve.
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    run(main)


def test_readline_over_several_chunks(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, writer), (reader, _)):
            task = asyncio.ensure_future(reader.readline())
            for chunk in (b"one ", b"line", b"\nnext"):
                writer.write(chunk)
                await writer.drain()
                await turns(3)
            assert await task == b"one line\n"
            writer.write_eof()
            assert await reader.readline() == b"next"
            assert await reader.readline() == b""
            assert reader.at_eof()

    run(main)


def test_readexactly(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, writer), (reader, _)):
            writer.write(b"0123456789")
            assert await reader.readexactly(4) == b"0123"
            assert await reader.readexactly(0) == b""
            writer.write_eof()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(100)
            assert caught.value.partial == b"456789"

    run(main)


def test_readuntil_and_its_limit(run: Run) -> None:
    async def main() -> None:
        async with connected(limit=64) as ((_, writer), (reader, _)):
            writer.write(b"a;b;")
            assert await reader.readuntil(b";") == b"a;"
            assert await reader.readuntil(b";") == b"b;"
            writer.write(b"x" * 500)
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil(b";")

    run(main)


def test_a_small_limit_pauses_reading(run: Run) -> None:
    """StreamReader pauses the transport at twice its limit and resumes it below."""

    async def main() -> None:
        async with connected(limit=1024) as ((_, writer), (reader, far_writer)):
            transport: Any = far_writer.transport
            writer.write(MEGABYTE)
            while transport.is_reading():
                await turns(1)
            got = bytearray()
            while len(got) < len(MEGABYTE):
                got += await reader.read(500)
            assert got == MEGABYTE
            assert transport.is_reading()

    run(main)


def test_async_iteration_reads_lines(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, writer), (reader, _)):
            writer.writelines([b"one\n", b"two\n", b"three"])
            writer.write_eof()
            assert [line async for line in reader] == [b"one\n", b"two\n", b"three"]

    run(main)


def test_drain_waits_for_the_peer(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, writer), (reader, far_writer)):
            far_transport: Any = far_writer.transport
            far_transport.pause_reading()
            transport: Any = writer.transport
            written = 0
            while transport.get_write_buffer_size() <= 65536:
                writer.write(MEGABYTE)
                written += len(MEGABYTE)
                await turns(1)
            draining = asyncio.ensure_future(writer.drain())
            await turns(5)
            assert not draining.done()
            far_transport.resume_reading()
            await reader.readexactly(written)
            await draining

    run(main)


def test_several_tasks_may_drain_at_once(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, writer), (reader, _)):

            async def send() -> None:
                writer.write(MEGABYTE)
                await writer.drain()

            sending = [asyncio.ensure_future(send()) for _ in range(3)]
            await reader.readexactly(3 * len(MEGABYTE))
            for task in sending:
                await task

    run(main)


def test_wait_closed_waits_until_the_transport_is_gone(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, writer), (reader, _)):
            assert not writer.is_closing()
            writer.write(b"last words")
            writer.close()
            assert writer.is_closing()
            await writer.wait_closed()
            await writer.wait_closed()
            assert await reader.read() == b"last words"

    run(main)


def test_wait_closed_raises_what_the_connection_was_lost_by(run: Run) -> None:
    async def main() -> None:
        left, right = tcp_pair()
        reader, writer = await asyncio.open_connection(sock=left)
        reset(right)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()

    run(main)


def test_drain_raises_after_the_connection_was_lost(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((near_reader, writer), (_, far_writer)):
            far_writer.transport.abort()
            await near_reader.read()
            with pytest.raises(ConnectionError):  # noqa: PT012 - which write fails is the kernel's affair
                while True:
                    writer.write(b"x")
                    await writer.drain()

    run(main)


def test_extra_information_through_the_writer(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, near), (_, far)):
            assert near.get_extra_info("peername") == far.get_extra_info("sockname")
            assert near.get_extra_info("nothing", 7) == 7
            assert near.can_write_eof()

    run(main)


def test_a_connection_that_is_refused(run: Run) -> None:
    async def main() -> None:
        with refusing_address() as address, pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    run(main)


@pytest.mark.skipif(not PY312, reason="asyncio.streams closes the transport then since 3.12")
def test_a_handler_that_raises_is_reported(run: Run, reports: Reports) -> None:
    async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise ArithmeticError("in the handler")

    async def main() -> None:
        async with serving(failing) as address:
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main)
    context = reports.take_one()
    assert context["message"] == "Unhandled exception in client_connected_cb"
    assert isinstance(context["exception"], ArithmeticError)


def test_a_handler_that_is_a_plain_function(run: Run) -> None:
    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async def main() -> None:
        async with serving(greet) as address:
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()

    run(main)


def test_cancelling_a_read_keeps_the_stream_usable(run: Run) -> None:
    async def main() -> None:
        async with connected() as ((_, writer), (reader, _)):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.readline(), 0.005)
            writer.write(b"line\n")
            assert await reader.readline() == b"line\n"

    run(main)


@pytest.mark.skipif(not PY313, reason="new in Python 3.13")
def test_a_stream_server_closes_its_clients(run: Run) -> None:
    async def main() -> None:
        accepted: List[Any] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(writer)
            await reader.read()
            writer.close()

        server: Any = await asyncio.start_server(handler, LOCALHOST, 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not accepted:
            await turns(1)
        server.close()
        server.close_clients()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await server.wait_closed()

    run(main)


def test_streams_in_debug_mode(run: Run) -> None:
    async def main() -> None:
        async with serving(echo) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()

    run(main, debug=True)
