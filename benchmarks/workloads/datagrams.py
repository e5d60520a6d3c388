"""Datagrams: an echo server, bursts that nothing holds up, and such that wait for room."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Any, cast

from workloads import partner
from workloads.model import InLoop, Workload

MESSAGE = b"x" * 64
UNDER_WAY = 16  # datagrams at a time
BURST = 64


class Echo(asyncio.DatagramProtocol):
    """Sends back what it gets, and counts it."""

    def __init__(self, count: int) -> None:
        self.missing = count
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)
        self.missing -= 1
        if self.missing == 0:
            self.done.set_result(None)


class Paced(asyncio.DatagramProtocol):
    """Tells when there is room."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()


@functools.cache
def _client() -> tuple[str, int]:
    """Return the address of a peer that keeps whom it hears of busy."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))

    def play() -> None:
        while True:
            data, address = sock.recvfrom(65536)
            for _ in range(1 if data == MESSAGE else UNDER_WAY):
                sock.sendto(MESSAGE, address)

    partner.start(play)
    address: tuple[str, int] = sock.getsockname()
    return address


async def _echo(count: int) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Echo(count), ("127.0.0.1", 0))
    transport.sendto(b"hello", _client())
    await protocol.done
    transport.close()


@functools.cache
def _sink() -> tuple[str, int]:
    """Return the address of a peer that drops what it gets."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))

    def play() -> None:
        buffer = bytearray(65536)
        while True:
            sock.recv_into(buffer)

    partner.start(play)
    address: tuple[str, int] = sock.getsockname()
    return address


async def _burst(count: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=_sink()
    )
    for _ in range(count // BURST):
        for _ in range(BURST):
            transport.sendto(MESSAGE)
        await asyncio.sleep(0)
    transport.close()


@functools.cache
def _pair() -> socket.socket:
    """Return a Unix socket whose peer drops what it gets, after it has had to wait for it."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    right = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    right.bind("")  # to any name: asyncio takes a peer without one for none
    left.connect(right.getsockname())

    def play() -> None:
        buffer = bytearray(65536)
        while True:
            right.recv_into(buffer)

    partner.start(play)
    return left


async def _queued(count: int) -> None:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Paced, sock=_pair().dup())
    for _ in range(count):
        await protocol.room.wait()
        transport.sendto(MESSAGE)
    transport.close()


WORKLOADS: tuple[Workload, ...] = (
    InLoop("udp_echo", "datagrams", body=_echo, batch=5000),
    InLoop("udp_burst", "datagrams", body=_burst, batch=6400),
    InLoop("unix_datagrams_queued", "datagrams", body=_queued, batch=5000),
)
