"""Certificates, connections with TLS at both ends, and a peer that speaks TLS over a plain socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Any, AsyncIterator, Callable, Optional

import pytest
import trustme

from support.backends import PY311, Backend
from support.recorders import Recorder
from support.running import turns
from support.sockets import LOCALHOST, Peer, tcp_pair

NAME = "localhost"
OTHER_NAME = "other.example"
CLIENT_NAME = "client@example.org"
MEGABYTE = bytes(range(256)) * 4096
VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name
)
since_311 = pytest.mark.skipif(not PY311, reason="new in Python 3.11")
# asyncio's TLS does not always send the alert that tells why it ends a handshake.
REFUSED = (ssl.SSLError, ConnectionResetError)


def is_before_311(backend: Backend) -> bool:
    """Whether TLS is that of asyncio before Python 3.11.

    That one knows no shutdown timeout and no TLS inside of TLS, and tells a protocol of a
    close_notify only by connection_lost().
    """
    return backend.is_oracle and not PY311


@pytest.fixture
def since_311_or_oxloop(backend: Backend) -> None:
    """Skips a test of what asyncio's TLS has from Python 3.11 on, and oxloop's on every version."""
    if is_before_311(backend):
        pytest.skip("new in Python 3.11")


NEW = pytest.mark.usefixtures("since_311_or_oxloop")


class Authority:
    """A certificate authority, what it has issued, and contexts that trust it alone."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self._certificates = {
            NAME: self._ca.issue_cert(NAME, LOCALHOST),
            OTHER_NAME: self._ca.issue_cert(OTHER_NAME),
            CLIENT_NAME: self._ca.issue_cert(CLIENT_NAME),
        }

    def write(self, path: str) -> None:
        """Write the authority's certificate, for who reads it from a file."""
        self._ca.cert_pem.write_to_path(path)

    def server(
        self, name: str = NAME, *, make: Callable[[int], ssl.SSLContext] = ssl.SSLContext
    ) -> ssl.SSLContext:
        """A server's context that has the certificate of `name`."""
        context = make(ssl.PROTOCOL_TLS_SERVER)
        self._certificates[name].configure_cert(context)
        self._ca.configure_trust(context)
        return context

    def client(
        self,
        certificate: Optional[str] = None,
        *,
        make: Callable[[int], ssl.SSLContext] = ssl.SSLContext,
    ) -> ssl.SSLContext:
        """A client's context, with a certificate of its own if one is named."""
        context = make(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        if certificate is not None:
            self._certificates[certificate].configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Who has issued the certificates."""
    return Authority()


class TlsPeer(Peer):
    """The other end of a TLS transport, which does only what the test says.

    The plain methods of `Peer` move what is on the wire; those here what is inside of TLS.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        session: Optional[ssl.SSLSession] = None,
    ) -> None:
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        name = None if server_side else NAME
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side, name, session)

    def encrypt(self, *messages: bytes, close_notify: bool = False) -> bytes:
        """What has to go over the wire so far, with `messages`, and the end of TLS, after it."""
        for message in messages:
            self.tls.write(message)
        if close_notify:
            with contextlib.suppress(ssl.SSLWantReadError):  # the peer's own
                self.tls.unwrap()
        return self._outgoing.read()

    async def handshake(self) -> None:
        """Shake hands."""
        await self.send(await self.finish())

    async def finish(self) -> bytes:
        """Shake hands, but for the last bytes; these are to be sent."""
        await self._complete(self.tls.do_handshake)
        return self._outgoing.read()

    async def say(self, *messages: bytes) -> None:
        """Send `messages` inside of TLS."""
        await self.send(self.encrypt(*messages))

    def take(self, data: bytes) -> None:
        """Believe that `data` has come over the wire."""
        self._incoming.write(data)

    async def hear(self, count: int) -> bytes:
        """Exactly `count` bytes from inside of TLS, fewer only at its end."""
        data = bytearray()
        while len(data) < count:
            chunk = await self._complete(self.tls.read, min(count - len(data), 1 << 20))
            if not chunk:
                break
            data += chunk
        return bytes(data)

    async def unwrap(self) -> None:
        """Send close_notify and wait for the other end's."""
        await self._complete(self.tls.unwrap)
        await self.send(self._outgoing.read())

    async def _complete(self, step: Callable[..., Any], *args: Any) -> Any:
        """Do `step`, with what it needs from the wire and what it puts there."""
        while True:
            try:
                return step(*args)
            except ssl.SSLWantReadError:
                if self._outgoing.pending:
                    await self.send(self._outgoing.read())
                data = await self._loop.sock_recv(self.sock, 1 << 18)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                await self.send(self._outgoing.read())  # the alert
                raise


class Closing(Recorder):
    """Closes its transport when it is lost: without it asyncio before 3.11 warns of a TLS one."""

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        """Keep the reason."""
        super().connection_lost(exc)
        if not PY311:
            self.transport.close()


@dataclass
class End:
    """One end of a connection: the transport under test and its protocol."""

    transport: Any
    protocol: Any


@contextlib.asynccontextmanager
async def ending(end: End) -> AsyncIterator[End]:
    """Abort the transport after the block if it is still open, and let it go."""
    try:
        yield end
    finally:
        if not end.transport.is_closing():
            end.transport.abort()
        await turns(5)


@contextlib.asynccontextmanager
async def client_of(
    authority: Authority,
    factory: Callable[[], Any] = Closing,
    *,
    server: Optional[ssl.SSLContext] = None,
    client: Optional[ssl.SSLContext] = None,
    **options: Any,
) -> AsyncIterator[Any]:
    """A connected client transport, and the TLS peer that is its server."""
    loop: Any = asyncio.get_running_loop()
    left, right = tcp_pair()
    peer = TlsPeer(right, server or authority.server(), server_side=True)
    with contextlib.closing(peer):
        options = {"ssl": client or authority.client(), "server_hostname": NAME, **options}
        connecting = asyncio.ensure_future(loop.create_connection(factory, sock=left, **options))
        await peer.handshake()
        async with ending(End(*await connecting)) as end:
            yield end, peer


@contextlib.asynccontextmanager
async def server_of(
    authority: Authority,
    factory: Callable[[], Any] = Closing,
    *,
    server: Optional[ssl.SSLContext] = None,
    client: Optional[ssl.SSLContext] = None,
    session: Optional[ssl.SSLSession] = None,
    **options: Any,
) -> AsyncIterator[Any]:
    """A transport of the server's side, and the TLS peer that is its client."""
    loop: Any = asyncio.get_running_loop()
    left, right = tcp_pair()
    peer = TlsPeer(right, client or authority.client(), session=session)
    with contextlib.closing(peer):
        options = {"ssl": server or authority.server(), **options}
        accepting = asyncio.ensure_future(loop.connect_accepted_socket(factory, left, **options))
        await peer.handshake()
        async with ending(End(*await accepting)) as end:
            yield end, peer


@contextlib.asynccontextmanager
async def both_ends(
    authority: Authority,
    factory: Callable[[], Any] = Closing,
    *,
    server: Optional[ssl.SSLContext] = None,
    client: Optional[ssl.SSLContext] = None,
    server_hostname: str = NAME,
) -> AsyncIterator[Any]:
    """The transports of both ends of a connection: the client's and the server's."""
    loop: Any = asyncio.get_running_loop()
    left, right = tcp_pair()
    connected, accepted = await asyncio.gather(
        loop.create_connection(
            factory, sock=left, ssl=client or authority.client(), server_hostname=server_hostname
        ),
        loop.connect_accepted_socket(factory, right, ssl=server or authority.server()),
    )
    async with ending(End(*connected)) as near, ending(End(*accepted)) as far:
        yield near, far


EITHER_SIDE = pytest.mark.parametrize("side", [client_of, server_of], ids=["client", "server"])


class Servant(Closing):
    """Sends everything back."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


@contextlib.asynccontextmanager
async def serving(factory: Any, context: Any, **options: Any) -> AsyncIterator[Any]:
    """A server with TLS on a free port that is closed after the block."""
    loop: Any = asyncio.get_running_loop()
    server = await loop.create_server(factory, LOCALHOST, 0, ssl=context, **options)
    try:
        yield server
    finally:
        server.close()
        await turns(5)


def port_of(server: Any) -> int:
    """The port that `server` listens on."""
    return int(server.sockets[0].getsockname()[1])


async def connected_to(server: Any, context: Any = None) -> Any:
    """A socket connected to `server`, and with a context a TLS peer that has shaken hands."""
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (LOCALHOST, port_of(server)))
    if context is None:
        return Peer(sock)
    peer = TlsPeer(sock, context)
    await peer.handshake()
    return peer


async def close(end: Any) -> None:
    """Close an end and wait until it is gone; the peer has to play its part."""
    end.transport.close()
    assert await end.protocol.lost() is None


def limited(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The same context, speaking `version` only."""
    context.minimum_version = version
    context.maximum_version = version
    return context


def only_task_left() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def connect(server: Any, host: str = LOCALHOST, **options: Any) -> Any:
    """Connect to `server` with TLS, say goodbye, and return what TLS was agreed on."""
    loop: Any = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(
        Closing, host, port_of(server), family=socket.AF_INET, **options
    )
    tls = transport.get_extra_info("ssl_object")
    transport.close()
    assert await protocol.lost() is None
    return tls


async def hello(peer: Peer) -> bytes:
    """What the other side sends first."""
    first = await peer.receive(5)
    assert first[:1] == b"\x16"  # a handshake record, RFC 8446 section 5.1
    return first + await peer.receive(int.from_bytes(first[3:], "big"))
