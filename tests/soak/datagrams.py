"""Datagram endpoints: UDP over IPv4 and IPv6, and Unix datagrams."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from typing import Any, List

from support.sockets import LOCALHOST, bound_udp

from soak.lifecycle import FailingRecorder, Round, closing_all, lifecycle

SIZES = (0, 1, 100, 1400, 9000)


class DatagramRecorder(FailingRecorder):
    """Notes datagrams and errors."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams = 0
        self.errors: List[Exception] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Count it."""
        self.datagrams += 1
        self.record("data")

    def error_received(self, exc: Exception) -> None:
        """Keep it."""
        self.errors.append(exc)
        self.record("error")


def endpoint(round_: Round) -> Any:
    """A protocol for datagrams that may fail."""
    protocol = DatagramRecorder()
    protocol.round = round_
    if round_.chance(0.25):
        protocol.fails_in = round_.choose("made", "data", "lost", "pause", "resume")
    return protocol


async def close(round_: Round, transport: Any, protocol: Any) -> None:
    """One of the two ends, perhaps after a burst."""
    if round_.chance(0.3) and not transport.is_closing():
        for _ in range(50):
            transport.sendto(bytes(1400))
    round_.choose(transport.close, transport.abort)()
    if round_.chance(0.2):
        transport.sendto(b"too late")
    await round_.turns()
    await round_.end(transport, protocol)


@lifecycle()
async def udp(round_: Round) -> None:
    """A bound endpoint and a connected one, which send to each other."""
    host = round_.choose(LOCALHOST, "::1")
    loop = round_.loop
    made = await round_.cut(
        loop.create_datagram_endpoint(lambda: endpoint(round_), local_addr=(host, 0))
    )
    if made is None:
        return
    server, server_protocol = made
    address = server.get_extra_info("sockname")
    client, client_protocol = await loop.create_datagram_endpoint(
        lambda: endpoint(round_), remote_addr=address[:2]
    )
    for _ in range(round_.dice.randrange(20)):
        client.sendto(bytes(round_.choose(*SIZES)))
        server.sendto(bytearray(10), client.get_extra_info("sockname"))
    await round_.turns()
    await close(round_, client, client_protocol)
    await round_.end(server, server_protocol)


@lifecycle()
async def udp_refused(round_: Round) -> None:
    """Datagrams to a port that nobody has: errors that do not end the transport."""
    with bound_udp() as gone:
        address = gone.getsockname()
    transport, protocol = await round_.loop.create_datagram_endpoint(
        lambda: endpoint(round_), remote_addr=address
    )
    for _ in range(round_.dice.randrange(1, 4)):
        transport.sendto(b"x")
        await round_.turns()
    assert not transport.is_closing()
    await close(round_, transport, protocol)


@lifecycle()
async def udp_too_large(round_: Round) -> None:
    """A datagram larger than there can be."""
    with bound_udp() as peer:
        transport, protocol = await round_.loop.create_datagram_endpoint(
            lambda: endpoint(round_), remote_addr=peer.getsockname()
        )
        transport.sendto(bytes(70_000))
        await round_.turns()
        await close(round_, transport, protocol)


@lifecycle()
async def unix_datagrams(round_: Round) -> None:
    """Unix datagrams to a peer that reads, stops reading, or goes."""
    with tempfile.TemporaryDirectory() as folder, closing_all() as sockets:
        path = os.path.join(folder, "peer")
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sockets.append(peer)
        peer.bind(path)
        peer.setblocking(False)
        made = await round_.cut(
            round_.loop.create_datagram_endpoint(
                lambda: endpoint(round_), remote_addr=path, family=socket.AF_UNIX
            )
        )
        if made is None:
            return
        for _ in range(round_.choose(0, 3, 500)):
            made[0].sendto(bytes(1000))
        await round_.turns()
        if round_.chance(0.3):
            peer.close()
        elif round_.chance(0.5):
            for _ in range(5):
                await asyncio.sleep(0)
                if made[0].get_write_buffer_size():
                    peer.recv(2000)
        await close(round_, *made)
