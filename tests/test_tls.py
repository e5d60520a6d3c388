"""TLS: data through it, what a transport tells of it, and its arguments."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import tracemalloc
from typing import Any

import pytest
from support.backends import PY311, Backend
from support.recorders import BufferedRecorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, tcp_pair
from support.tls import (
    EITHER_SIDE,
    MEGABYTE,
    NAME,
    VERSIONS,
    Authority,
    Closing,
    Servant,
    TlsPeer,
    both_ends,
    client_of,
    is_before_311,
    limited,
    port_of,
    server_of,
    serving,
)

# Data


@VERSIONS
def test_an_echo(run: Run, authority: Authority, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving(Servant, limited(authority.server(), version)) as server:
            transport, protocol = await loop.create_connection(
                Closing, LOCALHOST, port_of(server), ssl=authority.client()
            )
            assert protocol.events == ["made"]
            assert protocol.transport is transport
            transport.write(b"hello")
            assert await protocol.received(5) == b"hello"
            transport.close()
            assert await protocol.lost() is None

    run(main)


def test_an_echo_through_streams(run: Run, authority: Authority) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, LOCALHOST, 0, ssl=authority.server())
        reader, writer = await asyncio.open_connection(
            LOCALHOST, port_of(server), ssl=authority.client()
        )
        assert not writer.can_write_eof()
        writer.writelines([b"one\n", b"two\n"])
        assert await reader.readline() == b"one\n"
        assert await reader.readline() == b"two\n"

        async def send() -> None:
            for _ in range(4):
                writer.write(MEGABYTE)
                await writer.drain()

        sending = asyncio.ensure_future(send())
        assert await reader.readexactly(4 * len(MEGABYTE)) == 4 * MEGABYTE
        await sending
        writer.close()
        await writer.wait_closed()
        server.close()
        await turns(5)

    run(main)


def test_an_echo_through_buffered_protocols(run: Run, authority: Authority) -> None:
    class Echo(BufferedRecorder):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.write(bytes(self.buffer[:nbytes]))

    async def main() -> None:
        async with server_of(authority, Echo) as (end, peer):
            sending = asyncio.ensure_future(peer.say(*[MEGABYTE[:65536]] * 4))
            assert await peer.hear(4 * 65536) == 4 * MEGABYTE[:65536]
            await sending
            assert end.protocol.data == 4 * MEGABYTE[:65536]

    run(main)


def test_much_data_both_ways_at_once(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with both_ends(authority) as ends:
            near, far = ends
            written = []
            for end in ends:
                written.insert(0, 0)
                while "pause" not in end.protocol.events:
                    end.transport.write(MEGABYTE)
                    written[0] += 1
            for end, count in zip(ends, written):
                assert await end.protocol.received(count * len(MEGABYTE)) == count * MEGABYTE
            for end in ends:
                await end.protocol.until_event("resume")
                assert end.transport.get_write_buffer_size() == 0
            near.transport.close()
            assert await near.protocol.lost() is None
            assert await far.protocol.lost() is None

    run(main)


@EITHER_SIDE
def test_a_slow_reader_pauses_the_writer(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            written = 0
            while "pause" not in end.protocol.events:
                end.transport.write(MEGABYTE)
                written += len(MEGABYTE)
                await turns(1)
            assert end.transport.get_write_buffer_size() > 0
            await turns(5)
            assert "resume" not in end.protocol.events
            assert len(await peer.hear(written)) == written
            await end.protocol.until_event("resume")

    run(main)


@EITHER_SIDE
def test_a_paused_reader_reads_nothing(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            end.transport.pause_reading()
            assert not end.transport.is_reading()
            await peer.say(b"data")
            await turns(10)
            assert end.protocol.events == ["made"]
            end.transport.resume_reading()
            assert end.transport.is_reading()
            assert await end.protocol.received(4) == b"data"

    run(main)


@EITHER_SIDE
def test_a_writer_that_outruns_a_paused_reader_waits(
    run: Run, authority: Authority, side: Any
) -> None:
    """What is not read fills the sockets' buffers, and not the process."""

    async def main() -> None:
        async with side(authority) as (end, peer):
            end.transport.pause_reading()
            sock = end.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            sending = asyncio.ensure_future(peer.say(*[MEGABYTE] * 4))
            await turns(200)
            assert not sending.done()
            end.transport.resume_reading()
            assert await end.protocol.received(4 * len(MEGABYTE)) == 4 * MEGABYTE
            await sending

    run(main)


@EITHER_SIDE
def test_many_small_writes_arrive_in_order(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            expected = b"".join(b"%04d" % number for number in range(500))
            for number in range(0, 500, 2):
                end.transport.write(b"%04d" % number)
                end.transport.writelines([bytearray(b"%04d" % (number + 1))])
            assert await peer.hear(len(expected)) == expected

    run(main)


def test_what_is_not_bytes_is_refused(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            with pytest.raises(TypeError) as caught:
                end.transport.write("text")
            assert str(caught.value) == "data: expecting a bytes-like instance, got str"
            end.transport.write(b"")
            end.transport.write(memoryview(b"data"))
            assert await peer.hear(4) == b"data"

    run(main)


def test_a_protocol_may_write_when_its_connection_is_made(run: Run, authority: Authority) -> None:
    class Greeter(Closing):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"welcome")

    async def main() -> None:
        async with both_ends(authority, Greeter) as ends:
            for end in ends:
                assert await end.protocol.received(7) == b"welcome"

    run(main)


def test_data_that_comes_with_the_end_of_the_handshake(run: Run, authority: Authority) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, authority.client())) as peer:
            accepting = asyncio.ensure_future(
                loop.connect_accepted_socket(Closing, left, ssl=authority.server())
            )
            await peer.send(await peer.finish() + peer.encrypt(b"early"))
            transport, protocol = await accepting
            assert await protocol.received(5) == b"early"
            assert protocol.events == ["made", "data"]
            transport.abort()
            await protocol.lost()

    run(main)


def test_a_small_message_costs_little_memory(
    run: Run, authority: Authority, backend: Backend
) -> None:
    """Seen elsewhere: 256 KiB allocated per read."""
    if backend.is_oracle:
        pytest.skip("asyncio's TLS reads into 256 KiB")

    async def main() -> None:
        async with client_of(authority) as (end, peer):
            await peer.say(b"x")
            await end.protocol.received(1)
            tracemalloc.start()
            try:
                await peer.say(b"y" * 100)
                await end.protocol.received(101)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < 128 * 1024

    run(main)


# What a transport tells


@EITHER_SIDE
def test_it_is_asyncios_transport_to_isinstance(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            assert isinstance(end.transport, asyncio.Transport)
            assert end.transport.get_protocol() is end.protocol
            assert not end.transport.can_write_eof()
            with pytest.raises(NotImplementedError):
                end.transport.write_eof()

    run(main)


def test_extra_information(run: Run, authority: Authority) -> None:
    async def main() -> None:
        context = authority.client()
        async with client_of(authority, client=context) as (end, peer):
            info = end.transport.get_extra_info
            assert type(info("ssl_object")) is ssl.SSLObject
            assert info("sslcontext") is context
            assert info("ssl_object").context is context
            assert ("DNS", NAME) in info("peercert")["subjectAltName"]
            assert info("cipher") == peer.tls.cipher()
            assert info("compression") is None
            assert isinstance(info("socket"), asyncio.trsock.TransportSocket)
            assert info("peername") == peer.sock.getsockname()
            assert info("sockname") == peer.sock.getpeername()
            assert info("no such key", "default") == "default"

    run(main)


def test_extra_information_of_the_server(run: Run, authority: Authority) -> None:
    async def main() -> None:
        context = authority.server()
        async with server_of(authority, server=context) as (end, peer):
            info = end.transport.get_extra_info
            assert info("ssl_object").server_side
            assert info("sslcontext") is context
            assert info("peercert", "default") is None
            assert info("cipher") == peer.tls.cipher()
            assert info("peername") == peer.sock.getsockname()

    run(main)


def test_a_plain_transport_has_none_of_it(run: Run) -> None:
    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(Closing, sock=left)
        for key in ("ssl_object", "sslcontext", "peercert", "cipher", "compression"):
            assert transport.get_extra_info(key) is None
        right.close()
        await protocol.lost()

    run(main)


# Protocols that fail


class Failing(Closing):
    """Raises when data comes."""

    def data_received(self, data: bytes) -> None:
        raise ZeroDivisionError


@EITHER_SIDE
def test_data_received_that_raises(
    run: Run, authority: Authority, reports: Reports, side: Any, backend: Backend
) -> None:
    async def main() -> None:
        async with side(authority, Failing) as (end, peer):
            await peer.say(b"x")
            assert isinstance(await end.protocol.lost(), ZeroDivisionError)
            context = reports.take_one()
            assert isinstance(context["exception"], ZeroDivisionError)
            assert context["message"] == (
                "application protocol failed to receive SSL data"
                if is_before_311(backend)
                else "Fatal error on SSL protocol"
            )

    run(main)


# Arguments


TEXTS = {
    "server_hostname without ssl": (
        {"host": LOCALHOST, "port": 80, "server_hostname": NAME},
        "server_hostname is only meaningful with ssl",
    ),
    "no host": (
        {"sock": None, "ssl": True},
        "You must set server_hostname when using ssl without a host",
    ),
    "an empty host": (
        {"host": "", "port": 80, "ssl": True},
        "You must set server_hostname when using ssl without a host",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_wrong_arguments(run: Run, name: str) -> None:
    """Wrong arguments raise asyncio's exception with its text."""
    options, text = TEXTS[name]

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with socket.socket() as sock:
            given = {**options, "sock": sock} if "sock" in options else options
            with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
                await loop.create_connection(Closing, **given)

    run(main)


@pytest.mark.parametrize(
    "option", ["ssl_handshake_timeout", *(["ssl_shutdown_timeout"] if PY311 else [])]
)
@pytest.mark.parametrize(
    "method", ["create_connection", "create_server", "connect_accepted_socket"]
)
def test_timeouts_without_ssl(run: Run, method: str, option: str) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with socket.socket() as sock:
            with pytest.raises(ValueError, match=f"^{option} is only meaningful with ssl$"):
                await getattr(loop, method)(Closing, sock=sock, **{option: 1})

    run(main)


@pytest.mark.parametrize("timeout", [0, -1])
@pytest.mark.parametrize(
    "option", ["ssl_handshake_timeout", *(["ssl_shutdown_timeout"] if PY311 else [])]
)
def test_timeouts_that_are_not_positive(
    run: Run, authority: Authority, option: str, timeout: int
) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with left, right:
            text = f"^{option} should be a positive number, got {timeout}$"
            with pytest.raises(ValueError, match=text):
                await loop.create_connection(
                    Closing,
                    sock=left,
                    ssl=authority.client(),
                    server_hostname=NAME,
                    **{option: timeout},
                )

    run(main)


def test_a_server_needs_a_context(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for wrong in (True, False):
            with pytest.raises(TypeError, match="^ssl argument must be an SSLContext or None$"):
                await loop.create_server(Closing, LOCALHOST, 0, ssl=wrong)
        left, right = tcp_pair()
        with left, right:
            with pytest.raises(ValueError, match="^Server side SSL needs a valid SSLContext$"):
                await loop.connect_accepted_socket(Closing, left, ssl=True)

    run(main)
