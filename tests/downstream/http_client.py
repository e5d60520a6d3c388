"""A client of HTTP/1.1 over asyncio's streams that does only what it is told, also what is rude."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, Iterable, List, Tuple

from .place import soon


@dataclass
class Answer:
    """One answer."""

    status: int
    headers: Dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(
        self, path: str, body: bytes = b"", *, method: str = "GET", headers: str = ""
    ) -> None:
        """Send a request."""
        if body:
            headers += f"content-length: {len(body)}\r\n"
        self.writer.write(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n".encode())
        self.writer.write(body)
        await self.writer.drain()

    async def send_chunks(self, path: str, pieces: Iterable[bytes]) -> None:
        """Send a request whose body is chunked."""
        await self.send(path, method="POST", headers="transfer-encoding: chunked\r\n")
        for piece in pieces:
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self.writer.drain()
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def receive_head(self) -> Tuple[int, Dict[str, str]]:
        """Status and headers."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        pairs = (line.split(":", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), {name.lower(): value.strip() for name, value in pairs}

    async def receive_body(self, headers: Dict[str, str]) -> bytes:
        """What these headers have announced."""
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(headers.get("content-length", "0")))
        pieces: List[bytes] = []
        while True:
            size = int(await self.reader.readline(), 16)
            piece = await self.reader.readexactly(size + 2)
            if not size:
                return b"".join(pieces)
            pieces.append(piece[:-2])

    async def receive(self) -> Answer:
        """A whole answer."""
        status, headers = await soon(self.receive_head())
        return Answer(status, headers, await soon(self.receive_body(headers)))

    async def ask(self, path: str, body: bytes = b"", **kw: Any) -> Answer:
        """Send a request and receive its answer, at the same time."""
        sending = asyncio.ensure_future(self.send(path, body, **kw))
        try:
            return await self.receive()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending

    async def at_end(self) -> bool:
        """Whether the server has closed the connection, with nothing more to read."""
        return bool(await soon(self.reader.read(1)) == b"")


@contextlib.asynccontextmanager
async def connected(host: Any, port: Any = None, **kw: Any) -> AsyncIterator[Client]:
    """A connection to a port, or to the Unix socket whose path is the only argument."""
    if port is None:
        reader, writer = await asyncio.open_unix_connection(host, **kw)
    else:
        reader, writer = await asyncio.open_connection(host, port, **kw)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await soon(writer.wait_closed())
