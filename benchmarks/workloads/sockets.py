"""Echo servers on the loop's own socket methods: `sock_accept`, `sock_recv`, `sock_sendall`."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from workloads.model import Listening, Load, Server, Workload

KIB = 1024
_running: set[asyncio.Task[None]] = set()  # a loop keeps only weak references to its tasks


def _start(task: asyncio.Task[None]) -> None:
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _echo(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    # The load generator drops its connections when its time is up.
    with sock, contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(sock, 256 * KIB):
            await loop.sock_sendall(sock, data)


async def _accept(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        sock, _ = await loop.sock_accept(listener)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _start(loop.create_task(_echo(sock)))


async def _serve() -> Listening:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    _start(asyncio.get_running_loop().create_task(_accept(listener)))
    return listener


WORKLOADS: tuple[Workload, ...] = (
    Server("sock_echo_1k_c10", "echo", serve=_serve, load=Load("echo", KIB, 10)),
    Server("sock_echo_64k_c10", "echo", serve=_serve, load=Load("echo", 64 * KIB, 10)),
)
