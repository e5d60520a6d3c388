"""Echo servers on transports: by Protocol, by BufferedProtocol and by streams, TCP and Unix."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Awaitable
from typing import Callable, cast

from workloads.model import Listening, Load, Server, Workload

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

KIB = 1024
# The load generator counts bytes up to 250 and again from 0, so that the eleventh is a line feed: a
# message of this size is one line of 11 bytes and four of 251.
LINES_SIZE = 1015
LINES = 5

BUFFER = 256 * KIB  # what a BufferedProtocol offers the loop to receive into


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """Sends back what it gets in its own buffer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.view = memoryview(bytearray(BUFFER))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        # The buffer is reused for the next message, the transport may keep what it is given.
        self.transport.write(bytes(self.view[:nbytes]))


# The load generator drops its connections when its time is up, some with an echo under way: the
# servers have to expect a reset.


async def echo_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo whatever is there until the peer goes."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(64 * KIB):
            writer.write(data)
            await writer.drain()
    writer.close()


async def echo_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo five lines at once until the peer goes."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            lines = [line, *[await reader.readline() for _ in range(LINES - 1)]]
            writer.writelines(lines)
            await writer.drain()
    writer.close()


def echo_exactly(size: int) -> Handler:
    """Return a handler that echoes messages of `size` bytes."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                writer.write(await reader.readexactly(size))
                await writer.drain()
        writer.close()

    return echo


def serve_protocol(
    factory: Callable[[], asyncio.BaseProtocol],
) -> Callable[[], Awaitable[Listening]]:
    """Return a coroutine function that starts a TCP server of that protocol."""

    async def serve() -> Listening:
        loop = asyncio.get_running_loop()
        return await loop.create_server(factory, "127.0.0.1", 0, backlog=1024)

    return serve


def serve_streams(handler: Handler) -> Callable[[], Awaitable[Listening]]:
    """Return a coroutine function that starts a TCP server of streams."""

    async def serve() -> Listening:
        return await asyncio.start_server(handler, "127.0.0.1", 0, backlog=1024)

    return serve


async def _serve_unix() -> Listening:
    path = os.path.join(tempfile.mkdtemp(prefix="oxloop-bench-"), "socket")
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(Echo, path)  # type: ignore[return-value,unused-ignore]


def _echo(name: str, serve: Callable[[], Awaitable[Listening]], size: int, load: int) -> Server:
    label = f"{round(size / KIB)}k" if size > KIB // 2 else f"{size}b"
    return Server(f"{name}_{label}_c{load}", "echo", serve=serve, load=Load("echo", size, load))


_PROTOCOL = serve_protocol(Echo)

WORKLOADS: tuple[Workload, ...] = (
    *(_echo("tcp_protocol", _PROTOCOL, 64, load) for load in (1, 10, 100)),
    *(_echo("tcp_protocol", _PROTOCOL, KIB, load) for load in (1, 10, 100, 1000)),
    _echo("tcp_protocol", _PROTOCOL, 64 * KIB, 10),
    _echo("tcp_buffered", serve_protocol(BufferedEcho), KIB, 100),
    _echo("tcp_streams_read", serve_streams(echo_read), KIB, 10),
    _echo("tcp_streams_readexactly", serve_streams(echo_exactly(KIB)), KIB, 10),
    _echo("tcp_streams_readline", serve_streams(echo_lines), LINES_SIZE, 10),
    _echo("tcp_streams_readexactly", serve_streams(echo_exactly(64 * KIB)), 64 * KIB, 10),
    _echo("unix_protocol", _serve_unix, KIB, 10),
)
