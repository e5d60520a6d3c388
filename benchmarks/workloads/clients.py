"""Clients: connect, send a request, read the response, close."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import cast

from workloads import partner
from workloads.model import InLoop, Workload

REQUEST = b"x" * 1024


@functools.cache
def _server() -> tuple[str, int]:
    """Return the address of a peer that answers one request of each connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def play() -> None:
        while True:
            with listener.accept()[0] as sock:
                sock.sendall(sock.recv(len(REQUEST), socket.MSG_WAITALL))
                sock.recv(1)  # the client's end: its port is the one that waits

    partner.start(play)
    address: tuple[str, int] = listener.getsockname()
    return address


class Client(asyncio.Protocol):
    """Sends a request and closes after the response."""

    def __init__(self) -> None:
        self.missing = len(REQUEST)
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing == 0:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


async def _protocols(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        _, protocol = await loop.create_connection(Client, *_server())
        await protocol.lost


async def _streams(count: int) -> None:
    for _ in range(count):
        reader, writer = await asyncio.open_connection(*_server())
        writer.write(REQUEST)
        await reader.readexactly(len(REQUEST))
        writer.close()
        await writer.wait_closed()


WORKLOADS: tuple[Workload, ...] = (
    InLoop("client_protocol", "clients", body=_protocols, batch=200),
    InLoop("client_streams", "clients", body=_streams, batch=200),
)
