"""Datagram transports: UDP over IPv4 and IPv6, and Unix datagrams."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import os
import pathlib
import re
import socket
import sys
import tempfile
import warnings
import weakref
from typing import Any, AsyncIterator, Callable, Dict, Iterator, List, Optional, Tuple

import pytest
from support.backends import PY311, PY312, PY313, Backend
from support.census import assert_flat
from support.platforms import WINDOWS, of_errno, says
from support.recorders import Recording
from support.releases import since
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, bound_udp

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")

#: What a single address that is no pair raises: Python 3.10 asserts it.
NO_PAIR = AssertionError if sys.version_info[:2] == (3, 10) else TypeError

#: Of a number that is no descriptor, and no socket.
BADF = {errno.EBADF, of_errno(errno.ENOTSOCK)} if WINDOWS else {errno.EBADF}


class DatagramRecorder(Recording, asyncio.DatagramProtocol):
    """A recording asyncio.DatagramProtocol."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: List[Tuple[bytes, Any]] = []
        self.errors: List[Exception] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Keep the datagram and the address of its sender."""
        assert type(data) is bytes, type(data)
        self.datagrams.append((data, addr))
        self.record("datagram")

    def error_received(self, exc: Exception) -> None:
        """Keep the error."""
        self.errors.append(exc)
        self.record("error")

    async def arrived(self, count: int) -> List[bytes]:
        """Wait for `count` datagrams; the data of all that have come."""
        await self.until(lambda: len(self.datagrams) >= count)
        return [data for data, _ in self.datagrams]


@contextlib.asynccontextmanager
async def endpoint(
    *arguments: Any, factory: Callable[[], Any] = DatagramRecorder, **keywords: Any
) -> AsyncIterator[Tuple[Any, Any]]:
    """A transport with its protocol, which is closed and gone after the block."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        factory, *arguments, **keywords
    )
    try:
        yield transport, protocol
    finally:
        if not transport.is_closing():
            transport.abort()
        await turns(3)


def local(**keywords: Any) -> Any:
    """An endpoint on a free port of the local host."""
    return endpoint((LOCALHOST, 0), **keywords)


@pytest.fixture
def pausing(backend: Backend) -> None:
    """Leave the test out where asyncio's own transports raise NotImplementedError."""
    if backend.is_oracle and not PY312:
        pytest.skip("asyncio's datagram transports can be paused from Python 3.12 on")


can_pause = pytest.mark.usefixtures("pausing")


def name_of(transport: Any) -> Any:
    """The address that a transport is bound to."""
    return transport.get_extra_info("sockname")


@contextlib.contextmanager
def folder() -> Iterator[pathlib.Path]:
    """A folder with a short name, as paths of sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


@contextlib.contextmanager
def unix_receiver(path: Any) -> Iterator[socket.socket]:
    """A socket that receives Unix datagrams; those do not get lost, so a sender can be held up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(str(path))
        yield sock


def unix_sender(path: Any, **keywords: Any) -> Any:
    """An endpoint that sends to `path`."""
    return endpoint(None, str(path), family=socket.AF_UNIX, **keywords)


def block(transport: Any, data: bytes = b"x" * 100) -> int:
    """Send until something is buffered; how many datagrams were sent."""
    count = 0
    while not transport.get_write_buffer_size():
        transport.sendto(data)
        count += 1
        assert count < 100_000, "nothing is ever buffered"
    return count


def take(sock: socket.socket) -> List[bytes]:
    """Receive what there is."""
    datagrams = []
    with contextlib.suppress(BlockingIOError):
        while True:
            datagrams.append(sock.recv(65536))
    return datagrams


# What a transport is


def test_it_is_asyncios_transport_to_isinstance(run: Run, backend: Backend) -> None:
    """Types that pass asyncio's `isinstance` checks."""

    async def main() -> None:
        async with local() as (transport, _):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.BaseTransport)
            if PY313 or not backend.is_oracle:
                assert isinstance(transport, asyncio.DatagramTransport)

    run(main)


def test_it_takes_new_attributes_and_replaced_methods(run: Run) -> None:
    async def main() -> None:
        async with local() as (transport, _):
            transport.colour = "red"
            assert transport.colour == "red"
            assert weakref.ref(transport)() is transport
            sent: List[bytes] = []
            transport.sendto = lambda data, addr=None: sent.append(data)
            transport.sendto(b"data")
            assert sent == [b"data"]

    run(main)


def test_extra_information(run: Run) -> None:
    async def main() -> None:
        with bound_udp() as peer:
            async with endpoint((LOCALHOST, 0), peer.getsockname()) as (transport, protocol):
                info = transport.get_extra_info
                assert isinstance(info("socket"), asyncio.trsock.TransportSocket)
                assert info("sockname") == info("socket").getsockname()
                assert info("peername") == peer.getsockname()
                assert info("no such key") is None
                assert info("no such key", "default") == "default"
                assert protocol.events == ["made"]
                assert protocol.transport is transport
                assert f"fd={info('socket').fileno()}" in repr(transport)
                transport.close()
                assert " closing " in repr(transport)
                await protocol.lost()
                await turns(1)
                assert " closed " in repr(transport)

    run(main)


def test_the_protocol_can_be_exchanged(run: Run) -> None:
    async def main() -> None:
        async with local() as (left, _), local() as (right, first):
            second = DatagramRecorder()
            right.set_protocol(second)
            assert right.get_protocol() is second
            left.sendto(b"data", name_of(right))
            assert await second.arrived(1) == [b"data"]
            assert not first.datagrams

    run(main)


# Sending and receiving


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_there_and_back(run: Run, kind: Callable[[bytes], Any]) -> None:
    async def main() -> None:
        async with local() as (left, asking), local() as (right, answering):
            left.sendto(kind(b"question"), name_of(right))
            assert await answering.arrived(1) == [b"question"]
            (_, sender) = answering.datagrams[0]
            assert sender == name_of(left)
            right.sendto(data=kind(b"answer"), addr=sender)
            assert await asking.arrived(1) == [b"answer"]
            assert asking.datagrams[0][1] == name_of(right)

    run(main)


def test_a_burst_arrives_in_order(run: Run) -> None:
    """More than one system call receives."""

    async def main() -> None:
        async with local() as (left, _), local() as (right, protocol):
            for number in range(200):
                left.sendto(b"%d" % number, name_of(right))
            assert await protocol.arrived(200) == [b"%d" % number for number in range(200)]
            assert {sender for _, sender in protocol.datagrams} == {name_of(left)}

    run(main)


def test_senders_are_told_apart(run: Run) -> None:
    async def main() -> None:
        async with local() as (one, _), local() as (two, _), local() as (right, protocol):
            for _ in range(5):
                one.sendto(b"one", name_of(right))
                two.sendto(b"two", name_of(right))
            await protocol.arrived(10)
            assert protocol.datagrams == [(b"one", name_of(one)), (b"two", name_of(two))] * 5

    run(main)


def test_the_largest_datagram(run: Run) -> None:
    async def main() -> None:
        data = os.urandom(65507)
        async with local() as (left, protocol), local() as (right, received):
            left.sendto(data, name_of(right))
            assert await received.arrived(1) == [data]
            left.sendto(data + b"x", name_of(right))
            assert [error.errno for error in protocol.errors] == [of_errno(errno.EMSGSIZE)]
            left.sendto(b"after", name_of(right))
            assert await received.arrived(2) == [data, b"after"]

    run(main)


def test_empty_datagrams_are_received(run: Run) -> None:
    """Seen elsewhere: empty datagrams dropped."""

    async def main() -> None:
        with bound_udp() as left:
            async with local() as (right, protocol):
                left.sendto(b"", name_of(right))
                left.sendto(b"x", name_of(right))
                assert await protocol.arrived(2) == [b"", b"x"]

    run(main)


def test_empty_datagrams_are_sent_from_313_on(run: Run) -> None:
    async def main() -> None:
        async with local() as (left, _), local() as (right, protocol):
            for data in (b"", bytearray(), memoryview(b""), b"x"):
                left.sendto(data, name_of(right))
            await protocol.until(lambda: (b"x", name_of(left)) in protocol.datagrams)
            assert len(protocol.datagrams) == (4 if PY313 else 1)

    run(main)


def test_ipv6(run: Run) -> None:
    """Seen elsewhere: IPv6 datagram addresses mangled."""

    async def main() -> None:
        async with endpoint(("::1", 0)) as (left, _), endpoint(("::1", 0)) as (right, protocol):
            address = name_of(right)
            assert address[0] == "::1"
            assert len(address) == 4
            targets = (address, address[:2], address[:3])
            for target in targets:
                left.sendto(b"data", target)
            await protocol.arrived(len(targets))
            assert protocol.datagrams == [(b"data", name_of(left))] * len(targets)

    run(main)


def test_names_are_looked_up_by_the_socket(run: Run) -> None:
    """A host that is no number: socket.sendto() resolves it."""

    async def main() -> None:
        async with local() as (left, protocol), local() as (right, received):
            left.sendto(b"data", ("localhost", name_of(right)[1]))
            assert await received.arrived(1) == [b"data"]
            left.sendto(b"data", ("no such host.invalid", 1))
            assert isinstance(protocol.errors[0], socket.gaierror)
            assert not left.is_closing()

    run(main)


def test_a_mixed_pair_of_families(run: Run) -> None:
    """An IPv6 socket that is open to both sees IPv4 senders in IPv6 form."""

    async def main() -> None:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        async with endpoint(sock=sock) as (right, protocol), local() as (left, answered):
            left.sendto(b"data", (LOCALHOST, name_of(right)[1]))
            await protocol.arrived(1)
            sender = ("::ffff:" + LOCALHOST, name_of(left)[1], 0, 0)
            assert protocol.datagrams == [(b"data", sender)]
            right.sendto(b"answer", sender)
            assert await answered.arrived(1) == [b"answer"]

    run(main)


def test_broadcast_is_allowed_if_asked_for(run: Run) -> None:
    async def main() -> None:
        async with endpoint((LOCALHOST, 0), ("127.255.255.255", 9), allow_broadcast=True) as (
            transport,
            protocol,
        ):
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) != 0
            assert transport.get_extra_info("peername") is None
            transport.sendto(b"data")
            transport.sendto(b"data", ("127.255.255.255", 9))
            with pytest.raises(ValueError, match="Invalid address: must be None or "):
                transport.sendto(b"data", (LOCALHOST, 9))
            assert not protocol.errors

    run(main)


# Unix datagrams


@pytest.mark.unix("AF_UNIX")
def test_unix_datagrams(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            one, two = str(parent / "one"), str(parent / "two")
            family = socket.AF_UNIX
            async with (
                endpoint(one, family=family) as (left, asking),
                endpoint(two, one, family=family) as (right, answered),
            ):
                assert name_of(right) == two
                assert right.get_extra_info("peername") == one
                right.sendto(b"question")
                assert await asking.arrived(1) == [b"question"]
                assert asking.datagrams[0][1] == two
                left.sendto(b"answer", two)
                assert await answered.arrived(1) == [b"answer"]
                large = b"l" * 150_000
                left.sendto(large, two)
                assert (await answered.arrived(2))[1] == large

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_a_unix_sender_without_a_name(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            async with endpoint(str(parent / "s"), family=socket.AF_UNIX) as (_, protocol):
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"data", str(parent / "s"))
                await protocol.arrived(1)
                assert protocol.datagrams == [(b"data", None)]

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_abstract_names(run: Run) -> None:
    async def main() -> None:
        name = f"\0oxloop-datagram-{os.getpid()}"
        async with endpoint(name, family=socket.AF_UNIX) as (_, protocol):
            async with unix_sender(name) as (sender, _):
                assert sender.get_extra_info("peername") == os.fsencode(name)
                sender.sendto(b"data")
                assert await protocol.arrived(1) == [b"data"]

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_a_stale_unix_socket_is_replaced_and_a_file_is_not(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            with unix_receiver(parent / "s"):
                pass
            async with endpoint(str(parent / "s"), family=socket.AF_UNIX) as (transport, _):
                assert name_of(transport) == str(parent / "s")
            (parent / "file").touch()
            with pytest.raises(OSError, match=says(errno.EADDRINUSE)):
                async with endpoint(str(parent / "file"), family=socket.AF_UNIX):
                    pass

    run(main)


# Errors


def test_econnrefused_keeps_the_transport_open(run: Run) -> None:
    """Seen elsewhere: ECONNREFUSED closes a UDP transport."""

    async def main() -> None:
        with bound_udp() as sock:
            address = sock.getsockname()
        async with endpoint((LOCALHOST, 0), address) as (transport, protocol):
            for _ in range(3):
                transport.sendto(b"x")
            await protocol.until_event("error")
            assert {type(error) for error in protocol.errors} == {ConnectionRefusedError}
            assert not transport.is_closing()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
                there.setblocking(False)
                there.bind(address)
                there.connect(name_of(transport))
                there.send(b"data")
                assert await protocol.arrived(1) == [b"data"]

    run(main)


def test_an_error_of_sending_is_told_at_once(run: Run) -> None:
    async def main() -> None:
        async with local() as (transport, protocol):
            transport.sendto(b"x", ("127.255.255.255", 9))
            assert [type(error) for error in protocol.errors] == [PermissionError]
            assert not transport.is_closing()

    run(main)


def test_what_error_received_raises_comes_out_of_sendto(run: Run) -> None:
    class Raising(DatagramRecorder):
        def error_received(self, exc: Exception) -> None:
            raise LookupError("from error_received")

    async def main() -> None:
        async with local(factory=Raising) as (transport, _):
            with pytest.raises(LookupError, match="from error_received"):
                transport.sendto(b"x", ("127.255.255.255", 9))

    run(main)


@pytest.mark.parametrize("address", [None, "text", (LOCALHOST, "port"), (LOCALHOST, 70000), 5])
def test_an_address_of_a_wrong_type_is_fatal(run: Run, reports: Reports, address: Any) -> None:
    async def main() -> None:
        async with local() as (transport, protocol):
            transport.sendto(b"x", address)
            error = await protocol.lost()
            assert isinstance(error, (TypeError, OverflowError))
            context = reports.take_one()
            assert context["message"] == "Fatal write error on datagram transport"
            assert context["exception"] is error
            assert context["transport"] is transport
            assert context["protocol"] is protocol

    run(main)


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]])
def test_data_of_a_wrong_type(run: Run, data: Any) -> None:
    async def main() -> None:
        async with local() as (transport, _):
            text = f"data argument must be a bytes-like object, not '{type(data).__name__}'"
            with pytest.raises(TypeError, match=text):
                transport.sendto(data, name_of(transport))

    run(main)


def test_a_connected_transport_sends_to_its_peer_alone(run: Run) -> None:
    async def main() -> None:
        with bound_udp() as peer:
            async with endpoint((LOCALHOST, 0), peer.getsockname()) as (transport, _):
                transport.sendto(b"one")
                transport.sendto(b"two", peer.getsockname())
                transport.sendto(b"three", None)
                with pytest.raises(ValueError, match="Invalid address: must be None or ") as caught:
                    transport.sendto(b"x", (LOCALHOST, 1))
                assert str(caught.value).endswith(str(peer.getsockname()))
                assert take(peer) == [b"one", b"two", b"three"]

    run(main)


def test_a_socket_that_the_user_has_connected(run: Run) -> None:
    async def main() -> None:
        with bound_udp() as peer:
            sock = bound_udp()
            sock.connect(peer.getsockname())
            async with endpoint(sock=sock) as (transport, _):
                transport.sendto(b"one")
                transport.sendto(b"two", (LOCALHOST, 1))  # asyncio: goes to the peer all the same
                assert take(peer) == [b"one", b"two"]

    run(main)


def test_what_datagram_received_raises_is_reported(run: Run, reports: Reports) -> None:
    """The transport stays open, and the rest of a burst arrives."""

    class Raising(DatagramRecorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"2":
                raise LookupError("from datagram_received")

    async def main() -> None:
        async with local() as (left, _), local(factory=Raising) as (right, protocol):
            for number in range(5):
                left.sendto(b"%d" % number, name_of(right))
            assert await protocol.arrived(5) == [b"0", b"1", b"2", b"3", b"4"]
            context = reports.take_one()
            assert isinstance(context["exception"], LookupError)
            assert context["message"].startswith("Exception in callback ")
            assert not right.is_closing()

    run(main)


def test_what_connection_made_raises_is_reported(run: Run, reports: Reports) -> None:
    class Raising(DatagramRecorder):
        def connection_made(self, transport: Any) -> None:
            raise LookupError("from connection_made")

    async def main() -> None:
        async with local(factory=Raising) as (right, protocol), local() as (left, _):
            context = reports.take_one()
            assert isinstance(context["exception"], LookupError)
            assert "Raising.connection_made(" in context["message"]
            assert isinstance(context["handle"], asyncio.Handle)
            left.sendto(b"data", name_of(right))
            assert await protocol.arrived(1) == [b"data"]

    run(main)


def test_what_connection_lost_raises_is_reported(run: Run, reports: Reports) -> None:
    class Raising(DatagramRecorder):
        def connection_lost(self, exc: Optional[BaseException]) -> None:
            super().connection_lost(exc)
            raise LookupError("from connection_lost")

    async def main() -> None:
        async with local(factory=Raising) as (transport, protocol):
            sock = transport.get_extra_info("socket")
            transport.close()
            await protocol.lost()
            await turns(1)
            context = reports.take_one()
            assert isinstance(context["exception"], LookupError)
            assert "Transport._call_connection_lost(" in context["message"]
            assert isinstance(context["handle"], asyncio.Handle)
            assert sock.fileno() == -1

    run(main)


def test_keyboard_interrupt_leaves_the_loop_and_loses_nothing(loop: Any) -> None:
    class Interrupted(DatagramRecorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"1":
                raise KeyboardInterrupt

    making = loop.create_datagram_endpoint(Interrupted, (LOCALHOST, 0))
    right, protocol = loop.run_until_complete(making)
    with bound_udp() as left:
        for number in range(4):
            left.sendto(b"%d" % number, name_of(right))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert loop.run_until_complete(protocol.arrived(4)) == [b"0", b"1", b"2", b"3"]
    right.close()
    loop.run_until_complete(protocol.lost())
    loop.run_until_complete(turns(2))


# Closing and pausing


def test_close_in_the_middle_of_a_burst(run: Run) -> None:
    class Closing(DatagramRecorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if len(self.datagrams) == 2:
                self.transport.close()

    async def main() -> None:
        async with local() as (left, _), local(factory=Closing) as (right, protocol):
            for number in range(5):
                left.sendto(b"%d" % number, name_of(right))
            assert await protocol.lost() is None
            await turns(3)
            assert protocol.events == ["made", "datagram", "datagram", "lost"]

    run(main)


@can_pause
def test_pause_in_the_middle_of_a_burst(run: Run) -> None:
    class Pausing(DatagramRecorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if len(self.datagrams) == 2:
                self.transport.pause_reading()

    async def main() -> None:
        async with local() as (left, _), local(factory=Pausing) as (right, protocol):
            for number in range(5):
                left.sendto(b"%d" % number, name_of(right))
            await protocol.arrived(2)
            assert not right.is_reading()
            await turns(5)
            assert len(protocol.datagrams) == 2
            left.sendto(b"5", name_of(right))
            right.resume_reading()
            assert right.is_reading()
            assert await protocol.arrived(6) == [b"%d" % number for number in range(6)]

    run(main)


@can_pause
def test_pausing_and_resuming_again_and_again(run: Run) -> None:
    async def main() -> None:
        async with local() as (left, _), local() as (right, protocol):
            right.resume_reading()
            right.pause_reading()
            right.pause_reading()
            left.sendto(b"x", name_of(right))
            await turns(5)
            assert not protocol.datagrams
            right.resume_reading()
            right.resume_reading()
            assert await protocol.arrived(1) == [b"x"]

    run(main)


def test_close_is_asked_for_twice(run: Run) -> None:
    async def main() -> None:
        async with local() as (transport, protocol):
            transport.close()
            assert transport.is_closing()
            transport.close()
            transport.abort()
            assert protocol.events == ["made"]
            assert await protocol.lost() is None
            await turns(3)
            assert protocol.events == ["made", "lost"]
            transport.close()
            transport.abort()

    run(main)


def test_sending_to_a_closed_peer_transport_is_dropped(run: Run) -> None:
    """asyncio: from the fifth on, what is sent to a lost connection is logged."""

    class Counting(logging.Handler):
        def __init__(self) -> None:
            super().__init__(logging.WARNING)
            self.messages: List[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.messages.append(record.getMessage())

    async def main() -> None:
        counting = Counting()
        logging.getLogger("asyncio").addHandler(counting)
        with bound_udp() as peer:
            async with endpoint((LOCALHOST, 0), peer.getsockname()) as (transport, protocol):
                transport.abort()
                await protocol.lost()
                for _ in range(7):
                    transport.sendto(b"x")
                assert take(peer) == []
        logging.getLogger("asyncio").removeHandler(counting)
        assert counting.messages == ["socket.send() raised exception."] * 3

    run(main)


def test_sending_on_a_closed_transport(run: Run, backend: Backend) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio trips over its own None")

    async def main() -> None:
        async with local() as (transport, protocol):
            name = name_of(transport)
            transport.close()
            await protocol.lost()
            await turns(1)
            transport.sendto(b"x", name)
            assert protocol.events == ["made", "lost"]

    run(main)


def test_the_users_socket_is_closed_with_the_transport(run: Run) -> None:
    async def main() -> None:
        sock = bound_udp()
        async with endpoint(sock=sock) as (transport, protocol):
            transport.close()
            await protocol.lost()
            await turns(1)
            assert sock.fileno() == -1

    run(main)


@can_pause
def test_a_socket_that_the_user_closes(run: Run) -> None:
    async def main() -> None:
        sock = bound_udp()
        async with endpoint(sock=sock) as (transport, protocol):
            transport.pause_reading()
            sock.close()
            transport.sendto(b"x", (LOCALHOST, 9))
            (error,) = protocol.errors
            assert error.errno in BADF

    run(main)


@can_pause
def test_a_transport_that_is_dropped_warns(run: Run, backend: Backend) -> None:
    async def main() -> None:
        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            DatagramRecorder, (LOCALHOST, 0)
        )
        transport.pause_reading()  # nothing of the loop refers to it any more
        protocol.transport = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport, protocol
            gc.collect()
        texts = [str(warning.message) for warning in caught]
        assert any(text.startswith("unclosed transport <") for text in texts), texts
        assert any(warning.category is ResourceWarning for warning in caught)

    run(main)


# The write buffer


@pytest.mark.unix("AF_UNIX")
def test_what_the_kernel_does_not_take_is_sent_later(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent, unix_receiver(parent / "s") as peer:
            async with unix_sender(parent / "s") as (transport, _):
                count = block(transport, b"0" * 100)
                changing = bytearray(b"1" * 100)
                transport.sendto(changing)
                changing[:] = b"2" * 100
                got: List[bytes] = []
                while len(got) < count + 1:
                    got.append(await loop.sock_recv(peer, 1000))
                assert got == [b"0" * 100] * count + [b"1" * 100]

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_the_size_of_the_buffer(run: Run) -> None:
    """From Python 3.13 on a datagram counts with a header of eight bytes."""

    async def main() -> None:
        with folder() as parent, unix_receiver(parent / "s"):
            async with unix_sender(parent / "s") as (transport, _):
                assert transport.get_write_buffer_size() == 0
                block(transport)
                header = 8 if PY313 else 0
                assert transport.get_write_buffer_size() == 100 + header
                transport.sendto(b"x" * 50)
                assert transport.get_write_buffer_size() == 150 + 2 * header

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_pause_and_resume_writing(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent, unix_receiver(parent / "s") as peer:
            async with unix_sender(parent / "s") as (transport, protocol):
                transport.set_write_buffer_limits(high=1000, low=700)
                assert transport.get_write_buffer_limits() == (700, 1000)
                sent = block(transport)
                assert "pause" not in protocol.events
                while "pause" not in protocol.events:
                    transport.sendto(b"x" * 100)
                    sent += 1
                assert transport.get_write_buffer_size() > 1000
                for _ in range(sent):
                    await loop.sock_recv(peer, 1000)
                await protocol.until_event("resume")
                assert protocol.events == ["made", "pause", "resume"]

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_the_buffer_is_empty_in_the_end(run: Run, backend: Backend) -> None:
    if backend.is_oracle and PY313 and not since((3, 13, 6), (3, 14, 1)):
        pytest.skip("asyncio's buffer never gets empty again (gh-135444)")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent, unix_receiver(parent / "s") as peer:
            async with unix_sender(parent / "s") as (transport, protocol):
                transport.set_write_buffer_limits(0)
                count = block(transport)
                assert protocol.events == ["made", "pause"]
                for _ in range(count):
                    await loop.sock_recv(peer, 1000)
                await protocol.until_event("resume")
                assert transport.get_write_buffer_size() == 0

    run(main)


def test_wrong_limits(run: Run) -> None:
    async def main() -> None:
        async with local() as (transport, _):
            assert transport.get_write_buffer_limits() == (16384, 65536)
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
                transport.set_write_buffer_limits(1, 2)

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_close_sends_what_is_buffered(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent, unix_receiver(parent / "s") as peer:
            async with unix_sender(parent / "s") as (transport, protocol):
                count = block(transport)
                transport.close()
                await turns(3)
                assert "lost" not in protocol.events
                for _ in range(count):
                    await loop.sock_recv(peer, 1000)
                assert await protocol.lost() is None

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_abort_drops_what_is_buffered(run: Run) -> None:
    async def main() -> None:
        with folder() as parent, unix_receiver(parent / "s") as peer:
            async with unix_sender(parent / "s") as (transport, protocol):
                count = block(transport)
                transport.abort()
                assert await protocol.lost() is None
                assert len(take(peer)) == count - 1

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_a_peer_that_goes_away_while_something_is_buffered(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            peer.bind(str(parent / "s"))
            peer.setblocking(False)
            async with unix_sender(parent / "s") as (transport, protocol):
                block(transport)
                peer.close()
                await protocol.until_event("error")
                assert isinstance(protocol.errors[0], ConnectionRefusedError)
                await turns(3)
                assert not transport.is_closing()

    run(main)


# Contexts


@can_pause
def test_the_contexts_of_callbacks(run: Run) -> None:
    class Contextual(DatagramRecorder):
        def __init__(self) -> None:
            super().__init__()
            self.seen: Dict[str, str] = {}

        def record(self, event: str) -> None:
            self.seen[event] = VARIABLE.get()
            super().record(event)

    async def main() -> None:
        VARIABLE.set("of who made it")
        async with local(factory=Contextual) as (right, protocol), local() as (left, _):
            VARIABLE.set("of who sends")
            left.sendto(b"x", name_of(right))
            await protocol.arrived(1)
            right.pause_reading()
            VARIABLE.set("of who resumes")
            right.resume_reading()
            assert protocol.seen == {"made": "of who made it", "datagram": "of who made it"}
            left.sendto(b"x", name_of(right))
            await protocol.arrived(2)
            assert protocol.seen["datagram"] == "of who resumes"
            VARIABLE.set("of who closes")
            right.close()
            await protocol.lost()
            assert protocol.seen["lost"] == "of who closes"

    run(main)


# Making endpoints


def any_but_streams() -> bool:
    """gh-114887: the rule changed in releases of 3.11 and 3.12."""
    version = sys.version_info
    return version >= (3, 12, 3) or (PY311 and not PY312 and version >= (3, 11, 9))


def refusals() -> Dict[str, Tuple[Any, ...]]:
    """Arguments of create_datagram_endpoint(), the error and its text."""
    return {
        "nothing": ((), {}, ValueError, "^unexpected address family$"),
        "a list": (([LOCALHOST, 0],), {}, NO_PAIR, "^2-tuple is expected$"),
        "a triple": (((LOCALHOST, 0, 0),), {}, NO_PAIR, "^2-tuple is expected$"),
        "a wrong remote": ((None, LOCALHOST), {}, NO_PAIR, "^2-tuple is expected$"),
        "two families": (
            ((LOCALHOST, 0), ("::1", 9)),
            {},
            ValueError,
            "^can not get address information$",
        ),
        "no such address": ((("192.0.2.1", 0),), {}, OSError, says(errno.EADDRNOTAVAIL)),
        "no such host": ((("no such host.invalid", 0),), {}, socket.gaierror, ""),
        "an unknown keyword": ((), {"colour": "red"}, TypeError, "colour"),
    }


UNIX = getattr(socket, "AF_UNIX", None)


def unix_refusals() -> Dict[str, Tuple[Any, ...]]:
    """The same of those with a path."""
    return {
        "a path that is no string": (
            (b"path",),
            {"family": UNIX},
            TypeError,
            "^string is expected$",
        ),
        "a remote path that is no string": (
            (None, b"path"),
            {"family": UNIX},
            TypeError,
            "^string is expected$",
        ),
        "nobody at the path": (
            (None, "/no such path"),
            {"family": UNIX},
            FileNotFoundError,
            "",
        ),
    }


@pytest.mark.unix("AF_UNIX")
@pytest.mark.parametrize("name", list(unix_refusals()))
def test_what_create_datagram_endpoint_refuses_of_paths(run: Run, name: str) -> None:
    refuses(run, unix_refusals()[name])


@pytest.mark.parametrize("name", list(refusals()))
def test_what_create_datagram_endpoint_refuses(run: Run, name: str) -> None:
    refuses(run, refusals()[name])


def refuses(run: Run, case: Tuple[Any, ...]) -> None:
    arguments, keywords, error, text = case

    async def main() -> None:
        with pytest.raises(error, match=text or None):
            await asyncio.get_running_loop().create_datagram_endpoint(
                DatagramRecorder, *arguments, **keywords
            )

    run(main)


def test_a_stream_socket_is_refused(run: Run) -> None:
    name = "datagram socket" if any_but_streams() else "UDP Socket"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock, pytest.raises(ValueError, match=f"A {name} was expected, "):
            await loop.create_datagram_endpoint(DatagramRecorder, sock=sock)

    run(main)


@pytest.mark.parametrize(
    "keywords",
    [
        {"local_addr": (LOCALHOST, 0)},
        {"remote_addr": (LOCALHOST, 9)},
        {"family": socket.AF_INET},
        {"family": 1, "proto": 17, "flags": 8},
        {"reuse_port": True},
        {"local_addr": (LOCALHOST, 0), "allow_broadcast": True},
    ],
)
def test_a_socket_is_all_there_is_to_say(run: Run, keywords: Dict[str, Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with bound_udp() as sock, pytest.raises(ValueError, match="socket modifier") as caught:
            await loop.create_datagram_endpoint(DatagramRecorder, sock=sock, **keywords)
        text, listed = str(caught.value).split(" (", 1)
        assert text == ("socket modifier keyword arguments can not be used when sock is specified.")
        assert listed.endswith(")")
        if not PY311:  # asyncio lists what stands for no `reuse_address`
            listed = re.sub("reuse_address=<.*?>(, )?", "", listed).replace(", )", ")")
        assert listed == ", ".join(f"{name}={value}" for name, value in keywords.items()) + ")"

    run(main)


@pytest.mark.skipif(PY311, reason="gone in Python 3.11")
def test_reuse_address_before_311(run: Run) -> None:
    async def main() -> None:
        create = asyncio.get_running_loop().create_datagram_endpoint
        with pytest.raises(ValueError, match="Passing `reuse_address=True` is no longer supported"):
            await create(DatagramRecorder, (LOCALHOST, 0), reuse_address=True)
        with pytest.warns(DeprecationWarning, match=r"The \*reuse_address\* parameter has been"):
            transport, protocol = await create(
                DatagramRecorder, (LOCALHOST, 0), reuse_address=False
            )
        transport.close()
        await protocol.lost()
        await turns(1)

    run(main)


@pytest.mark.skipif(not PY311, reason="gone in Python 3.11")
def test_reuse_address_from_311_on(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'reuse_address'"):
            await asyncio.get_running_loop().create_datagram_endpoint(
                DatagramRecorder, (LOCALHOST, 0), reuse_address=None
            )

    run(main)


@pytest.mark.unix("SO_REUSEPORT")
def test_reuse_port(run: Run) -> None:
    async def main() -> None:
        async with local(reuse_port=True) as (one, _):
            async with endpoint(name_of(one), reuse_port=True) as (two, _):
                assert name_of(one) == name_of(two)
            with pytest.raises(OSError, match=says(errno.EADDRINUSE)):
                async with endpoint(name_of(one)):
                    pass

    run(main)


def test_a_family_alone(run: Run) -> None:
    async def main() -> None:
        async with endpoint(family=socket.AF_INET) as (left, _), local() as (right, protocol):
            left.sendto(b"data", name_of(right))
            assert await protocol.arrived(1) == [b"data"]

    run(main)


def test_the_first_error_of_many_addresses(run: Run) -> None:
    """Each address is tried; when all fail, the first error is raised."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        infos = [
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 0)),
            (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", 0, 0, 0)),
        ]

        async def getaddrinfo(*_: Any, **__: Any) -> Any:
            return infos

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
        async with endpoint(("name", 0)) as (transport, _):
            assert name_of(transport)[0] == "::1"
        del infos[1]
        with pytest.raises(OSError, match=says(errno.EADDRNOTAVAIL)):
            async with endpoint(("name", 0)):
                pass
        del infos[0]
        with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list"):
            async with endpoint(("name", 0)):
                pass

    run(main)


def test_a_factory_that_raises(run: Run) -> None:
    async def main() -> None:
        def factory() -> Any:
            raise LookupError("from the factory")

        with bound_udp() as sock, pytest.raises(LookupError, match="from the factory"):
            await asyncio.get_running_loop().create_datagram_endpoint(factory, sock=sock)

    run(main)


def test_a_cancelled_endpoint_is_closed(run: Run) -> None:
    async def main() -> None:
        made: List[Any] = []

        def factory() -> Any:
            made.append(DatagramRecorder())
            return made[0]

        task = asyncio.ensure_future(
            asyncio.get_running_loop().create_datagram_endpoint(factory, (LOCALHOST, 0))
        )
        while not made:
            await turns(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await made[0].lost() is None
        await turns(2)

    run(main)


def test_its_descriptor_is_guarded(run: Run) -> None:
    """asyncio: add_reader() refuses the descriptor of a transport."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with local() as (transport, _):
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(transport.get_extra_info("socket").fileno(), print)

    run(main)


def test_debug_mode_logs_the_endpoint(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with local() as (transport, protocol):
            expected = (
                f"Datagram endpoint local_addr={(LOCALHOST, 0)!r} remote_addr=None created: "
                f"({transport!r}, {protocol!r})"
            )
            start, _, end = expected.partition(": (")
            messages = [record.getMessage() for record in caplog.records]
            assert any(text.startswith(start) and repr(protocol) in text for text in messages), end

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main, debug=True)


def test_nothing_is_leaked(run: Run) -> None:
    """What comes and goes many times leaves nothing behind."""

    async def main() -> None:
        async with local() as (left, _), local() as (right, protocol):
            target = name_of(right)

            async def once() -> None:
                protocol.datagrams.clear()
                left.sendto(b"data", target)
                await protocol.arrived(1)
                protocol.events.clear()
                async with local() as (transport, _):
                    transport.sendto(b"x", target)
                    await protocol.arrived(2)

            await assert_flat(once, 200)

    run(main)
