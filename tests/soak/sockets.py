"""The sock_* methods, and descriptors that the user watches himself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

from support.sockets import bound_udp, fill, listener, pair_at, reset, tcp_pair

from soak.lifecycle import Round, closing_all, lifecycle


@lifecycle()
async def sock_receive_and_send(round_: Round) -> None:
    """Reads and writes at both ends of a connection, each of which may be cancelled."""
    loop = round_.loop
    with closing_all() as sockets:
        sockets += tcp_pair()
        left, right = sockets
        data = round_.data()
        sending = asyncio.ensure_future(round_.cut(loop.sock_sendall(left, data)))
        buffer = bytearray(4096)
        for _ in range(round_.dice.randrange(6)):
            receiving = round_.choose(
                lambda: loop.sock_recv(right, 65536), lambda: loop.sock_recv_into(right, buffer)
            )()
            task = asyncio.ensure_future(round_.cut(receiving))
            await round_.turns(10)
            task.cancel()
            await asyncio.wait([task])
        end = round_.choose(left.close, right.close, lambda: reset(right), round_.turns)
        await round_.turns()
        if end == round_.turns:
            sending.cancel()
        elif sending.done() or end == left.close:
            sending.cancel()
            await asyncio.wait([sending])
            end()
        else:
            sending.cancel()
        await asyncio.wait([sending])


@lifecycle()
async def sock_reset(round_: Round) -> None:
    """The peer resets while a read or a write waits, which raises then."""
    loop = round_.loop
    with closing_all() as sockets:
        left, right = tcp_pair()
        sockets += [left, right]
        if round_.chance(0.5):
            fill(left)
            waiting = asyncio.ensure_future(loop.sock_sendall(left, bytes(100_000)))
        else:
            waiting = asyncio.ensure_future(loop.sock_recv(left, 100))
        await round_.turns()
        reset(right)
        await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), ConnectionError), waiting


@lifecycle()
async def sock_accept_and_connect(round_: Round) -> None:
    """sock_accept() and sock_connect(), either of which may be cancelled."""
    with closing_all() as sockets, listener() as listening:
        client = socket.socket()
        sockets.append(client)
        client.setblocking(False)
        accepting = asyncio.ensure_future(round_.cut(round_.loop.sock_accept(listening)))
        await round_.cut(round_.loop.sock_connect(client, listening.getsockname()))
        await round_.turns()
        accepting.cancel()
        await asyncio.wait([accepting])
        if not accepting.cancelled() and accepting.result() is not None:
            sockets.append(accepting.result()[0])


@lifecycle()
async def sock_datagrams(round_: Round) -> None:
    """sock_recvfrom() and its kin, where the version has them."""
    loop = round_.loop
    if not hasattr(asyncio.SelectorEventLoop, "sock_recvfrom"):
        return
    with bound_udp() as left, bound_udp() as right:
        receiving = asyncio.ensure_future(round_.cut(loop.sock_recvfrom(right, 4096)))
        await round_.turns()
        await round_.cut(loop.sock_sendto(left, b"x" * 100, right.getsockname()))
        right.sendto(b"", right.getsockname())
        right.sendto(b"", right.getsockname())
        receiving.cancel()
        await asyncio.wait([receiving])
        await round_.cut(loop.sock_recvfrom_into(right, bytearray(100)), 0.5)


def watch(round_: Round, sock: Any, seen: asyncio.Future[None]) -> None:
    """Watch `sock` in both directions, by object or by number, replacing handlers."""
    loop = round_.loop
    key = round_.choose(sock, sock.fileno())

    def readable() -> None:
        with contextlib.suppress(OSError):
            os.read(sock.fileno(), 100)
        if not seen.done():
            seen.set_result(None)

    loop.add_reader(key, lambda: None)
    loop.add_writer(key, lambda: None)
    loop.add_reader(key, round_.bound(readable))
    loop.add_writer(key, round_.bound(lambda: loop.remove_writer(key)))


async def reuse(round_: Round, watched_socket: socket.socket) -> None:
    """Close what is watched behind the loop's back, and watch another one of the same number."""
    number = watched_socket.fileno()
    watched_socket.close()
    new, peer = pair_at(number)
    with new, peer:
        seen = round_.loop.create_future()
        watch(round_, new, seen)
        peer.send(b"x")
        await seen
        assert round_.loop.remove_reader(new) is True
        round_.loop.remove_writer(new)


@lifecycle(alone=True)
async def watched(round_: Round) -> None:
    """add_reader() and add_writer(), replaced, removed, and with a descriptor that goes first."""
    loop = round_.loop
    left, right = socket.socketpair()
    left.setblocking(False)
    with left, right:
        seen = loop.create_future()
        watch(round_, left, seen)
        right.send(b"x")
        await seen
        await round_.turns()
        if round_.chance(0.2) and not round_.is_oracle:
            await reuse(round_, left)
        else:
            assert loop.remove_reader(left) is True
            loop.remove_writer(left)
            assert loop.remove_reader(left) is False
