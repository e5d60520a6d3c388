"""TCP and Unix stream connections: clients, servers, streams, and those that never come to be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from typing import Any

from support.sockets import LOCALHOST, listener, refusing_address, reset, tcp_pair

from soak.conversation import Conversation
from soak.lifecycle import Round, closing_all, lifecycle


@lifecycle()
async def tcp_client(round_: Round) -> None:
    """create_connection() to a listener, which is a plain socket."""
    with closing_all() as sockets, listener() as listening:
        host, port = listening.getsockname()
        arguments = round_.choose(
            {}, {"local_addr": (LOCALHOST, 0)}, {"happy_eyeballs_delay": 0.001}
        )
        connecting = round_.loop.create_connection(round_.protocol, host, port, **arguments)
        made = await round_.cut(connecting)
        if made is None:
            return
        sockets.append(listening.accept()[0])
        sockets[0].setblocking(False)
        await Conversation(round_, *made, sockets[0]).hold()


@lifecycle()
async def connected_socket(round_: Round) -> None:
    """A transport over a socket of the user's, of either family, connected or accepted."""
    with closing_all() as sockets:
        sockets += round_.choose(tcp_pair, socket.socketpair)()
        left, right = sockets
        left.setblocking(False)
        right.setblocking(False)
        if round_.chance(0.5):
            making = round_.loop.create_connection(round_.protocol, sock=left)
        else:
            making = round_.loop.connect_accepted_socket(round_.protocol, left)
        made = await round_.cut(making)
        if made is not None:
            await Conversation(round_, *made, right).hold()


class Refused(Exception):
    """Raised by a factory."""


@lifecycle(tolerates=(Refused,))
async def tcp_server(round_: Round) -> None:
    """create_server() with clients that come, stay, reset, or are accepted too late."""
    protocols = []

    def factory() -> Any:
        if round_.chance(0.1):
            raise Refused  # reported in debug mode alone
        protocols.append(round_.protocol())
        return protocols[-1]

    host = round_.choose(LOCALHOST, LOCALHOST, "::1")
    making = round_.loop.create_server(factory, host, 0, backlog=5)
    server = await round_.cut(making, 0.05)
    if server is None:
        return
    address = server.sockets[0].getsockname()
    family = server.sockets[0].family
    with closing_all() as sockets:
        for _ in range(round_.dice.randrange(5)):
            sock = socket.socket(family)
            sockets.append(sock)
            sock.setblocking(False)
            await round_.loop.sock_connect(sock, address)
            with contextlib.suppress(OSError):
                sock.send(round_.data(70_000))
            if round_.chance(0.2):
                reset(sock)
        await round_.turns()
        server.close()
        await round_.turns()
        if round_.chance(0.5):
            round_.loop.call_soon(server.close)
        for protocol in protocols:
            if protocol.transport is not None:
                round_.choose(protocol.transport.close, protocol.transport.abort)()
    for protocol in protocols:
        await protocol.until_event("made")
        await round_.end(protocol.transport, protocol)
    await server.wait_closed()


@lifecycle()
async def serve_forever(round_: Round) -> None:
    """A server that serves until its task is cancelled."""
    accepted = []

    def factory() -> Any:
        accepted.append(round_.protocol())
        return accepted[-1]

    server = await round_.loop.create_server(
        factory, LOCALHOST, 0, start_serving=round_.chance(0.5)
    )
    address = server.sockets[0].getsockname()
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    transport, protocol = await round_.loop.create_connection(round_.protocol, *address)
    transport.write(b"hello")
    await round_.turns()
    await round_.end(transport, protocol)
    serving.cancel()
    await round_.turns()
    for one in accepted:
        await one.until_event("made")
        await round_.end(one.transport, one)
    await asyncio.wait([serving])
    assert not server.is_serving()


@lifecycle()
async def streams(round_: Round) -> None:
    """open_connection() and start_server(): what is sent comes back, unless somebody goes."""
    message = round_.data() + b"\n"

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while round_.chance(0.95):
                data = await reader.read(100_000)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, LOCALHOST, 0)
    made = await round_.cut(
        asyncio.open_connection(*server.sockets[0].getsockname(), limit=1 << 20)
    )
    if made is not None:
        reader, writer = made
        writer.write(message)
        answer = await round_.cut(ask(reader, writer))
        assert answer is None or message.startswith(answer), len(answer)
        if round_.chance(0.2):
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await round_.cut(writer.wait_closed())
    server.close()
    await server.wait_closed()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    """Drain, and read a line."""
    try:
        await writer.drain()
        return await reader.readline()
    except ConnectionError:
        return None


@lifecycle()
async def unix_server(round_: Round) -> None:
    """A Unix server and its client, both transports, at a path or in the abstract namespace."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        server_protocol = round_.protocol()
        server = await round_.loop.create_unix_server(lambda: server_protocol, path)
        made = await round_.cut(round_.loop.create_unix_connection(round_.protocol, path))
        if made is not None:
            await server_protocol.until_event("made")
            conversation = Conversation(round_, *made, None)
            if not server_protocol.transport.is_closing():
                server_protocol.transport.write(round_.data(70_000))
            await conversation.hold()
        server.close()
        await round_.turns()
        if server_protocol.transport is not None:
            await round_.end(server_protocol.transport, server_protocol)
        await server.wait_closed()


@lifecycle()
async def refused(round_: Round) -> None:
    """Connections to where nobody listens, one after the other or in a race."""
    with refusing_address() as one, refusing_address() as two:
        infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (one, two)]
        arguments = round_.choose({}, {"happy_eyeballs_delay": 0.0001})
        tasks = []
        for info in infos:
            host, port = info[4]
            connecting = round_.loop.create_connection(round_.protocol, host, port, **arguments)
            tasks.append(asyncio.ensure_future(round_.cut(connecting)))
        await asyncio.wait(tasks)
        for task in tasks:
            error = task.exception()
            assert error is None or isinstance(error, ConnectionRefusedError), error
        with contextlib.suppress(FileNotFoundError):
            await round_.loop.create_unix_connection(round_.protocol, "/nonexistent/socket")


@lifecycle()
async def race(round_: Round) -> None:
    """localhost by happy eyeballs, where one of the two families refuses."""
    with closing_all() as sockets, listener() as listening:
        port = listening.getsockname()[1]
        made = await round_.cut(
            round_.loop.create_connection(
                round_.protocol, "localhost", port, happy_eyeballs_delay=0.001
            )
        )
        if made is None:
            return
        sockets.append(listening.accept()[0])
        sockets[0].setblocking(False)
        await Conversation(round_, *made, sockets[0]).hold()


@lifecycle()
async def failing_factory(round_: Round) -> None:
    """A protocol factory that raises: to the caller, and the socket goes."""

    def factory() -> Any:
        raise Refused

    with listener() as listening:
        with contextlib.suppress(Refused):
            await round_.loop.create_connection(factory, *listening.getsockname())
        listening.accept()[0].close()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        with contextlib.suppress(Refused):
            await round_.loop.create_connection(factory, sock=left)
