"""Connections that live for one message, and connections that only send."""

from __future__ import annotations

import asyncio

from workloads.model import Load, Server, Workload
from workloads.tcp import BUFFER, KIB, Echo, echo_read, serve_protocol, serve_streams


class Sink(asyncio.Protocol):
    """Drops what it gets."""

    def data_received(self, data: bytes) -> None:
        pass


class BufferedSink(asyncio.BufferedProtocol):
    """Drops what it gets in its own buffer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.view = memoryview(bytearray(BUFFER))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        pass


async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the peer's EOF and drop it all."""
    while await reader.read(BUFFER):
        pass
    writer.close()


_CONNECT = Load("connect", KIB, 10)
_STORM = Load("connect", KIB, 500)  # hundreds wait to be accepted at any time
_UPLOAD = Load("upload", 256 * KIB, 1)

WORKLOADS: tuple[Workload, ...] = (
    Server("connect_protocol", "connections", serve=serve_protocol(Echo), load=_CONNECT),
    Server("connect_streams", "connections", serve=serve_streams(echo_read), load=_CONNECT),
    Server("connect_storm", "connections", serve=serve_protocol(Echo), load=_STORM),
    Server("upload_protocol", "upload", serve=serve_protocol(Sink), load=_UPLOAD),
    Server("upload_buffered", "upload", serve=serve_protocol(BufferedSink), load=_UPLOAD),
    Server("upload_streams", "upload", serve=serve_streams(drop), load=_UPLOAD),
)
