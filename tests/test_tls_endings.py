"""TLS: handshakes that fail, and the ends of connections."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, AsyncIterator, List, Tuple

import pytest
from support.backends import PY310, PY312, Backend
from support.census import assert_flat
from support.reports import Reports
from support.running import Run, turns
from support.sockets import Peer, listener, tcp_pair
from support.tls import (
    EITHER_SIDE,
    MEGABYTE,
    NAME,
    NEW,
    OTHER_NAME,
    VERSIONS,
    Authority,
    Closing,
    Servant,
    TlsPeer,
    both_ends,
    client_of,
    connect,
    connected_to,
    hello,
    is_before_311,
    limited,
    only_task_left,
    server_of,
    serving,
)

# Handshakes that fail


@contextlib.asynccontextmanager
async def shaking(
    authority: Authority, server_side: bool = False, **options: Any
) -> AsyncIterator[Tuple[Any, Peer]]:
    """A task that connects, or is a server's, and a peer that says nothing by itself."""
    loop: Any = asyncio.get_running_loop()
    left, right = tcp_pair()
    if server_side:
        opening = loop.connect_accepted_socket(Closing, left, ssl=authority.server(), **options)
    else:
        opening = loop.create_connection(
            Closing, sock=left, ssl=authority.client(), server_hostname=NAME, **options
        )
    with contextlib.closing(Peer(right)) as peer:
        yield asyncio.ensure_future(opening), peer
    await turns(5)
    assert only_task_left()
    assert left.fileno() == -1


#: What OpenSSL says of bytes that are no record, by version.
NO_RECORD = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")

BOTH_SIDES = pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])


@BOTH_SIDES
def test_a_silent_peer(run: Run, authority: Authority, server_side: bool) -> None:
    async def main() -> None:
        async with shaking(authority, server_side, ssl_handshake_timeout=0.05) as (task, peer):
            started = asyncio.get_running_loop().time()
            with pytest.raises(ConnectionAbortedError) as caught:
                await task
            assert asyncio.get_running_loop().time() - started >= 0.04
            assert str(caught.value) == (
                "SSL handshake is taking longer than 0.05 seconds: aborting the connection"
            )
            await peer.receive_to_eof()

    run(main)


@BOTH_SIDES
def test_a_peer_that_closes_in_mid_handshake(
    run: Run, authority: Authority, server_side: bool
) -> None:
    async def main() -> None:
        async with shaking(authority, server_side) as (task, peer):
            if server_side:
                await peer.send(b"\x16\x03\x01")  # the beginning of a ClientHello
            else:
                await hello(peer)
            peer.close()
            with pytest.raises(ConnectionResetError):
                await task

    run(main)


@BOTH_SIDES
def test_a_peer_that_resets_in_mid_handshake(
    run: Run, authority: Authority, server_side: bool
) -> None:
    async def main() -> None:
        async with shaking(authority, server_side) as (task, peer):
            if not server_side:
                await hello(peer)
            else:
                await turns(5)
            peer.reset()
            with pytest.raises(ConnectionResetError):
                await task

    run(main)


@BOTH_SIDES
def test_a_peer_that_speaks_no_tls(run: Run, authority: Authority, server_side: bool) -> None:
    async def main() -> None:
        async with shaking(authority, server_side) as (task, peer):
            await peer.send(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ssl.SSLError) as caught:
                await task
            assert caught.value.reason == "HTTP_REQUEST"

    run(main)


@BOTH_SIDES
def test_cancelled_in_mid_handshake(run: Run, authority: Authority, server_side: bool) -> None:
    async def main() -> None:
        async with shaking(authority, server_side) as (task, peer):
            if not server_side:
                await hello(peer)
            await turns(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await peer.receive_to_eof() == b""

    run(main)


def test_a_timeout_round_the_connection(run: Run, authority: Authority) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with listener() as listening:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(
                    loop.create_connection(
                        Closing, *listening.getsockname(), ssl=authority.client()
                    ),
                    0.05,
                )
            await turns(5)
            assert only_task_left()

    run(main)


@pytest.mark.parametrize("fault", ["closes", "resets", "garbage", "silent"])
@pytest.mark.parametrize("debug", [False, True])
def test_a_server_reports_failed_handshakes_in_debug_mode_only(
    run: Run, authority: Authority, reports: Reports, fault: str, debug: bool
) -> None:
    made: List[Closing] = []

    def factory() -> Closing:
        made.append(Closing())
        return made[-1]

    async def main() -> None:
        options = {"ssl_handshake_timeout": 0.05} if fault == "silent" else {}
        async with serving(factory, authority.server(), **options) as server:
            peer = await connected_to(server)
            if fault == "garbage":
                await peer.send(b"no TLS at all\r\n")
            elif fault == "resets":
                while not made:
                    await turns(1)
                peer.reset()
            elif fault == "closes":
                peer.send_eof()
            if fault != "resets":
                await peer.receive_to_eof()
                peer.close()
            while debug and not reports.contexts:
                await turns(1)
            # It serves on, and what it had to report has been reported before. No honest client follows a
            # silent one: under load it takes longer, too, than such a server waits.
            if fault == "silent":
                second = await connected_to(server)
                await second.receive_to_eof()
                second.close()
                while debug and len(reports.contexts) < 2:
                    await turns(1)
            else:
                second = await connected_to(server, authority.client())
                second.close()
                await made[1].lost()
        assert made[0].events == []
        if not debug:
            assert reports.take() == []
            return
        context, *others = reports.take()
        assert len(others) == (fault == "silent")
        assert context["message"] == "Error on transport creation for incoming connection"
        assert isinstance(context["exception"], {"garbage": ssl.SSLError}.get(fault, OSError))
        assert context["protocol"] is made[0]
        assert isinstance(context["transport"], asyncio.Transport)
        assert context["transport"].is_closing()

    run(main, debug=debug)


def test_a_silent_client_holds_up_nobody(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with serving(Servant, authority.server()) as server:
            silent = [await connected_to(server) for _ in range(5)]
            await asyncio.gather(*(connect(server, ssl=authority.client()) for _ in range(20)))
            for peer in silent:
                peer.close()

    run(main)


# The end


def ended(backend: Backend) -> List[str]:
    """What a protocol is told of a close_notify."""
    return ["lost"] if is_before_311(backend) else ["eof", "lost"]


@VERSIONS
@EITHER_SIDE
def test_close_says_goodbye(
    run: Run, authority: Authority, side: Any, version: ssl.TLSVersion
) -> None:
    """Seen elsewhere: close hangs."""

    async def main() -> None:
        server = limited(authority.server(), version)
        async with side(authority, server=server) as (end, peer):
            end.transport.write(b"last words")
            end.transport.close()
            assert end.transport.is_closing()
            assert await peer.hear(100) == b"last words"
            assert "lost" not in end.protocol.events
            await peer.unwrap()
            assert await end.protocol.lost() is None
            assert await peer.receive_to_eof() == b""

    run(main)


@EITHER_SIDE
def test_close_and_a_peer_that_says_no_goodbye(run: Run, authority: Authority, side: Any) -> None:
    """Seen elsewhere: close hangs."""

    async def main() -> None:
        async with side(authority) as (end, peer):
            end.transport.close()
            await turns(1)
            peer.send_eof()
            assert await end.protocol.lost() is None

    run(main)


@NEW
@EITHER_SIDE
def test_close_and_a_peer_that_does_nothing(run: Run, authority: Authority, side: Any) -> None:
    """Seen elsewhere: close hangs."""

    async def main() -> None:
        async with side(authority, ssl_shutdown_timeout=0.05) as (end, peer):
            end.transport.close()
            error = await end.protocol.lost()
            assert type(error) is asyncio.TimeoutError
            assert str(error) == "SSL shutdown timed out"

    run(main)


@EITHER_SIDE
def test_close_sends_what_is_buffered(run: Run, authority: Authority, side: Any) -> None:
    """Seen elsewhere: close hangs."""

    async def main() -> None:
        async with side(authority) as (end, peer):
            written = 0
            while "pause" not in end.protocol.events:
                end.transport.write(MEGABYTE)
                written += 1
            assert end.transport.get_write_buffer_size() > 0
            end.transport.close()
            assert await peer.hear((written + 1) * len(MEGABYTE)) == written * MEGABYTE
            await peer.unwrap()
            assert await end.protocol.lost() is None

    run(main)


@NEW
@EITHER_SIDE
def test_close_sends_what_was_written_past_data_that_nobody_reads(
    run: Run, authority: Authority, side: Any
) -> None:
    """Goodbye fails then ("application data after close notify"), and the connection with it.

    Python 3.9 has said it by then.
    """

    async def main() -> None:
        async with side(authority) as (end, peer):
            end.transport.pause_reading()
            unread = peer.encrypt(bytes(10_000))
            await peer.send(unread)
            while end.transport.get_read_buffer_size() < len(unread):
                await turns(1)
            end.transport.write(b"last")
            end.transport.close()
            assert await peer.hear(4) == b"last"
            with pytest.raises(ssl.SSLEOFError) if PY310 else contextlib.nullcontext():
                assert await peer.hear(1) == b""
            assert isinstance(await end.protocol.lost(), ssl.SSLError)

    run(main)


@EITHER_SIDE
def test_close_twice(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            end.transport.close()
            end.transport.close()
            await peer.unwrap()
            assert await end.protocol.lost() is None
            assert end.protocol.events.count("lost") == 1

    run(main)


@VERSIONS
@EITHER_SIDE
def test_a_peer_that_says_goodbye(
    run: Run, authority: Authority, side: Any, version: ssl.TLSVersion, backend: Backend
) -> None:
    async def main() -> None:
        server = limited(authority.server(), version)
        async with side(authority, server=server) as (end, peer):
            await peer.say(b"data")
            await peer.unwrap()  # which waits for the answer
            assert await end.protocol.lost() is None
            assert end.protocol.events == ["made", "data", *ended(backend)]
            assert end.transport.is_closing()  # before 3.11 because the protocol has closed it
            assert await peer.receive_to_eof() == b""

    run(main)


@EITHER_SIDE
def test_data_goodbye_and_eof_at_once(
    run: Run, authority: Authority, side: Any, backend: Backend
) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            await peer.send(peer.encrypt(b"data", close_notify=True))
            peer.send_eof()
            assert await end.protocol.lost() is None
            assert end.protocol.data == b"data"
            assert end.protocol.events == ["made", "data", *ended(backend)]

    run(main)


@EITHER_SIDE
@pytest.mark.parametrize("keep_open", [False, True])
def test_eof_without_goodbye(
    run: Run, authority: Authority, side: Any, keep_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """EOF without close_notify reaches `eof_received`."""

    async def main() -> None:
        async with side(authority) as (end, peer):
            end.protocol.keep_open = keep_open
            await peer.say(b"data")
            peer.send_eof()
            assert await end.protocol.lost() is None
            assert end.protocol.data == b"data"
            assert end.protocol.events == ["made", "data", "eof", "lost"]

    run(main)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "returning true from eof_received() has no effect when using ssl",
    ] * int(keep_open)


@EITHER_SIDE
@pytest.mark.parametrize("goodbye", [False, True])
def test_data_before_eof_while_reading_is_paused(
    run: Run, authority: Authority, side: Any, goodbye: bool, backend: Backend
) -> None:
    """Data that came before EOF while reading was paused is delivered."""

    async def main() -> None:
        async with side(authority) as (end, peer):
            end.transport.pause_reading()
            await peer.send(peer.encrypt(b"first", b"second", close_notify=goodbye))
            peer.send_eof()
            await turns(10)
            assert end.protocol.events == ["made"]
            end.transport.resume_reading()
            assert await end.protocol.lost() is None
            assert end.protocol.data == b"firstsecond"
            if not goodbye or not is_before_311(backend):
                assert end.protocol.events[-2:] == ["eof", "lost"]

    run(main)


def test_streams_read_all_that_came_before_eof(run: Run, authority: Authority) -> None:
    """A small limit makes the reader pause the transport."""

    async def main() -> None:
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, authority.server(), server_side=True)) as peer:
            connecting = asyncio.ensure_future(
                asyncio.open_connection(
                    sock=left, ssl=authority.client(), server_hostname=NAME, limit=1024
                )
            )
            await peer.handshake()
            reader, writer = await connecting
            await peer.say(MEGABYTE[:200_000])
            peer.send_eof()
            await turns(10)
            got = bytearray()
            while data := await reader.read(1000):
                got += data
            assert got == MEGABYTE[:200_000]
            writer.close()
            await writer.wait_closed()

    run(main)


@EITHER_SIDE
def test_abort(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        # TLS 1.3's tickets come after the handshake; what is unread at the end causes a RST.
        server = limited(authority.server(), ssl.TLSVersion.TLSv1_2)
        async with side(authority, server=server) as (end, peer):
            end.transport.abort()
            assert end.transport.is_closing()
            assert await end.protocol.lost() is None
            assert end.protocol.events == ["made", "lost"]
            assert await peer.receive_to_eof() == b""  # no close_notify

    run(main)


def test_abort_drops_what_is_buffered(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with server_of(authority) as (end, peer):
            while "pause" not in end.protocol.events:
                end.transport.write(MEGABYTE)
                await turns(1)
            end.transport.abort()
            assert await end.protocol.lost() is None

    run(main)


@EITHER_SIDE
def test_a_peer_that_resets(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            peer.reset()
            assert isinstance(await end.protocol.lost(), ConnectionResetError)
            assert end.protocol.events == ["made", "lost"]

    run(main)


@EITHER_SIDE
def test_what_is_no_record_ends_the_connection(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            await peer.send(b"no record at all")
            error = await end.protocol.lost()
            assert isinstance(error, ssl.SSLError)
            assert error.reason in NO_RECORD

    run(main)


@EITHER_SIDE
def test_write_after_close(run: Run, authority: Authority, side: Any) -> None:
    """Seen elsewhere: `write()` after close raises where asyncio warns and drops."""

    async def main() -> None:
        async with side(authority) as (end, peer):
            end.transport.write(b"before")
            end.transport.close()
            end.transport.write(b"after")
            assert await peer.hear(100) == b"before"
            await peer.unwrap()
            await end.protocol.lost()
            end.transport.write(b"much later")

    run(main)


@NEW
def test_write_after_abort_warns(
    run: Run, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            end.transport.abort()
            await end.protocol.lost()
            for _ in range(6):
                end.transport.write(b"data")

    run(main)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "SSL connection is closed"
    ] * 2


def test_a_server_that_closes_leaves_its_connections(run: Run, authority: Authority) -> None:
    """Seen elsewhere: `Server.close()` kills its clients; `wait_closed()` returns early."""

    async def main() -> None:
        async with serving(Servant, authority.server()) as server:
            peer = await connected_to(server, authority.client())
            await peer.say(b"one")
            assert await peer.hear(3) == b"one"
            server.close()
            await peer.say(b"two")
            assert await peer.hear(3) == b"two"
            waiting = asyncio.ensure_future(server.wait_closed())
            await turns(10)
            assert waiting.done() == (not PY312)
            await peer.unwrap()
            assert await peer.receive_to_eof() == b""
            await waiting
            peer.close()

    run(main)


# What is left


def test_connections_leave_nothing(run: Run, authority: Authority) -> None:
    async def main() -> None:
        server, client = authority.server(), authority.client()
        server.num_tickets = 0  # OpenSSL keeps what it has given tickets for

        async def once() -> None:
            async with both_ends(authority, server=server, client=client) as (near, far):
                near.transport.write(b"data")
                await far.protocol.received(4)
                near.transport.close()
                await near.protocol.lost()
                await far.protocol.lost()

        await assert_flat(once, 200)

    run(main)


def test_failed_handshakes_leave_nothing(run: Run, authority: Authority) -> None:
    async def main() -> None:
        client = authority.client()
        async with serving(Closing, authority.server(OTHER_NAME)) as server:

            async def once() -> None:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connect(server, ssl=client)
                await turns(5)

            await assert_flat(once, 200)

    run(main)
