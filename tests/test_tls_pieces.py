"""TLS: in what pieces data goes through it, and into whose buffers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from typing import Any, List, Tuple

import pytest
from support.backends import Backend
from support.recorders import BufferedRecorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import tcp_pair
from support.tls import (
    EITHER_SIDE,
    MEGABYTE,
    NAME,
    NEW,
    VERSIONS,
    Authority,
    Closing,
    TlsPeer,
    both_ends,
    client_of,
    limited,
    server_of,
)


def records_of(wire: bytes) -> List[Tuple[int, int]]:
    """The kind and the length of each record on the wire: RFC 8446, section 5.1."""
    records = []
    while wire:
        length = int.from_bytes(wire[3:5], "big")
        records.append((wire[0], length))
        wire = wire[5 + length :]
    return records


# Pieces


@VERSIONS
@EITHER_SIDE
def test_a_wire_that_delivers_byte_by_byte(
    run: Run, authority: Authority, side: Any, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        server = limited(authority.server(), version)
        async with side(authority, server=server) as (end, peer):
            for byte in peer.encrypt(b"first", b"second"):
                await peer.send(bytes([byte]))
                await turns(2)
            assert await end.protocol.received(11) == b"firstsecond"
            for byte in peer.encrypt(close_notify=True):
                await peer.send(bytes([byte]))
                await turns(2)
            peer.send_eof()
            assert await end.protocol.lost() is None

    run(main)


@pytest.mark.parametrize("size", [1, 5, 21, 16384, 16406, 65536, 1 << 20])
def test_records_cut_anywhere(run: Run, authority: Authority, size: int) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            message = MEGABYTE[: max(size, 300)]
            wire = peer.encrypt(message[:100], message[100:], b"end")
            for start in range(0, len(wire), size):
                await peer.send(wire[start : start + size])
                await turns(1)
            assert await end.protocol.received(len(message) + 3) == message + b"end"

    run(main)


@EITHER_SIDE
def test_sixty_four_mebibytes(run: Run, authority: Authority, side: Any) -> None:
    count = 64

    class Counting(Closing):
        total = 0

        def data_received(self, data: bytes) -> None:
            # What comes is MEGABYTE again and again, whatever the pieces.
            start = self.total % len(MEGABYTE)
            assert data == (MEGABYTE * 2)[start : start + len(data)]
            self.total += len(data)
            self.record("data")

    class Sending(Counting):
        paused = False

        def pause_writing(self) -> None:
            self.paused = True
            self.record("pause")

        def resume_writing(self) -> None:
            self.paused = False
            self.record("resume")

    async def main() -> None:
        async with both_ends(authority, Sending) as ends:
            sender, receiver = ends if side is client_of else ends[::-1]
            for _ in range(count):
                sender.transport.write(MEGABYTE)
                await sender.protocol.until(lambda: not sender.protocol.paused)
                assert sender.transport.get_write_buffer_size() <= len(MEGABYTE)
            protocol = receiver.protocol
            await protocol.until(lambda: protocol.total == count * len(MEGABYTE))

    run(main)


def test_what_is_written_in_data_received_is_one_record(
    run: Run, authority: Authority, backend: Backend
) -> None:
    class Answering(Closing):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            for number in range(1000):
                self.transport.write(b"%04d" % number)
                self.transport.writelines([b"%04d" % number, bytearray(b"!")])

    async def main() -> None:
        async with server_of(authority, Answering) as (end, peer):
            assert await peer.hear(0) == b""
            await peer.say(b"go on")
            await end.protocol.received(5)
            wire = await peer.receive(9000)
            if not backend.is_oracle:
                assert len([kind for kind, _ in records_of(wire) if kind == 23]) <= 3
            peer.take(wire)
            expected = b"".join(b"%04d%04d!" % (number, number) for number in range(1000))
            assert await peer.hear(len(expected)) == expected

    run(main)


@EITHER_SIDE
def test_what_is_written_in_a_turn_is_one_record(
    run: Run, authority: Authority, backend: Backend, side: Any
) -> None:
    async def main() -> None:
        server = limited(authority.server(), ssl.TLSVersion.TLSv1_2)  # no tickets
        async with side(authority, server=server) as (end, peer):
            for number in range(100):
                end.transport.write(b"%04d" % number)
            asyncio.get_running_loop().call_soon(end.transport.write, b"next")
            assert backend.is_oracle or end.transport.get_write_buffer_size() == 400
            await turns(2)
            assert end.transport.get_write_buffer_size() == 0
            wire = await peer.receive(420)
            if not backend.is_oracle:
                (kind, length), *rest = records_of(wire)
                assert kind == 23
                assert 400 < length < 450
                assert len(rest) <= 1
            peer.take(wire)
            expected = b"".join(b"%04d" % number for number in range(100)) + b"next"
            assert await peer.hear(len(expected)) == expected

    run(main)


@pytest.mark.parametrize("end", ["abort", "close", "stop", "error"])
def test_what_was_written_in_the_last_turn_goes_out(
    loop: Any, authority: Authority, end: str
) -> None:
    async def connect() -> Tuple[Any, TlsPeer]:
        left, right = tcp_pair()
        peer = TlsPeer(right, authority.server(), server_side=True)
        connecting = asyncio.ensure_future(
            loop.create_connection(Closing, sock=left, ssl=authority.client(), server_hostname=NAME)
        )
        await peer.handshake()
        transport, _ = await connecting
        return transport, peer

    transport, peer = loop.run_until_complete(connect())
    with contextlib.closing(peer):

        def last() -> None:
            transport.write(b"last ")
            transport.write(b"words")
            if end in ("abort", "close"):
                getattr(transport, end)()
            loop.stop()
            if end == "error":
                raise KeyboardInterrupt

        loop.call_soon(last)
        with pytest.raises(KeyboardInterrupt) if end == "error" else contextlib.nullcontext():
            loop.run_forever()
        # Before the next turn, but for the error.
        assert loop.run_until_complete(peer.hear(10)) == b"last words"
        transport.write(b" and more, written while the loop does not run")
        if end in ("stop", "error"):
            assert loop.run_until_complete(peer.hear(5)) == b" and "
        transport.abort()
        loop.run_until_complete(turns(3))


@NEW
@pytest.mark.parametrize("call", ["close", "abort"])
def test_what_is_written_goes_out_before_the_transport_below_ends(
    run: Run, authority: Authority, call: str
) -> None:
    """As by Server.close_clients() and abort_clients()."""

    async def main() -> None:
        async with server_of(authority) as (end, peer):
            end.transport.write(b"last words")
            getattr(end.transport._ssl_protocol._transport, call)()
            assert await peer.hear(10) == b"last words"
            assert await end.protocol.lost() is None

    run(main)


def test_what_data_received_has_written_goes_out_before_abort(
    run: Run, authority: Authority
) -> None:
    class Aborting(Closing):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"last words")
            self.transport.abort()

    async def main() -> None:
        async with server_of(authority, Aborting) as (end, peer):
            await peer.say(b"go on")
            assert await peer.hear(10) == b"last words"
            assert await end.protocol.lost() is None
            assert end.protocol.events == ["made", "lost"]

    run(main)


def test_what_data_received_has_written_goes_out_before_its_error(
    run: Run, authority: Authority, reports: Reports
) -> None:
    class Failing(Closing):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"last words")
            raise ZeroDivisionError

    async def main() -> None:
        async with server_of(authority, Failing) as (end, peer):
            await peer.say(b"go on")
            assert await peer.hear(10) == b"last words"
            assert isinstance(await end.protocol.lost(), ZeroDivisionError)
            assert isinstance(reports.take_one()["exception"], ZeroDivisionError)

    run(main)


@EITHER_SIDE
def test_nothing_is_no_record(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        server = limited(authority.server(), ssl.TLSVersion.TLSv1_2)
        async with side(authority, server=server) as (end, peer):
            end.transport.write(b"")
            end.transport.writelines([])
            await turns(3)
            with pytest.raises(BlockingIOError):
                peer.sock.recv(1)

    run(main)


def test_a_buffer_that_is_changed_after_it_was_written(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with server_of(authority) as (end, peer):
            data = bytearray(MEGABYTE)
            end.transport.write(data)
            end.transport.write(memoryview(data)[:10])
            data[:] = bytes(len(data))
            assert await peer.hear(len(MEGABYTE) + 10) == MEGABYTE + MEGABYTE[:10]

    run(main)


def test_data_that_comes_with_what_is_no_record(
    run: Run, authority: Authority, backend: Backend
) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio drops what it has decrypted when an error follows")

    async def main() -> None:
        async with client_of(authority) as (end, peer):
            await peer.send(peer.encrypt(b"data") + b"no record at all")
            assert isinstance(await end.protocol.lost(), ssl.SSLError)
            assert end.protocol.data == b"data"

    run(main)


# Anything


@NEW
@pytest.mark.parametrize("seed", range(6))
def test_random_traffic(run: Run, authority: Authority, seed: int) -> None:
    """Both ways at once, in pieces and with pauses of any kind."""
    chance = random.Random(seed)

    def pause(protocol: Any) -> None:
        if chance.random() < 0.1 and protocol.transport.is_reading():
            protocol.transport.pause_reading()
            loop: Any = asyncio.get_running_loop()
            loop.call_later(0.002 * chance.random(), protocol.transport.resume_reading)

    class Plain(Closing):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            pause(self)

    class Buffered(BufferedRecorder):
        def __init__(self) -> None:
            super().__init__(chance.choice([100, 5000, 70_000, 300_000]))

        def get_buffer(self, sizehint: int) -> Any:
            return memoryview(super().get_buffer(sizehint))

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            pause(self)

    def written(transport: Any) -> bytes:
        size = int(chance.random() * chance.choice([10, 300, 5000, 17_000, 70_000, 400_000]))
        start = chance.randrange(256)
        data = MEGABYTE[start : start + size]
        if chance.random() < 0.5:
            transport.write(chance.choice([bytes, bytearray, memoryview])(data))
        else:
            transport.writelines([data[: size // 2], bytearray(data[size // 2 :])])
        return data

    async def main() -> None:
        def factory() -> Any:
            return chance.choice([Plain, Buffered])()

        async with both_ends(authority, factory) as ends:
            expected = [bytearray(), bytearray()]
            for _ in range(60):
                side = chance.randrange(2)
                expected[1 - side] += written(ends[side].transport)
                await turns(chance.randrange(3))
            for end, data in zip(ends, expected):
                assert await end.protocol.received(len(data)) == data

    run(main)
