"""The stream contract on each way in which a TCP transport comes to be, and what is TCP's alone."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Callable

from support.contracts import Link, StreamContract
from support.recorders import Recorder
from support.running import Run, turns
from support.sockets import LOCALHOST, Peer, listener, tcp_pair


class TestConnected(StreamContract):
    """A transport that create_connection() connected."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """Connect to a listener; the peer is what it accepts."""
        loop = asyncio.get_running_loop()
        with listener() as listening:
            connecting = asyncio.ensure_future(
                loop.create_connection(factory, *listening.getsockname())
            )
            peer, _ = await loop.sock_accept(listening)
            transport, protocol = await connecting
        return Link(transport, protocol, Peer(peer))


class TestAdopted(StreamContract):
    """A transport made from the user's own connected socket."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """Hand one of two connected sockets over."""
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(factory, sock=left)
        return Link(transport, protocol, Peer(right))


class TestAccepted(StreamContract):
    """A transport made by connect_accepted_socket()."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """Hand one of two connected sockets over."""
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
            factory, left
        )
        return Link(transport, protocol, Peer(right))


class TestServed(StreamContract):
    """A transport that a server made."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """Connect to a server of our own, which closes at once; its connection stays."""
        loop = asyncio.get_running_loop()
        made: asyncio.Future[Any] = loop.create_future()

        def make() -> Any:
            protocol = factory()
            made.set_result(protocol)
            return protocol

        server = await loop.create_server(make, LOCALHOST, 0)
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        protocol = await made
        while protocol.transport is None:
            await turns(1)
        server.close()
        await turns(2)
        return Link(protocol.transport, protocol, Peer(client))


def test_nagles_algorithm_is_off(run: Run) -> None:
    """asyncio docs: "TCP_NODELAY is set by default for all TCP connections"."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        raw = transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        transport.close()
        await protocol.lost()
        right.close()

    run(main)


def test_a_unix_socket_can_be_adopted(run: Run) -> None:
    """asyncio: create_connection(sock=) takes AF_UNIX sockets as long as they are streams."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        right.setblocking(False)
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        transport.write(b"data")
        assert await loop.sock_recv(right, 10) == b"data"
        right.send(b"answer")
        assert await protocol.received(6) == b"answer"
        right.close()
        await protocol.lost()

    run(main)


def test_an_adopted_socket_is_made_non_blocking(run: Run) -> None:
    async def main() -> None:
        left, right = tcp_pair()
        left.setblocking(True)
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=left
        )
        assert left.gettimeout() == 0
        transport.close()
        await protocol.lost()
        right.close()

    run(main)


def test_the_adopted_socket_object_is_closed_with_the_transport(run: Run) -> None:
    """SPEC section 5: double close of an fd: the user's socket object knows that it is closed."""

    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=left
        )
        transport.close()
        await protocol.lost()
        await turns(1)
        assert left.fileno() == -1
        left.close()
        right.close()

    run(main)


def test_a_socket_that_the_user_shuts_down_is_at_its_eof(run: Run) -> None:
    """The socket under a transport is shut down by the user: reading sees EOF."""

    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=left
        )
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        assert await protocol.lost() is None
        assert protocol.events == ["made", "eof", "lost"]
        right.close()

    run(main)
