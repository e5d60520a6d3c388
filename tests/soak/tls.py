"""TLS connections of either side, and what breaks them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from typing import Any, Tuple

from support.backends import PY311
from support.sockets import LOCALHOST, reset, tcp_pair
from support.tls import NAME, OTHER_NAME, Authority

from soak.conversation import Conversation
from soak.lifecycle import Round, closing_all, lifecycle

# What ends a connection of TLS that was cut off in the middle of something.
BROKEN = (ssl.SSLError, ConnectionError, asyncio.TimeoutError, TimeoutError)
SHORT: Any = {"ssl_handshake_timeout": 0.02}
if PY311:
    SHORT = {**SHORT, "ssl_shutdown_timeout": 0.02}


@functools.cache
def contexts() -> Tuple[ssl.SSLContext, ssl.SSLContext, ssl.SSLContext]:
    """A server's context, the one of a server of another name, and a client's."""
    authority = Authority()
    return authority.server(), authority.server(OTHER_NAME), authority.client()


def protocol_of(round_: Round) -> Any:
    """A protocol that does not fail in connection_made(), which asyncio tells in different ways."""
    return round_.protocol("data", "eof", "lost", "pause", "resume")


async def both(round_: Round, server: ssl.SSLContext, **options: Any) -> Any:
    """Both ends of a connection as transports; exceptions in their place where it failed."""
    left, right = tcp_pair()
    client = contexts()[2]
    return await asyncio.gather(
        round_.loop.create_connection(
            lambda: protocol_of(round_), sock=left, ssl=client, server_hostname=NAME, **options
        ),
        round_.loop.connect_accepted_socket(
            lambda: protocol_of(round_), right, ssl=server, **options
        ),
        return_exceptions=True,
    )


async def end(round_: Round, made: Any) -> None:
    """End a connection if there is one."""
    if made is None or isinstance(made, BaseException):
        assert made is None or isinstance(made, (*BROKEN, asyncio.CancelledError)), made
        return
    transport, protocol = made
    await round_.end(transport, protocol)


@lifecycle(tolerates=BROKEN)
async def tls_both_ends(round_: Round) -> None:
    """Two transports that talk, and end in one of the ways there are."""
    client, server = await both(round_, contexts()[0], **SHORT)
    if not isinstance(client, BaseException) and not isinstance(server, BaseException):
        await Conversation(round_, client[0], client[1], None).hold()
    await end(round_, server)
    await end(round_, client)


@lifecycle(tolerates=BROKEN)
async def tls_cancelled(round_: Round) -> None:
    """A handshake that is cancelled at either end."""
    made = await round_.cut(both(round_, contexts()[0]), 0.9)
    for one in made or ():
        await end(round_, one)


@lifecycle(tolerates=BROKEN)
async def tls_wrong_name(round_: Round) -> None:
    """A certificate for somebody else."""
    client, server = await both(round_, contexts()[1])
    assert isinstance(client, ssl.SSLCertVerificationError), client
    await end(round_, server)


@lifecycle(tolerates=BROKEN)
async def tls_stopped_handshake(round_: Round) -> None:
    """A peer that says nothing, says nonsense, goes, or resets."""
    with closing_all() as sockets:
        left, right = tcp_pair()
        sockets.append(right)
        if round_.chance(0.5):
            making = round_.loop.create_connection(
                lambda: protocol_of(round_),
                sock=left,
                ssl=contexts()[2],
                server_hostname=NAME,
                **SHORT,
            )
        else:
            making = round_.loop.connect_accepted_socket(
                lambda: protocol_of(round_), left, ssl=contexts()[0], **SHORT
            )
        task = asyncio.ensure_future(round_.cut(making))
        await round_.turns(8)
        fault = round_.choose("silence", "nonsense", "close", "reset")
        with contextlib.suppress(OSError):
            if fault == "nonsense":
                right.send(b"GET / HTTP/1.0\r\n\r\n")
            elif fault == "close":
                right.close()
            elif fault == "reset":
                reset(right)
        await asyncio.wait([task])
        with contextlib.suppress(*BROKEN):
            await end(round_, task.result())


@lifecycle(tolerates=BROKEN)
async def tls_server(round_: Round) -> None:
    """A server with TLS, and clients by streams, by plain sockets, and that go at once."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(*BROKEN):
            writer.write(await reader.readline())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, LOCALHOST, 0, ssl=contexts()[0], **SHORT)
    port = server.sockets[0].getsockname()[1]
    with socket.create_connection((LOCALHOST, port)) as plain:
        plain.send(b"nonsense")
        made = None
        with contextlib.suppress(*BROKEN):
            made = await round_.cut(
                asyncio.open_connection(LOCALHOST, port, ssl=contexts()[2], server_hostname=NAME)
            )
        if made is not None:
            reader, writer = made
            writer.write(b"line\n")
            with contextlib.suppress(*BROKEN):
                await round_.cut(reader.readline())
            round_.choose(writer.close, writer.transport.abort)()
            with contextlib.suppress(*BROKEN):
                await round_.cut(writer.wait_closed())
    server.close()
    await server.wait_closed()


# It keeps two handles that are queued: docs/compatibility.md says what these do to an abandoned loop.
@lifecycle(abandons=False, tolerates=BROKEN)
async def tls_started(round_: Round) -> None:
    """start_tls() on a plain connection, with a peer that joins in, refuses, or goes."""
    left, right = tcp_pair()
    loop = round_.loop
    plain = [
        await loop.create_connection(asyncio.Protocol, sock=left),
        await loop.connect_accepted_socket(asyncio.Protocol, right),
    ]
    protocol = protocol_of(round_)
    client = loop.start_tls(plain[0][0], protocol, contexts()[2], server_hostname=NAME, **SHORT)
    joining = round_.choose("joins", "joins", "closes", "aborts")
    if joining == "joins":
        server = loop.start_tls(
            plain[1][0], protocol_of(round_), contexts()[0], server_side=True, **SHORT
        )
    else:
        server = asyncio.sleep(0)
        loop.call_soon(plain[1][0].close if joining == "closes" else plain[1][0].abort)
    made = await asyncio.gather(round_.cut(client), round_.cut(server), return_exceptions=True)
    for one in made:
        if isinstance(one, BaseException):
            assert isinstance(one, (*BROKEN, OSError)), one
        elif one is not None:
            one.write(b"x" * 1000)
            await round_.turns()
            one.abort()
    for transport, _ in plain:
        transport.abort()
    await round_.turns(8)
