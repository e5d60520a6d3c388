"""Several datagrams of a callback, to an endpoint that has sent like this before.

oxloop keeps them for the end of the callback, so that they leave together. Nothing else than when
they leave may differ from asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from typing import Any, AsyncIterator, List, Optional, Tuple

import pytest
from support.backends import PY313
from support.recorders import Recording
from support.running import Run, turns
from support.sockets import LOCALHOST, bound_udp

SO_NO_CHECK = 11  # asm-generic/socket.h
ALIKE = [b"%04d" % number for number in range(150)]
MIXED = [
    b"one",
    b"two",
    b"three",
    b"",
    b"4",
    b"5",
    bytearray(b"six"),
    memoryview(b"7"),
    b"8" * 9000,
]


class Sender(Recording, asyncio.DatagramProtocol):
    """Writes down the errors."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: List[Optional[int]] = []

    def error_received(self, exc: Exception) -> None:
        """Keep the number."""
        assert isinstance(exc, OSError)
        self.errors.append(exc.errno)
        self.record("error")


@contextlib.asynccontextmanager
async def used_to_it(
    *, connected: bool, host: str = LOCALHOST
) -> AsyncIterator[Tuple[Any, Sender, socket.socket, Any]]:
    """An endpoint that is used to several datagrams a callback, its protocol, its peer and where to send."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.bind((host, 0))
        remote = peer.getsockname()[:2] if connected else None
        address = None if connected else peer.getsockname()
        transport, protocol = await loop.create_datagram_endpoint(
            Sender, local_addr=(host, 0), remote_addr=remote
        )
        transport.sendto(b"1", address)
        transport.sendto(b"2", address)
        await turns(1)
        assert await received(peer, 2) == [b"1", b"2"]
        try:
            yield transport, protocol, peer, address
        finally:
            transport.abort()
            await turns(3)


async def received(peer: socket.socket, count: int) -> List[bytes]:
    """The next `count` datagrams."""
    loop = asyncio.get_running_loop()
    return [await loop.sock_recv(peer, 65536) for _ in range(count)]


def waiting(peer: socket.socket) -> List[bytes]:
    """What has come."""
    found: List[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(peer.recv(65536))
    return found


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("host", [LOCALHOST, "::1"])
def test_each_arrives_whole_and_in_order(run: Run, host: str, *, connected: bool) -> None:
    """Alike or not, more than one system call takes, or longer than any device carries at once."""

    async def main() -> None:
        async with used_to_it(connected=connected, host=host) as (transport, protocol, peer, to):
            long = [bytes([number]) * 20_000 for number in range(8)]
            for data in (ALIKE, MIXED, [*ALIKE[:70], b"x"], long, [b"alone"]):
                sent = [bytes(one) for one in data]
                for one in data:
                    transport.sendto(one, to)
                if not PY313:
                    sent = [one for one in sent if one]  # empty ones are not sent
                assert await received(peer, len(sent)) == sent
            assert protocol.errors == []

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="an option of Linux's")
def test_a_socket_that_cannot_send_them_together(run: Run) -> None:
    """SO_NO_CHECK: without checksums nothing is cut, udp(7)."""

    async def main() -> None:
        async with used_to_it(connected=True) as (transport, protocol, peer, _):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
            for data in ALIKE:
                transport.sendto(data)
            assert await received(peer, len(ALIKE)) == ALIKE
            assert protocol.errors == []

    run(main)


def test_each_goes_to_its_own_address(run: Run) -> None:
    async def main() -> None:
        async with used_to_it(connected=False) as (transport, _, peer, to):
            with bound_udp() as other:
                for number in range(40):
                    target = other.getsockname() if number % 3 == 0 else to
                    transport.sendto(b"%02d" % number, target)
                assert await received(other, 14) == [b"%02d" % n for n in range(40) if n % 3 == 0]
                assert await received(peer, 26) == [b"%02d" % n for n in range(40) if n % 3]

    run(main)


def test_a_name_goes_behind_what_was_sent_before(run: Run) -> None:
    async def main() -> None:
        async with used_to_it(connected=False) as (transport, _, peer, to):
            transport.sendto(b"first", to)
            transport.sendto(b"second", ("localhost", to[1]))
            transport.sendto(b"third", to)
            assert await received(peer, 3) == [b"first", b"second", b"third"]

    run(main)


@pytest.mark.differs("datagrams are kept for the end of the callback")
def test_the_peer_sees_them_during_the_callback(run: Run) -> None:
    async def main() -> None:
        async with used_to_it(connected=True) as (transport, _, peer, _):
            transport.sendto(b"one")
            transport.sendto(b"two")
            assert waiting(peer) == [b"one", b"two"]

    run(main)


@pytest.mark.parametrize("end", ["size", "close", "abort", "limits", "protocol", "stop"])
def test_what_sends_them_first(run: Run, end: str) -> None:
    async def main() -> None:
        async with used_to_it(connected=True) as (transport, protocol, peer, _):
            transport.sendto(b"one")
            transport.sendto(b"two")
            if end == "size":
                assert transport.get_write_buffer_size() == 0
            elif end == "close":
                transport.close()
            elif end == "abort":
                transport.abort()
            elif end == "limits":
                transport.set_write_buffer_limits(1)
            elif end == "protocol":
                transport.set_protocol(protocol)
            else:
                await turns(1)
            assert waiting(peer) == [b"one", b"two"]
            assert "pause" not in protocol.events

    run(main)


def test_nobody_is_told_to_pause(run: Run) -> None:
    async def main() -> None:
        async with used_to_it(connected=True) as (transport, protocol, peer, _):
            for high in (0, 20, None):
                transport.set_write_buffer_limits(high)
                for data in ALIKE[:100]:
                    transport.sendto(data)
                assert await received(peer, 100) == ALIKE[:100]
            assert "pause" not in protocol.events

    run(main)


def test_an_error_is_that_of_one_datagram(run: Run) -> None:
    async def main() -> None:
        async with used_to_it(connected=True) as (transport, protocol, peer, _):
            for number in range(20):
                transport.sendto(b"x" * 65_508 if number in (3, 4, 11) else b"%d" % number)
            expected = [b"%d" % number for number in range(20) if number not in (3, 4, 11)]
            assert await received(peer, len(expected)) == expected
            assert protocol.errors == [errno.EMSGSIZE] * 3
            assert not transport.is_closing()

    run(main)


def test_who_is_not_there_is_told_of_once(run: Run) -> None:
    """The refusal of one datagram is the error of the next one, which is not sent."""

    async def main() -> None:
        async with used_to_it(connected=True) as (transport, protocol, peer, _):
            transport.pause_reading()  # a receive would take the error
            address = peer.getsockname()
            peer.close()
            transport.sendto(b"lost")
            await turns(1)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.setblocking(False)
                again.bind(address)
                for data in ALIKE[:10]:
                    transport.sendto(data)
                await turns(1)
                assert protocol.errors == [errno.ECONNREFUSED]
                assert waiting(again) == ALIKE[1:10]

    run(main)


def test_an_echo(run: Run) -> None:
    """What comes in a burst is answered in one."""

    class Echo(Sender):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=(LOCALHOST, 0))
        with bound_udp() as client:
            for _ in range(5):
                for data in ALIKE[:60]:
                    client.sendto(data, transport.get_extra_info("sockname"))
                assert await received(client, 60) == ALIKE[:60]
        transport.close()

    run(main)


class Awkward(Sender):
    """Does something when it hears of an error."""

    def __init__(self, act: str) -> None:
        super().__init__()
        self.act = act

    def error_received(self, exc: Exception) -> None:
        """Note it first."""
        super().error_received(exc)
        if self.act == "raise":
            raise ValueError("of the protocol")
        self.transport.close()


async def too_long_among_others(act: str) -> Tuple[Any, Any, socket.socket]:
    """An endpoint that has sent four datagrams in one callback, of which the third cannot go."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    peer = bound_udp()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Awkward(act), local_addr=(LOCALHOST, 0)
    )
    address = peer.getsockname()
    transport.sendto(b"1", address)
    transport.sendto(b"2", address)
    await turns(1)
    assert await received(peer, 2) == [b"1", b"2"]

    def send() -> None:
        for data in (b"a", b"b", b"!" * 65520, b"c"):
            with contextlib.suppress(ValueError):
                transport.sendto(data, address)

    loop.call_soon(send)
    await turns(3)
    return transport, protocol, peer


def test_hearing_of_an_error_raises(run: Run) -> None:
    async def main() -> None:
        transport, protocol, peer = await too_long_among_others("raise")
        with peer:
            assert await received(peer, 3) == [b"a", b"b", b"c"]
            assert protocol.errors == [errno.EMSGSIZE]
            transport.sendto(b"later", peer.getsockname())
            await turns(1)
            assert await received(peer, 1) == [b"later"]
            transport.close()
            await turns(2)

    run(main)


def test_who_hears_of_an_error_closes(run: Run) -> None:
    async def main() -> None:
        transport, protocol, peer = await too_long_among_others("close")
        with peer:
            assert transport.is_closing()
            assert protocol.errors == [errno.EMSGSIZE]
            assert protocol.events[-1] == "lost"

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="IP_RECVTTL has another number elsewhere")
def test_an_option_is_that_of_what_is_sent_afterwards(run: Run) -> None:
    ip_recvttl = 12  # linux/in.h

    async def main() -> None:
        async with used_to_it(connected=False) as (transport, _, peer, address):
            peer.setsockopt(socket.IPPROTO_IP, ip_recvttl, 1)
            sock = transport.get_extra_info("socket")
            for ttl in (11, 12, 13):
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                transport.sendto(b"%d" % ttl, address)
            await turns(1)
            for _ in range(3):
                data, ancillary, _, _ = peer.recvmsg(10, 100)
                assert ancillary[0][2][0] == int(data)

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="UDP_SEGMENT is Linux's")
def test_a_user_who_has_his_datagrams_cut(run: Run) -> None:
    udp_segment = 103  # linux/udp.h

    async def main() -> None:
        async with used_to_it(connected=False) as (transport, _, peer, address):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_UDP, udp_segment, 1000)
            for _ in range(2):
                transport.sendto(b"x" * 2500, address)
            await turns(1)
            assert [len(data) for data in await received(peer, 6)] == [1000, 1000, 500] * 2

    run(main)
