"""websockets: client and server, of which each stands against the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from typing import Any, AsyncIterator, List

import websockets
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve, unix_serve

from . import place
from .place import body, soon, until

SIZES = (0, 1, 125, 126, 65535, 65536, 300_000, 4 << 20)


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def _serving(handler: Any = _echo, **settings: Any) -> AsyncIterator[str]:
    """A server; yields its URL."""
    server: Server
    async with serve(handler, "127.0.0.1", 0, max_size=None, **settings) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"{'wss' if settings.get('ssl') else 'ws'}://localhost:{port}/"


async def _exchange(connection: ClientConnection) -> None:
    for size in SIZES:
        await connection.send(body(size))
        assert await soon(connection.recv()) == body(size), size
    for text in ("", "text", "ελληνικά" * 10_000):
        await connection.send(text)
        assert await soon(connection.recv()) == text


async def check_messages() -> None:
    async with _serving(compression=None) as url:
        async with connect(url, compression=None, max_size=None) as connection:
            await _exchange(connection)
        assert connection.close_code == 1000


async def check_compression() -> None:
    async with _serving() as url, connect(url, max_size=None) as connection:
        names = [extension.name for extension in connection.protocol.extensions]
        assert names == ["permessage-deflate"]
        await _exchange(connection)


async def check_tls() -> None:
    async with _serving(ssl=place.server_context()) as url:
        async with connect(url, ssl=place.client_context(), max_size=None) as connection:
            await _exchange(connection)


async def check_unix() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        async with unix_serve(_echo, path, max_size=None):
            async with unix_connect(path, max_size=None) as connection:
                await _exchange(connection)


async def check_fragments() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield body(number * 100)

    async def fragments(connection: ServerConnection) -> None:
        got = [piece async for piece in connection.recv_streaming()]
        assert len(got) > 50
        await connection.send(got)

    async with _serving(fragments) as url, connect(url, max_size=None) as connection:
        await connection.send(pieces())
        expected = b"".join([piece async for piece in pieces()])
        assert await soon(connection.recv()) == expected


async def check_ping() -> None:
    async with _serving() as url, connect(url) as connection:
        for number in range(50):
            pong = await connection.ping(b"%d" % number)
            assert await soon(pong) < place.PATIENCE


async def check_keepalive() -> None:
    """A peer that answers no ping is closed with 1011."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from websockets.server import ServerProtocol

        protocol = ServerProtocol()
        head = await reader.readuntil(b"\r\n\r\n")
        protocol.receive_data(head)
        protocol.send_response(protocol.accept(protocol.events_received()[0]))  # type: ignore[arg-type]
        writer.writelines(protocol.data_to_send())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"ws://localhost:{port}/"
        connection = await connect(url, ping_interval=0.05, ping_timeout=0.05, close_timeout=0.1)
        try:
            await soon(connection.recv())
        except websockets.ConnectionClosedError as error:
            assert error.sent is not None
            assert error.sent.code == 1011
        else:
            raise AssertionError("nobody noticed")


async def check_close_codes() -> None:
    async def closing(connection: ServerConnection) -> None:
        code = int(await connection.recv())
        await connection.close(code, f"reason {code}")

    async with _serving(closing) as url:
        for code in (1000, 1001, 1008, 3000, 4999):
            async with connect(url) as connection:
                await connection.send(str(code))
                try:
                    await soon(connection.recv())
                except websockets.ConnectionClosed as error:
                    assert error.rcvd is not None
                    assert (error.rcvd.code, error.rcvd.reason) == (code, f"reason {code}")
                else:
                    raise AssertionError("not closed")


async def check_a_message_that_is_too_big() -> None:
    async with _serving() as url, connect(url, max_size=1000) as connection:
        await connection.send(body(100_000))
        try:
            await soon(connection.recv())
        except websockets.ConnectionClosedError as error:
            assert error.sent is not None
            assert error.sent.code == 1009
        else:
            raise AssertionError("it was taken")


async def check_abnormal_closure() -> None:
    ended: List[int] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.append(connection.close_code or 0)

    async with _serving(handler) as url:
        for _ in range(20):
            connection = await connect(url)
            connection.transport.abort()
            await soon(connection.wait_closed())
        await until(lambda: len(ended) == 20)
        assert set(ended) == {1006}


async def check_backpressure() -> None:
    """send() waits for a peer that does not read."""
    go = asyncio.Event()
    got = []

    async def lazy(connection: ServerConnection) -> None:
        await go.wait()
        async for message in connection:
            got.append(len(message))

    async with _serving(lazy, compression=None) as url:
        async with connect(url, compression=None) as connection:
            sending = asyncio.ensure_future(_send_many(connection))
            done, _ = await asyncio.wait([sending], timeout=0.3)
            assert not done, "64 MiB were buffered somewhere"
            go.set()
            await soon(sending)
    assert got == [1 << 20] * 64


async def _send_many(connection: ClientConnection) -> None:
    for _ in range(64):
        await connection.send(body(1 << 20))


async def check_broadcast() -> None:
    joined = set()

    async def handler(connection: ServerConnection) -> None:
        joined.add(connection)
        await connection.wait_closed()

    async with _serving(handler) as url:
        clients = await asyncio.gather(*[connect(url) for _ in range(100)])
        await until(lambda: len(joined) == 100)
        for number in range(10):
            broadcast(joined, f"message {number}")
        for client in clients:
            got = [await soon(client.recv()) for _ in range(10)]
            assert got == [f"message {number}" for number in range(10)]
        await asyncio.gather(*[client.close() for client in clients])


async def check_cancelled_recv() -> None:
    """recv() that was given up loses no message."""
    async with _serving() as url, connect(url) as connection:
        for number in range(50):
            waiting = asyncio.ensure_future(connection.recv())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await connection.send(str(number))
            assert await soon(connection.recv()) == str(number)


async def check_server_closes() -> None:
    async with _serving() as url:
        clients = await asyncio.gather(*[connect(url) for _ in range(50)])
    for client in clients:
        await soon(client.wait_closed())
        assert client.close_code == 1001


async def check_refused() -> None:
    async def refuse(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(403, "no\n")

    async with _serving(process_request=refuse) as url:
        try:
            await connect(url)
        except websockets.InvalidStatus as error:
            assert error.response.status_code == 403
        else:
            raise AssertionError("not refused")
    try:
        await connect(url)
    except OSError:
        pass
    else:
        raise AssertionError("nobody listens there")
