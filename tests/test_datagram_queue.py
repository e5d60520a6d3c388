"""Datagrams that wait for room: many leave at once, each with its own fate."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any, AsyncIterator, Dict, List, Optional, Tuple

import pytest
from support.backends import PY313, Backend
from support.recorders import Recording
from support.releases import since
from support.running import Run, turns

pytestmark = pytest.mark.unix("AF_UNIX")

SMALL = 8192  # bytes: of a socket's buffer; a longer datagram is none


class Sender(Recording, asyncio.DatagramProtocol):
    """Writes down the errors."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: List[OSError] = []
        #: What is sent when an error comes.
        self.answer: Optional[bytes] = None

    def error_received(self, exc: Exception) -> None:
        """Keep the error."""
        assert isinstance(exc, OSError)
        self.errors.append(exc)
        if self.answer is not None:
            self.transport.sendto(self.answer)
        self.record("error")


@contextlib.asynccontextmanager
async def blocked(backend: Backend) -> AsyncIterator[Tuple[Any, Sender, socket.socket, int]]:
    """A transport that has no room, its protocol, its peer, and how many datagrams were sent."""
    if backend.is_oracle and PY313 and not since((3, 13, 6), (3, 14, 1)):
        pytest.skip("asyncio's buffer never gets empty again (gh-135444)")
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    right = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    right.bind("")  # to any abstract name: asyncio takes a peer without a name for none, unix(7)
    left.connect(right.getsockname())
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    right.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Sender, sock=left)
    count = 0
    while not transport.get_write_buffer_size():
        transport.sendto(b"first")
        count += 1
    try:
        yield transport, protocol, right, count
    finally:
        right.close()
        if not transport.is_closing():
            transport.abort()
        await turns(3)


async def received(peer: socket.socket, count: int) -> List[bytes]:
    """The next `count` datagrams."""
    loop = asyncio.get_running_loop()
    return [await loop.sock_recv(peer, 2 * SMALL) for _ in range(count)]


def test_the_order_is_kept(run: Run, backend: Backend) -> None:
    """More than one system call takes, with the empty ones that there are from Python 3.13 on."""

    async def main() -> None:
        async with blocked(backend) as (transport, protocol, peer, count):
            expected = [b"first"] * count
            for number in range(200):
                data = b"" if PY313 and number % 7 == 0 else b"%d" % number
                transport.sendto(data)
                expected.append(data)
            assert await received(peer, len(expected)) == expected
            await turns(3)
            assert transport.get_write_buffer_size() == 0
            assert protocol.errors == []

    run(main)


def test_views_are_copied_and_bytes_held(run: Run, backend: Backend) -> None:
    async def main() -> None:
        async with blocked(backend) as (transport, _, peer, count):
            buffer = bytearray(b"buffer")
            for data in (buffer, memoryview(buffer)[1:4], b"bytes"):
                transport.sendto(data)
            buffer[:] = b"......"
            assert (await received(peer, count + 3))[count:] == [b"buffer", b"uff", b"bytes"]

    run(main)


@pytest.mark.parametrize("place", [0, 1, 31, 40, 50])
def test_an_error_is_that_of_its_datagram(run: Run, backend: Backend, place: int) -> None:
    """Those before it and those behind it are sent, each once."""

    async def main() -> None:
        async with blocked(backend) as (transport, protocol, peer, count):
            others = [b"%d" % number for number in range(50)]
            for number, data in enumerate([*others, b"last"]):
                if number == place:
                    transport.sendto(b"x" * 2 * SMALL)
                transport.sendto(data)
            assert await received(peer, count + 51) == [b"first"] * count + [*others, b"last"]
            assert [error.errno for error in protocol.errors] == [errno.EMSGSIZE]
            assert not transport.is_closing()
            assert transport.get_write_buffer_size() == 0

    run(main)


def test_what_is_sent_after_an_error_goes_behind_the_others(run: Run, backend: Backend) -> None:
    async def main() -> None:
        async with blocked(backend) as (transport, protocol, peer, count):
            protocol.answer = b"answer"
            for data in (b"a", b"x" * 2 * SMALL, b"b", b"c"):
                transport.sendto(data)
            expected = [b"first"] * count + [b"a", b"b", b"c", b"answer"]
            assert await received(peer, len(expected)) == expected

    run(main)


def test_close_sends_what_follows_an_error(run: Run, backend: Backend) -> None:
    async def main() -> None:
        async with blocked(backend) as (transport, protocol, peer, count):
            for data in (b"a", b"x" * 2 * SMALL, b"b"):
                transport.sendto(data)
            transport.close()
            expected = [b"first"] * count + [b"a", b"b"]
            assert await received(peer, len(expected)) == expected
            assert await protocol.lost() is None
            assert [error.errno for error in protocol.errors] == [errno.EMSGSIZE]

    run(main)


def test_a_peer_that_goes_away(run: Run, backend: Backend) -> None:
    """Each datagram that waits has its own error, in a turn of its own, as with asyncio."""

    async def main() -> None:
        async with blocked(backend) as (transport, protocol, peer, _):
            for _ in range(3):
                transport.sendto(b"more")
            peer.close()
            await protocol.until(lambda: len(protocol.errors) == 4)
            assert isinstance(protocol.errors[0], ConnectionRefusedError)
            await turns(3)
            assert transport.get_write_buffer_size() == 0
            assert not transport.is_closing()

    run(main)


def test_what_error_received_raises_is_reported(run: Run, backend: Backend, reports: Any) -> None:
    """The rest of the queue is sent all the same."""

    async def main() -> None:
        async with blocked(backend) as (transport, protocol, peer, count):

            def refuse(exc: Exception) -> None:
                raise ZeroDivisionError

            protocol.error_received = refuse  # type: ignore[method-assign]
            for data in (b"x" * 2 * SMALL, b"b", b"c"):
                transport.sendto(data)
            assert await received(peer, count + 2) == [b"first"] * count + [b"b", b"c"]

    run(main)
    context: Dict[str, Any] = reports.take_one()
    assert isinstance(context["exception"], ZeroDivisionError)


def test_flow_control_follows_what_was_sent(run: Run, backend: Backend) -> None:
    async def main() -> None:
        async with blocked(backend) as (transport, protocol, peer, count):
            transport.set_write_buffer_limits(high=2000, low=1000)
            for _ in range(40):
                transport.sendto(b"x" * 100)
            assert protocol.events == ["made", "pause"]
            await received(peer, count + 40)
            await protocol.until_event("resume")
            assert protocol.events == ["made", "pause", "resume"]

    run(main)
