"""TLS: who waits for whom, and what a protocol may do when its connection is made."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest
from support.backends import Backend
from support.recorders import BufferedRecorder, Recorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import tcp_pair
from support.tls import (
    MEGABYTE,
    NAME,
    NEW,
    Authority,
    Closing,
    TlsPeer,
    client_of,
    server_of,
)

# Buffers of protocols


@NEW
@pytest.mark.parametrize("size", [1, 100, 16384, 1 << 20])
def test_a_buffered_protocol(run: Run, authority: Authority, size: int) -> None:
    class Recording(BufferedRecorder):
        def __init__(self) -> None:
            super().__init__(size)

        def get_buffer(self, sizehint: int) -> Any:
            return memoryview(super().get_buffer(sizehint))

    async def main() -> None:
        async with client_of(authority, Recording) as (end, peer):
            message = MEGABYTE[: size * 20]
            sending = asyncio.ensure_future(peer.say(b"a", b"b", message, b"c", b"d"))
            data = b"ab" + message + b"cd"
            assert await end.protocol.received(len(data)) == data
            assert max(end.protocol.counts) <= size
            await sending

    run(main)


def test_small_messages_into_a_bytearray(run: Run, authority: Authority, backend: Backend) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio decrypts the second one into a copy of the bytearray")

    async def main() -> None:
        async with client_of(authority, BufferedRecorder) as (end, peer):
            await peer.say(b"first", b"second", b"third")
            assert await end.protocol.received(16) == b"firstsecondthird"

    run(main)


@NEW
@pytest.mark.parametrize("buffered", [False, True], ids=["plain", "buffered"])
def test_what_has_come_when_an_exception_leaves_the_loop(
    loop: Any, authority: Authority, buffered: bool
) -> None:
    """The rest of it is delivered when the loop runs again."""
    message = MEGABYTE[:200_000]
    left = [KeyboardInterrupt, SystemExit]

    class Leaving(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if left:
                raise left.pop()

    class LeavingBuffered(BufferedRecorder):
        def __init__(self) -> None:
            super().__init__(1000)

        def get_buffer(self, sizehint: int) -> Any:
            return memoryview(super().get_buffer(sizehint))

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            if left:
                raise left.pop()

    async def connect() -> Any:
        ours, theirs = tcp_pair()
        peer = TlsPeer(theirs, authority.server(), server_side=True)
        connecting = asyncio.ensure_future(
            loop.create_connection(
                LeavingBuffered if buffered else Leaving,
                sock=ours,
                ssl=authority.client(),
                server_hostname=NAME,
            )
        )
        await peer.handshake()
        return (*await connecting, peer)

    transport, protocol, peer = loop.run_until_complete(connect())
    with contextlib.closing(peer):
        saying = loop.create_task(peer.say(message, b"end"))
        receiving = loop.create_task(protocol.received(len(message) + 3))
        for error in (SystemExit, KeyboardInterrupt):
            with pytest.raises(error):
                loop.run_until_complete(receiving)
        assert loop.run_until_complete(receiving) == message + b"end"
        loop.run_until_complete(saying)
        transport.abort()
        loop.run_until_complete(turns(3))


@NEW
@pytest.mark.parametrize("fault", ["raises", "read-only", "no buffer"])
def test_get_buffer_that_fails(
    run: Run, authority: Authority, reports: Reports, fault: str
) -> None:
    class Failing(BufferedRecorder):
        failing = False

        def get_buffer(self, sizehint: int) -> Any:
            if not self.failing:
                return super().get_buffer(sizehint)
            if fault == "raises":
                raise ZeroDivisionError
            return bytes(10) if fault == "read-only" else object()

    async def main() -> None:
        async with client_of(authority, Failing) as (end, peer):
            end.protocol.failing = True
            await peer.say(b"data")
            expected = ZeroDivisionError if fault == "raises" else TypeError
            assert type(await end.protocol.lost()) is expected
            context = reports.take_one()
            assert context["message"] == "Fatal error on SSL protocol"
            assert type(context["exception"]) is expected

    run(main)


@NEW
def test_protocols_of_both_kinds_in_turn(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            plain, buffered = end.protocol, BufferedRecorder()
            for protocol in (plain, buffered, plain, buffered):
                end.transport.set_protocol(protocol)
                assert end.transport.get_protocol() is protocol
                before = len(protocol.data)
                await peer.say(b"data")
                await protocol.received(before + 4)
            assert plain.data == buffered.data == b"datadata"
            end.transport.abort()
            await buffered.lost()
            assert "lost" not in plain.events

    run(main)


# Waiting


@NEW
def test_reading_is_paused_in_the_middle_of_what_came(run: Run, authority: Authority) -> None:
    class Pausing(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    async def main() -> None:
        async with client_of(authority, lambda: Pausing(16)) as (end, peer):
            await peer.say(bytes(range(64)))
            for count in (16, 32, 48, 64):
                assert await end.protocol.received(count) == bytes(range(count))
                await turns(5)
                assert len(end.protocol.data) == count
                assert not end.transport.is_reading()
                end.transport.resume_reading()
            assert end.transport.is_reading()

    run(main)


@NEW
def test_the_read_buffer(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            transport = end.transport
            assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
            assert transport.get_read_buffer_size() == 0
            transport.set_read_buffer_limits(high=1000)
            assert transport.get_read_buffer_limits() == (250, 1000)
            transport.pause_reading()
            wire = peer.encrypt(MEGABYTE[:5000])
            await peer.send(wire)
            while transport.get_read_buffer_size() < len(wire):
                await turns(1)
            below = transport._ssl_protocol._transport
            assert not below.is_reading()
            transport.resume_reading()
            assert await end.protocol.received(5000) == MEGABYTE[:5000]
            assert transport.get_read_buffer_size() == 0
            await turns(1)
            assert below.is_reading()
            for limits in ({"high": 1, "low": 2}, {"low": -1}):
                with pytest.raises(ValueError, match=r"^high \(-?\d+\) must be >= low"):
                    transport.set_read_buffer_limits(**limits)

    run(main)


@NEW
def test_the_write_buffer(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            transport = end.transport
            assert transport.get_write_buffer_limits() == (128 * 1024, 512 * 1024)
            transport.set_write_buffer_limits(high=1000)
            assert transport.get_write_buffer_limits() == (250, 1000)
            transport.set_write_buffer_limits(low=100)
            assert transport.get_write_buffer_limits() == (100, 400)
            with pytest.raises(ValueError, match=r"^high \(1\) must be >= low \(2\) must be >= 0$"):
                transport.set_write_buffer_limits(1, 2)
            assert transport.get_write_buffer_limits() == (100, 400)
            written = 0
            while "pause" not in end.protocol.events:
                assert transport.get_write_buffer_size() < 400
                transport.write(MEGABYTE)
                written += 1
            assert transport.get_write_buffer_size() >= 400
            await peer.hear(written * len(MEGABYTE))
            await end.protocol.until_event("resume")
            assert transport.get_write_buffer_size() <= 100

    run(main)


@NEW
@pytest.mark.parametrize("goodbye", [False, True])
def test_what_is_buffered_is_sent_to_a_peer_that_sends_no_more(
    run: Run, authority: Authority, goodbye: bool
) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            written = 0
            while "pause" not in end.protocol.events:
                end.transport.write(MEGABYTE)
                written += len(MEGABYTE)
            if goodbye:
                await peer.send(peer.encrypt(close_notify=True))
            else:
                peer.send_eof()
            await end.protocol.until_event("eof")
            assert len(await peer.hear(written)) == written
            if goodbye:
                await peer.unwrap()
            assert await end.protocol.lost() is None

    run(main)


def test_a_slow_peer_and_close(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with server_of(authority) as (end, peer):
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            for _ in range(3):
                end.transport.write(MEGABYTE)
            end.transport.close()
            heard = 0
            while heard < 3 * len(MEGABYTE):
                heard += len(await peer.hear(30_000))
                await turns(1)
            assert heard == 3 * len(MEGABYTE)
            await peer.unwrap()
            assert await end.protocol.lost() is None

    run(main)


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
@NEW
def test_flow_control_that_raises(
    run: Run, authority: Authority, reports: Reports, name: str
) -> None:
    def fail(self: Any) -> None:
        self.record(name)
        raise ZeroDivisionError

    async def main() -> None:
        protocol_class = type("Failing", (Closing,), {name: fail})
        async with server_of(authority, protocol_class) as (end, peer):
            end.transport.set_write_buffer_limits(high=1000)
            written = 0
            while not {"pause", "pause_writing"} & set(end.protocol.events):
                end.transport.write(MEGABYTE)
                written += len(MEGABYTE)
            assert len(await peer.hear(written)) == written
            while not reports.contexts:
                await turns(1)
            context = reports.take_one()
            assert context["message"] == f"protocol.{name}() failed"
            assert context["transport"] is end.transport
            end.transport.write(b"and on it goes")
            assert await peer.hear(14) == b"and on it goes"

    run(main)


# What a protocol does when its connection is made


@pytest.mark.parametrize("call", ["close", "abort"])
def test_a_connection_that_is_ended_when_it_is_made(
    run: Run, authority: Authority, call: str
) -> None:
    class Ending(Closing):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"x")
            getattr(transport, call)()

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, authority.client())) as peer:
            accepting = asyncio.ensure_future(
                loop.connect_accepted_socket(Ending, left, ssl=authority.server())
            )
            await peer.handshake()
            assert await peer.hear(1) == b"x"
            transport, protocol = await accepting
            if call == "close":
                await peer.unwrap()
            assert await protocol.lost() is None
            assert transport.is_closing()

    run(main)


def test_a_protocol_that_does_not_read_at_first(
    run: Run, authority: Authority, backend: Backend
) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio then keeps the end of its handshake to itself")

    class Pausing(Closing):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    async def main() -> None:
        async with client_of(authority, Pausing) as (end, peer):
            await peer.say(b"data")
            await turns(5)
            assert end.protocol.events == ["made"]
            end.transport.resume_reading()
            assert await end.protocol.received(4) == b"data"

    run(main)


@NEW
def test_connection_made_that_raises(run: Run, authority: Authority, reports: Reports) -> None:
    class Failing(Closing):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            raise ZeroDivisionError

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        protocol = Failing()
        with contextlib.closing(TlsPeer(right, authority.server(), server_side=True)) as peer:
            connecting = asyncio.ensure_future(
                loop.create_connection(
                    lambda: protocol, sock=left, ssl=authority.client(), server_hostname=NAME
                )
            )
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await peer.handshake()
            with pytest.raises(ZeroDivisionError):
                await connecting
            assert isinstance(await protocol.lost(), ZeroDivisionError)
            context = reports.take_one()
            assert context["message"] == ("Fatal error: protocol.buffer_updated() call failed.")
            assert isinstance(context["exception"], ZeroDivisionError)
        await turns(3)

    run(main)


@NEW
def test_eof_received_that_raises(run: Run, authority: Authority, reports: Reports) -> None:
    class Failing(Closing):
        def eof_received(self) -> bool:
            raise ZeroDivisionError

    async def main() -> None:
        async with client_of(authority, Failing) as (end, peer):
            peer.send_eof()
            assert isinstance(await end.protocol.lost(), ZeroDivisionError)
            assert reports.take_one()["message"] == "Error calling eof_received()"

    run(main)


def test_what_was_written_comes_before_what_is_done_to_the_socket(
    run: Run, authority: Authority
) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            end.transport.write(b"written")
            end.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
            assert await peer.hear(7) == b"written"
            assert await peer.receive_to_eof() == b""
            end.transport.abort()
            await end.protocol.lost()

    run(main)
