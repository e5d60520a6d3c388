"""TLS over transports of other makes, sessions of other classes, and peers that stop half way."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import ssl
import weakref
from typing import Any, List, Optional, Tuple

import pytest
from support.backends import Backend
from support.census import assert_flat
from support.releases import ONE_CONTEXT
from support.reports import Reports
from support.running import Run, turns
from support.sockets import tcp_pair
from support.tls import (
    EITHER_SIDE,
    MEGABYTE,
    NAME,
    NEW,
    Authority,
    Closing,
    Servant,
    TlsPeer,
    both_ends,
    client_of,
    hello,
    limited,
    server_of,
    serving,
)

# Transports of a user's


class Pipe(asyncio.Transport):
    """One end of a connection inside of the process; what is written arrives in the next turn."""

    _start_tls_compatible = True

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self._protocol = protocol
        self._waiting: List[bytes] = []
        self._paused = False
        self._closing = False
        self.reason: Optional[BaseException] = None
        self.other: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._later(self.deliver)

    def write(self, data: Any) -> None:
        self.other._waiting.append(bytes(data))
        self._later(self.other.deliver)

    def deliver(self) -> None:
        """Give the protocol what has come."""
        while self._waiting and not self._paused and not self._closing:
            data = self._waiting.pop(0)
            if isinstance(self._protocol, asyncio.BufferedProtocol):
                while data:
                    buffer = self._protocol.get_buffer(len(data))
                    count = min(len(buffer), len(data))
                    buffer[:count] = data[:count]
                    self._protocol.buffer_updated(count)
                    data = data[count:]
            else:
                self._protocol.data_received(data)

    def close(self) -> None:
        self._force_close(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: Optional[BaseException]) -> None:
        if not self._closing:
            self._closing = True
            self._later(self._protocol.connection_lost, exc)
            self._later(self.other.end)

    def end(self) -> None:
        """The other end is gone."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def _later(self, callback: Any, *args: Any) -> None:
        asyncio.get_running_loop().call_soon(callback, *args)


def pipe(kind: Any = Pipe, factory: Any = Closing) -> Tuple[Pipe, Pipe]:
    """Both ends of one, with a protocol each."""
    ends = kind(factory()), kind(factory())
    for end, other in (ends, ends[::-1]):
        end.other = other
        end.get_protocol().connection_made(end)
    return ends


async def over(ends: Tuple[Any, Any], authority: Authority) -> List[Any]:
    """TLS on both ends of a connection."""
    loop: Any = asyncio.get_running_loop()
    protocols = [end.get_protocol() for end in ends]
    transports = await asyncio.gather(
        loop.start_tls(ends[0], protocols[0], authority.client(), server_hostname=NAME),
        loop.start_tls(ends[1], protocols[1], authority.server(), server_side=True),
    )
    for transport, protocol in zip(transports, protocols):
        protocol.transport = transport
    return list(transports)


@NEW
def test_tls_over_a_users_own_transport(run: Run, authority: Authority) -> None:
    async def main() -> None:
        ends = pipe()
        near, far = await over(ends, authority)
        for sender, receiver in ((near, far), (far, near)):
            protocol = receiver.get_protocol()
            sender.write(b"small")
            sender.writelines([MEGABYTE, b"end"])
            assert await protocol.received(len(MEGABYTE) + 8) == b"small" + MEGABYTE + b"end"
        protocols = near.get_protocol(), far.get_protocol()
        near.close()
        for protocol in protocols:
            assert await protocol.lost() is None
        assert ends[0].is_closing()
        assert ends[1].is_closing()

    run(main)


class Immediate(Pipe):
    """One that delivers before write() returns, so that TLS is called in the middle of what it does."""

    def _later(self, callback: Any, *args: Any) -> None:
        if callback == self.other.deliver:
            callback(*args)
        else:
            super()._later(callback, *args)


def test_a_transport_that_delivers_at_once(
    run: Run, authority: Authority, backend: Backend
) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio's TLS does not expect to be called in the middle of a write")

    class Answering(Closing):
        answers = 0

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.answers:
                self.answers -= 1
                self.transport.write(b"x")

    async def main() -> None:
        near, far = await over(pipe(Immediate, Answering), authority)
        client, server = near.get_protocol(), far.get_protocol()
        client.answers = server.answers = 5
        near.write(MEGABYTE)
        # Nothing has overtaken anything, and everything has arrived by now.
        assert client.data == b"x" * len(client.data) != b""
        assert server.data == MEGABYTE + b"x" * (len(server.data) - len(MEGABYTE))
        assert len(server.data) > len(MEGABYTE)
        near.abort()
        await server.lost()

    run(main)


@NEW
def test_a_users_own_transport_in_three_layers(run: Run, authority: Authority) -> None:
    async def main() -> None:
        layers: Any = pipe()
        for _ in range(3):
            layers = await over(tuple(layers), authority)
        near, far = layers
        protocols = near.get_protocol(), far.get_protocol()
        near.write(MEGABYTE)
        assert await protocols[1].received(len(MEGABYTE)) == MEGABYTE
        far.write(b"answer")
        assert await protocols[0].received(6) == b"answer"
        near.close()
        for protocol in protocols:
            assert await protocol.lost() is None

    run(main)


@NEW
def test_a_wrong_certificate_over_a_users_own_transport(run: Run, authority: Authority) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        near, far = pipe()
        results = await asyncio.gather(
            loop.start_tls(near, near.get_protocol(), Authority().client(), server_hostname=NAME),
            loop.start_tls(far, far.get_protocol(), authority.server(), server_side=True),
            return_exceptions=True,
        )
        assert isinstance(results[0], ssl.SSLCertVerificationError)
        assert isinstance(results[1], (ssl.SSLError, ConnectionResetError))
        assert near.is_closing()

    run(main)


@NEW
def test_connections_inside_of_connections_leave_nothing(run: Run, authority: Authority) -> None:
    async def main() -> None:
        server, client = authority.server(), authority.client()
        server.num_tickets = 0  # OpenSSL keeps what it has given tickets for
        loop: Any = asyncio.get_running_loop()

        async def once() -> None:
            async with both_ends(authority, server=server, client=client) as (near, far):
                inner = await asyncio.gather(
                    loop.start_tls(near.transport, near.protocol, client, server_hostname=NAME),
                    loop.start_tls(far.transport, far.protocol, server, server_side=True),
                )
                inner[0].write(b"data")
                await far.protocol.received(4)
                near.protocol.transport, far.protocol.transport = inner
                inner[0].close()
                await near.protocol.lost()
                await far.protocol.lost()

        await assert_flat(once, 200)

    run(main)


# Sessions of a user's


@EITHER_SIDE
def test_a_users_own_session_class(run: Run, authority: Authority, side: Any) -> None:
    """asyncio calls the methods of the ssl.SSLObject that the context has made."""
    calls: List[str] = []

    class Tls(ssl.SSLObject):
        def read(self, len: int = 1024, buffer: Any = None) -> Any:
            calls.append("read")
            return super().read(len, buffer)

        def write(self, data: Any) -> int:
            calls.append("write")
            return super().write(data)

    async def main() -> None:
        ours = "client" if side is client_of else "server"
        context = getattr(authority, ours)()
        context.sslobject_class = Tls
        async with side(authority, **{ours: context}) as (end, peer):
            assert type(end.transport.get_extra_info("ssl_object")) is Tls
            end.transport.write(MEGABYTE)
            end.transport.write(b"end")
            assert await peer.hear(len(MEGABYTE) + 3) == MEGABYTE + b"end"
            sending = asyncio.ensure_future(peer.say(MEGABYTE, b"end"))
            assert await end.protocol.received(len(MEGABYTE) + 3) == MEGABYTE + b"end"
            await sending
            assert {"read", "write"} <= set(calls)

    run(main)


# Peers that stop


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
def test_a_peer_that_stops_in_mid_handshake(
    run: Run, authority: Authority, server_side: bool
) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        context = authority.client() if server_side else authority.server()
        peer = TlsPeer(right, context, server_side=not server_side)
        with contextlib.closing(peer):
            if server_side:
                opening = loop.connect_accepted_socket(
                    Closing, left, ssl=authority.server(), ssl_handshake_timeout=0.1
                )
            else:
                opening = loop.create_connection(
                    Closing,
                    sock=left,
                    ssl=authority.client(),
                    server_hostname=NAME,
                    ssl_handshake_timeout=0.1,
                )
            task = asyncio.ensure_future(opening)
            if not server_side:
                peer.take(await hello(peer))
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            flight = peer.encrypt()
            await peer.send(flight[: len(flight) // 2])
            counted = [0]

            def count() -> None:
                counted[0] += 1
                if not task.done():
                    loop.call_later(0.01, count)

            count()
            with pytest.raises(ConnectionAbortedError):
                await task
            # Nobody has spun meanwhile.
            assert counted[0] <= 15
        await turns(3)

    run(main)


@NEW
@EITHER_SIDE
def test_a_peer_that_stops_in_mid_goodbye(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority, ssl_shutdown_timeout=0.05) as (end, peer):
            await peer.send(peer.encrypt(close_notify=True)[:10])
            end.transport.close()
            error = await end.protocol.lost()
            assert type(error) is asyncio.TimeoutError
            assert str(error) == "SSL shutdown timed out"

    run(main)


@EITHER_SIDE
def test_a_peer_that_is_gone_in_mid_record(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        async with side(authority) as (end, peer):
            await peer.send(peer.encrypt(b"whole", b"half")[:-3])
            assert await end.protocol.received(5) == b"whole"
            peer.send_eof()
            assert await end.protocol.lost() is None
            assert end.protocol.data == b"whole"

    run(main)


@NEW
def test_aborted_in_mid_goodbye(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            end.transport.close()
            await turns(2)
            end.transport.abort()
            assert await end.protocol.lost() is None
            assert end.protocol.events == ["made", "lost"]

    run(main)


def test_an_alert_tells_a_peer_why(run: Run, authority: Authority, backend: Backend) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio keeps the alert to itself")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, authority.server(), server_side=True)) as peer:
            connecting = asyncio.ensure_future(
                loop.create_connection(
                    Closing, sock=left, ssl=Authority().client(), server_hostname=NAME
                )
            )
            shaking = asyncio.ensure_future(peer.handshake())
            with pytest.raises(ssl.SSLError) as caught:
                await shaking
            assert caught.value.reason == "TLSV1_ALERT_UNKNOWN_CA"
            with pytest.raises(ssl.SSLCertVerificationError):
                await connecting

    run(main)


# What else can be seen


def test_the_context_variables_of_the_callbacks(run: Run, authority: Authority) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: List[Tuple[str, str]] = []

    class Seeing(Closing):
        def record(self, event: str) -> None:
            seen.append((event, variable.get()))
            super().record(event)

    async def main() -> None:
        variable.set("opened")
        async with client_of(authority, Seeing) as (end, peer):
            variable.set("later")
            await peer.say(b"data")
            await end.protocol.received(4)
            end.transport.abort()
            await end.protocol.lost()
        ended = "opened" if ONE_CONTEXT else "later"
        assert seen == [("made", "opened"), ("data", "opened"), ("lost", ended)]

    run(main)


def test_debug_mode_logs_the_handshake(
    run: Run, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            peer.send_eof()
            await end.protocol.lost()

    with caplog.at_level(logging.DEBUG, "asyncio"):
        run(main, debug=True)
    messages = [record.getMessage() for record in caplog.records]
    for expected in (" starts SSL handshake", ": SSL handshake took ", " received EOF"):
        assert any(expected in message for message in messages), expected


def test_what_is_left_of_a_lost_transport(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            transport = end.transport
            transport.abort()
            await end.protocol.lost()
            assert transport.get_protocol() is None
            assert transport.is_closing()
            assert transport.get_extra_info("cipher") is not None
            assert transport.get_extra_info("peername", "default") == "default"
            transport.abort()
            transport.close()

    run(main)


def test_it_takes_new_attributes(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with client_of(authority) as (end, peer):
            written: List[bytes] = []
            end.transport.colour = "red"
            end.transport.write = written.append
            end.transport.write(b"data")
            assert written == [b"data"]
            assert end.transport.colour == "red"
            assert weakref.ref(end.transport)() is end.transport

    run(main)


@NEW
def test_an_abandoned_connection_is_collected(
    backend: Backend, authority: Authority, reports: Reports
) -> None:
    if backend.is_oracle and ONE_CONTEXT:
        pytest.skip("asyncio's stays on Python 3.15")

    class Keeping(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

    async def connect() -> Any:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, authority.server(), server_side=True)) as peer:
            connecting = asyncio.ensure_future(
                loop.create_connection(
                    Keeping, sock=left, ssl=authority.client(), server_hostname=NAME
                )
            )
            await peer.handshake()
            _, protocol = await connecting
        return weakref.ref(protocol)

    loop = backend.new_loop()
    protocol = loop.run_until_complete(connect())
    loop.close()
    del loop
    with pytest.warns(ResourceWarning, match="^unclosed"):
        gc.collect()
    assert protocol() is None


def test_a_server_takes_its_connections_along(run: Run, authority: Authority) -> None:
    """A transport of a server's knows its server by the one below it."""

    async def main() -> None:
        async with serving(Servant, authority.server()) as server:
            if not hasattr(server, "abort_clients"):
                pytest.skip("new in Python 3.13")
            loop: Any = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(
                Closing,
                *server.sockets[0].getsockname(),
                ssl=authority.client(),
            )
            transport.write(b"data")
            await protocol.received(4)
            server.close()
            server.abort_clients()
            await server.wait_closed()
            await protocol.lost()

    run(main)


def test_the_servers_version_of_a_handshake_with_eof(run: Run, authority: Authority) -> None:
    """A client that ends its side right after the handshake gets its answer."""

    async def main() -> None:
        server = limited(authority.server(), ssl.TLSVersion.TLSv1_2)
        async with server_of(authority, Servant, server=server) as (end, peer):
            await peer.send(peer.encrypt(b"question", close_notify=True))
            assert await peer.hear(8) == b"question"
            with contextlib.suppress(ssl.SSLZeroReturnError):
                assert await peer.hear(1) == b""
            await end.protocol.lost()

    run(main)
