"""A proxy that knows CONNECT and nothing else, with or without TLS of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import AsyncIterator, List, Optional

from .place import soon


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def connecting(
    context: Optional[ssl.SSLContext] = None, asked: Optional[List[str]] = None
) -> AsyncIterator[int]:
    """Run a proxy; yield its port. What it is asked to connect to is added to `asked`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split()[1].decode()
        if asked is not None:
            asked.append(target)
        host, _, port = target.rpartition(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        for ending in (writer, there_writer):
            with contextlib.suppress(OSError, ssl.SSLError):
                await soon(ending.wait_closed())

    tasks: List[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        done, left = await asyncio.wait(tasks, timeout=5) if tasks else (set(), set())
        assert not left, "a connection of the proxy is open"
        for task in done:
            task.result()
