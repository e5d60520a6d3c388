"""start_tls: TLS on a connection that is already in use."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from typing import Any, AsyncIterator, Tuple

import pytest
from support.backends import Backend
from support.running import Run, turns
from support.sockets import LOCALHOST, Peer, tcp_pair
from support.tls import (
    MEGABYTE,
    NAME,
    NEW,
    OTHER_NAME,
    REFUSED,
    Authority,
    Closing,
    TlsPeer,
    both_ends,
    client_of,
    hello,
    is_before_311,
    only_task_left,
    port_of,
    since_311,
)


async def upgraded(
    near: Tuple[Any, Any], far: Tuple[Any, Any], authority: Authority
) -> Tuple[Any, Any]:
    """The transports with TLS over those of a connection: the client's and the server's."""
    loop: Any = asyncio.get_running_loop()
    transports = await asyncio.gather(
        loop.start_tls(*near, authority.client(), server_hostname=NAME),
        loop.start_tls(*far, authority.server(), server_side=True),
    )
    for transport in transports:
        transport.get_protocol().transport = transport
    return transports[0], transports[1]


@contextlib.asynccontextmanager
async def plain(factory: Any = Closing) -> AsyncIterator[Tuple[Any, Any]]:
    """The transports and protocols of both ends of a connection without TLS."""
    loop: Any = asyncio.get_running_loop()
    ends = [await loop.create_connection(factory, sock=sock) for sock in tcp_pair()]
    yield tuple(ends)
    for transport, _ in ends:
        transport.abort()
    await turns(5)


def test_start_tls(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with plain() as (near, far):
            near[0].write(b"STARTTLS")
            assert await far[1].received(8) == b"STARTTLS"
            client, server = await upgraded(near, far, authority)
            assert client is not near[0]
            assert client.get_protocol() is near[1]
            assert near[0].get_protocol() is not near[1]
            for transport, protocol in ((client, far[1]), (server, near[1])):
                assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
                for _ in range(3):
                    transport.write(MEGABYTE)
                await protocol.until(lambda p=protocol: len(p.data) >= 3 * len(MEGABYTE))
                assert protocol.data.endswith(3 * MEGABYTE)
                assert protocol.events.count("made") == 1
            assert ("DNS", NAME) in client.get_extra_info("peercert")["subjectAltName"]
            client.close()
            assert await near[1].lost() is None
            assert await far[1].lost() is None

    run(main)


def test_start_tls_is_seen_as_tls_on_the_wire(run: Run, authority: Authority) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, authority.server(), server_side=True)) as peer:
            transport, protocol = await loop.create_connection(Closing, sock=left)
            await peer.send(b"go ahead")
            await protocol.received(8)
            starting = asyncio.ensure_future(
                loop.start_tls(transport, protocol, authority.client(), server_hostname=NAME)
            )
            await peer.handshake()
            protocol.transport = tls = await starting
            tls.write(b"data")
            assert await peer.hear(4) == b"data"
            await peer.unwrap()
            assert await protocol.lost() is None

    run(main)


def test_start_tls_on_a_transport_with_a_method_replaced(run: Run, authority: Authority) -> None:
    """Transports take replaced methods (`transport.write = ...`)."""

    async def main() -> None:
        async with plain() as (near, far):
            seen = bytearray()
            original = near[0].write

            def write(data: bytes) -> None:
                seen.extend(data)
                original(data)

            near[0].write = write
            client, _ = await upgraded(near, far, authority)
            before = len(seen)
            client.write(b"data")
            assert await far[1].received(4) == b"data"
            assert seen[:1] == b"\x16"  # a handshake record, RFC 8446 section 5.1
            assert seen[before : before + 1] == b"\x17"  # application data
            client.abort()
            await near[1].lost()

    run(main)


def test_start_tls_with_a_wrong_name(run: Run, authority: Authority) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with plain() as (near, far):
            results = await asyncio.gather(
                loop.start_tls(*near, authority.client(), server_hostname=NAME),
                loop.start_tls(*far, authority.server(OTHER_NAME), server_side=True),
                return_exceptions=True,
            )
            assert isinstance(results[0], ssl.SSLCertVerificationError)
            assert isinstance(results[1], REFUSED)
            await turns(5)
            assert near[0].is_closing()
            assert far[0].is_closing()

    run(main)


@pytest.mark.parametrize("end", ["timeout", "cancelled", "closed"])
def test_start_tls_and_a_silent_peer(run: Run, authority: Authority, end: str) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Closing, sock=left)
        options = {"ssl_handshake_timeout": 0.05} if end == "timeout" else {}
        with contextlib.closing(Peer(right)) as peer:
            starting = asyncio.ensure_future(
                loop.start_tls(
                    transport, protocol, authority.client(), server_hostname=NAME, **options
                )
            )
            await hello(peer)
            if end == "cancelled":
                starting.cancel()
            elif end == "closed":
                peer.close()
            expected = {
                "timeout": ConnectionAbortedError,
                "cancelled": asyncio.CancelledError,
                "closed": ConnectionResetError,
            }
            with pytest.raises(expected[end]):
                await starting
            await turns(5)
            assert transport.is_closing()
            assert left.fileno() == -1
            assert only_task_left()

    run(main)


@since_311
def test_start_tls_of_streams(run: Run, authority: Authority) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go ahead\n")
        await writer.start_tls(authority.server())
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, LOCALHOST, 0)
        reader, writer = await asyncio.open_connection(LOCALHOST, port_of(server))
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go ahead\n"
        assert writer.get_extra_info("ssl_object") is None
        await writer.start_tls(authority.client(), server_hostname=NAME)
        assert writer.get_extra_info("ssl_object") is not None
        writer.write(b"secret\n")
        assert await reader.readline() == b"SECRET\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await turns(5)

    run(main)


@NEW
def test_tls_inside_of_tls(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with both_ends(authority) as (near, far):
            client, server = await upgraded(
                (near.transport, near.protocol), (far.transport, far.protocol), authority
            )
            outer = near.transport.get_extra_info("ssl_object")
            assert client.get_extra_info("ssl_object") is not outer
            for transport, protocol in ((client, far.protocol), (server, near.protocol)):
                for _ in range(2):
                    transport.write(MEGABYTE)
                assert await protocol.received(2 * len(MEGABYTE)) == 2 * MEGABYTE
            client.close()
            assert await near.protocol.lost() is None
            assert await far.protocol.lost() is None

    run(main)


def test_start_tls_needs_a_context(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with plain() as (near, _):
            for wrong in (None, True, "context"):
                text = "sslcontext is expected to be an instance of ssl.SSLContext, got "
                with pytest.raises(TypeError, match=f"^{re.escape(text + repr(wrong))}$"):
                    await loop.start_tls(*near, wrong)
            assert near[0].get_protocol() is near[1]

    run(main)


def test_start_tls_needs_a_transport_that_can(run: Run, authority: Authority) -> None:
    class Other(asyncio.Transport):
        def __repr__(self) -> str:
            return "<Other>"

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        text = r"^transport <Other> is not supported by start_tls\(\)$"
        with pytest.raises(TypeError, match=text):
            await loop.start_tls(Other(), Closing(), authority.client())

    run(main)


def test_no_tls_inside_of_tls(run: Run, authority: Authority, backend: Backend) -> None:
    if not is_before_311(backend):
        pytest.skip("TLS inside of TLS is new in Python 3.11")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with client_of(authority) as (end, peer):
            with pytest.raises(TypeError, match="is not supported by start_tls"):
                await loop.start_tls(end.transport, end.protocol, authority.client())

    run(main)
