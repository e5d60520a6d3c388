"""The stream contract on each way in which a TCP transport comes to be, and what is TCP's alone."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import sys
import tracemalloc
from typing import Any, Callable, Iterator, List, Type

import pytest
from support.backends import PY312, Backend
from support.contracts import Link, StreamContract
from support.platforms import WINDOWS, of_errno
from support.recorders import Recorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, Peer, listener, pair_at, refusing_address, tcp_pair


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


@pytest.mark.unix("AF_UNIX")
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
    """Seen elsewhere: double close of an fd: the user's socket object knows that it is closed."""

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


def test_a_socket_that_the_user_closes_is_not_mistaken_for_another(
    run: Run, reports: Reports
) -> None:
    """Its number belongs to another socket by then: what is written does not go there."""

    async def main() -> None:
        left, right = tcp_pair()
        number = left.fileno()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=left
        )
        left.close()
        other, its_peer = pair_at(number)
        transport.write(b"secret")
        error = await protocol.lost()
        assert isinstance(error, OSError)
        assert error.errno == (of_errno(errno.ENOTSOCK) if WINDOWS else errno.EBADF)
        with pytest.raises(BlockingIOError):
            its_peer.recv(10)
        its_peer.send(b"alive")
        assert other.recv(10) == b"alive"
        for sock in (right, other, its_peer):
            sock.close()

    run(main)


def test_a_buffer_that_is_not_contiguous(run: Run, reports: Reports, backend: Backend) -> None:
    """A difference on purpose: asyncio takes it for a failure of the connection."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        scattered = memoryview(b"abcdef")[::2]
        if backend.is_oracle:
            transport.write(scattered)
            assert isinstance(await protocol.lost(), BufferError)
            assert isinstance(reports.take_one()["exception"], BufferError)
        else:
            with pytest.raises(BufferError):
                transport.write(scattered)
            transport.write(b"alive")
            assert await loop.sock_recv(right, 10) == b"alive"
            transport.close()
            assert await protocol.lost() is None
        right.close()

    run(main)


@pytest.mark.parametrize(
    ("last", "expected"),
    [(lambda: 1 / 0, ZeroDivisionError), (lambda: 5, TypeError)],
    ids=["raises", "of-another-type"],
)
def test_lines_of_a_generator_that_fails(
    run: Run, last: Callable[[], Any], expected: Type[Exception]
) -> None:
    """A generator tells of its error but once, so nobody may drop it."""

    def lines() -> Iterator[Any]:
        yield b"dropped"
        yield last()

    async def main() -> None:
        left, right = tcp_pair()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        with pytest.raises(expected):
            transport.writelines(lines())
        transport.writelines(line for line in [b"a", bytearray(b"live")])
        assert await loop.sock_recv(right, 10) == b"alive"
        transport.close()
        assert await protocol.lost() is None
        right.close()

    run(main)


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_an_adopted_socket_that_cannot_be_closed(run: Run, reports: Reports) -> None:
    """A socket of a class of the user's, whose close() raises: the loop goes on."""

    class Stuck(socket.socket):
        stuck = True

        def close(self) -> None:
            if self.stuck:
                raise ValueError("stuck")
            super().close()

    async def main() -> None:
        left, right = tcp_pair()
        sock = Stuck(fileno=left.detach())
        sock.setblocking(False)
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=sock
        )
        transport.close()
        await protocol.lost()
        await turns(2)
        error = reports.take_one()["exception"]
        assert isinstance(error, ValueError)
        assert str(error) == "stuck"
        sock.stuck = False
        sock.close()
        right.close()

    run(main)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # collected first
def test_an_adopted_socket_that_is_collected_with_its_transport(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found together by the collector: a warning and nothing else comes of it."""
    ignored: List[Any] = []
    left, right = tcp_pair()
    connecting = loop.create_connection(Recorder, sock=left)
    transport, protocol = loop.run_until_complete(connecting)
    transport.itself = transport
    loop.close()
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.warns(ResourceWarning, match="unclosed transport <"):
        del transport, protocol, connecting, left
        gc.collect()
    right.close()
    assert ignored == []


def test_all_errors_is_taken_by_its_truth(run: Run, backend: Backend) -> None:
    if backend.is_oracle and not PY312:
        pytest.skip("new in Python 3.12")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        failures: List[Any] = []
        with refusing_address() as address:
            for truth in (True, 1, "yes"):
                try:
                    await loop.create_connection(Recorder, *address, all_errors=truth)
                except Exception as error:
                    failures.append(type(error))
        assert failures == [failures[0]] * 3

    run(main)


@pytest.mark.parametrize("count", [1, 3000])
def test_a_small_message_costs_little_memory(run: Run, backend: Backend, count: int) -> None:
    """Seen elsewhere: reading into a fresh 256 KiB bytes for each message."""
    if backend.is_oracle:
        pytest.skip("asyncio's read is one of 256 KiB, which is cut")

    async def main() -> None:
        left, right = tcp_pair()
        with right:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                Recorder, sock=left
            )
            right.send(b"x")
            await protocol.received(1)
            tracemalloc.start()
            try:
                right.send(b"y" * count)
                await protocol.received(1 + count)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            transport.abort()
            await protocol.lost()
        assert peak < 32 * 1024

    run(main)
