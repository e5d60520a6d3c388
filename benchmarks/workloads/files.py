"""Files of one MiB, sent over TCP to a peer that drops them."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import tempfile
from typing import IO

from workloads import partner
from workloads.model import InLoop, Workload

SIZE = 2**20


@functools.cache
def _file() -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
    file.write(os.urandom(SIZE))
    file.flush()
    return file


@functools.cache
def _drain() -> tuple[str, int]:
    """Return the address of a peer that reads one connection after the other to its end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def play() -> None:
        buffer = bytearray(SIZE)
        while True:
            with listener.accept()[0] as sock:
                while sock.recv_into(buffer):
                    pass

    partner.start(play)
    address: tuple[str, int] = listener.getsockname()
    return address


async def _sendfile(count: int) -> None:
    loop = asyncio.get_running_loop()
    address, file = _drain(), _file()
    _, writer = await asyncio.open_connection(*address)
    for _ in range(count):
        await loop.sendfile(writer.transport, file)
    writer.close()
    await writer.wait_closed()


async def _sock_sendfile(count: int) -> None:
    loop = asyncio.get_running_loop()
    address, file = _drain(), _file()
    with socket.create_connection(address) as sock:
        sock.setblocking(False)
        for _ in range(count):
            await loop.sock_sendfile(sock, file)


WORKLOADS: tuple[Workload, ...] = (
    InLoop("sendfile_1m", "files", body=_sendfile, batch=50),
    InLoop("sock_sendfile_1m", "files", body=_sock_sendfile, batch=50),
)
