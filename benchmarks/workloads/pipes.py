"""Messages of one KiB through a pipe whose two ends are transports of the loop."""

from __future__ import annotations

import asyncio
import os

from workloads.model import InLoop, Workload

MESSAGE = b"x" * 1024


class Reader(asyncio.Protocol):
    """Wakes who waits for a message."""

    def __init__(self) -> None:
        self.missing = 0
        self.received: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expect(self) -> asyncio.Future[None]:
        """Return what the next message resolves."""
        self.missing = len(MESSAGE)
        self.received = asyncio.get_running_loop().create_future()
        return self.received

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing == 0:
            self.received.set_result(None)


async def _through_a_pipe(count: int) -> None:
    loop = asyncio.get_running_loop()
    readable, writable = os.pipe()
    reader, protocol = await loop.connect_read_pipe(Reader, os.fdopen(readable, "rb", 0))
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writable, "wb", 0))
    for _ in range(count):
        received = protocol.expect()
        writer.write(MESSAGE)
        await received
    writer.close()
    reader.close()
    await asyncio.sleep(0)


WORKLOADS: tuple[Workload, ...] = (InLoop("pipe_1k", "pipes", body=_through_a_pipe, batch=2000),)
