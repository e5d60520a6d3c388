"""Sockets for tests: pairs, listeners, ports that refuse, and peers on the other end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import Any, Iterator, List, Tuple

import pytest

from support.platforms import WINDOWS

LOCALHOST = "127.0.0.1"


def listener(family: int = socket.AF_INET, host: str = LOCALHOST, backlog: int = 100) -> Any:
    """A non-blocking TCP listener on a free port."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind((host, 0))
    sock.listen(backlog)
    return sock


def bound_udp(host: str = LOCALHOST) -> socket.socket:
    """A non-blocking UDP socket on a free port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


def tcp_pair() -> Tuple[socket.socket, socket.socket]:
    """Two connected non-blocking TCP sockets."""
    with socket.socket() as listening:
        listening.bind((LOCALHOST, 0))
        listening.listen(1)
        left = socket.create_connection(listening.getsockname())
        right, _ = listening.accept()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


def pair_at(fd: int) -> Tuple[socket.socket, socket.socket]:
    """Two connected non-blocking sockets, the first at the descriptor number `fd`, which is free."""
    if WINDOWS:
        return _pair_at_handle(fd)
    new, peer = socket.socketpair()
    if peer.fileno() == fd:
        new, peer = peer, new
    elif new.fileno() != fd:
        moved = socket.socket(fileno=os.dup2(new.fileno(), fd, inheritable=False))
        new.close()
        new = moved
    new.setblocking(False)
    peer.setblocking(False)
    return new, peer


def _pair_at_handle(handle: int) -> Tuple[socket.socket, socket.socket]:
    """The same where no number can be asked for: free ones are given out, the low ones first."""
    others: List[socket.socket] = []
    while (new := socket.socket()).fileno() != handle and len(others) < 64:
        others.append(new)
    if new.fileno() != handle:
        for other in [new, *others]:
            other.close()
        pytest.skip("another thread has got the number meanwhile")
    with socket.socket() as listening:
        listening.bind((LOCALHOST, 0))
        listening.listen(1)
        new.connect(listening.getsockname())
        peer, _ = listening.accept()
    for other in others:
        other.close()
    new.setblocking(False)
    peer.setblocking(False)
    return new, peer


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; the number of bytes that it took."""
    sent = 0
    chunk = b"f" * 65536
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(chunk)
    return sent


def reset(sock: socket.socket) -> None:
    """Close with a RST: SO_LINGER with a zero timeout, socket(7)."""
    linger = struct.pack("hh" if WINDOWS else "ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


@contextlib.contextmanager
def refusing_address() -> Iterator[Tuple[str, int]]:
    """An address that refuses connections: it is bound, so nobody else gets it, but not listening."""
    with socket.socket() as sock:
        sock.bind((LOCALHOST, 0))
        yield sock.getsockname()


class Peer:
    """The other end of a transport: a plain socket, driven by the running loop's sock_* methods."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop: Any = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._loop.sock_sendall(self.sock, data)

    async def receive(self, count: int) -> bytes:
        """Exactly `count` bytes, fewer only at EOF."""
        data = bytearray()
        while len(data) < count:
            chunk = await self._loop.sock_recv(self.sock, min(count - len(data), 1 << 20))
            if not chunk:
                break
            data += chunk
        return bytes(data)

    async def receive_to_eof(self) -> bytes:
        """Everything up to the EOF."""
        data = bytearray()
        while True:
            chunk = await self._loop.sock_recv(self.sock, 1 << 20)
            if not chunk:
                return bytes(data)
            data += chunk

    def send_eof(self) -> None:
        """Shut the writing side down."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def reset(self) -> None:
        """Close the socket with a RST."""
        reset(self.sock)
