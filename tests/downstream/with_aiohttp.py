"""aiohttp: the server, by a client that is rude, and its own client, connectors and test classes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import socket
import tempfile
from pathlib import Path
from typing import Any, AsyncIterator, List

import aiohttp
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from . import place, proxy
from .aiohttp_programs import (  # noqa: F401 - they are checks of this library
    check_mocked_methods,
    check_run_app_again_and_again,
    check_run_app_sigint,
    check_run_app_sigterm,
    check_unittest_classes,
)
from .http_client import connected
from .place import body, soon, until

SIZES = (0, 1, 1000, 65536, 300_000, 8 << 20)
events: List[str] = []


async def _bytes(request: web.Request) -> web.Response:
    return web.Response(body=body(int(request.query["n"])))


async def _stream(request: web.Request) -> web.StreamResponse:
    content = body(int(request.query["n"]))
    response = web.StreamResponse()
    if request.query.get("compress"):
        response.enable_compression()
    await response.prepare(request)
    for start in range(0, len(content), 65536):
        await response.write(content[start : start + 65536])
        events.append("piece")
    await response.write_eof()
    return response


async def _digest(request: web.Request) -> web.Response:
    content = await request.read()
    return web.json_response(
        {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    )


async def _echo(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    return response


async def _upload(request: web.Request) -> web.Response:
    told = {}
    async for part in await request.multipart():
        content = await part.read()  # type: ignore[union-attr]
        told[part.name] = len(content)  # type: ignore[union-attr]
    return web.json_response(told)


async def _wait(request: web.Request) -> web.Response:
    events.append("waiting")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        events.append("cancelled")
        raise
    return web.Response()


async def _fail(request: web.Request) -> web.Response:
    raise web.HTTPConflict(text="asked for")


async def _websocket(request: web.Request) -> web.WebSocketResponse:
    socket_ = web.WebSocketResponse(max_msg_size=0, heartbeat=5)
    await socket_.prepare(request)
    async for message in socket_:
        if message.type == WSMsgType.TEXT and message.data.startswith("close "):
            await socket_.close(code=int(message.data[6:]), message=b"asked for")
        elif message.type == WSMsgType.TEXT:
            await socket_.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket_.send_bytes(message.data)
    events.append(f"websocket closed {socket_.close_code}")
    return socket_


def new_application() -> web.Application:
    application = web.Application(client_max_size=64 << 20)
    gets = {"/bytes": _bytes, "/stream": _stream, "/wait": _wait, "/fail": _fail, "/ws": _websocket}
    application.add_routes([web.get(path, handler) for path, handler in gets.items()])
    posts = {"/digest": _digest, "/echo": _echo, "/upload": _upload}
    application.add_routes([web.post(path, handler) for path, handler in posts.items()])
    return application


@contextlib.asynccontextmanager
async def _serving(application: Any = None, **settings: Any) -> AsyncIterator[Any]:
    """A server in this loop; yields its address."""
    events.clear()
    unix, tls = settings.pop("unix", ""), settings.pop("ssl_context", None)
    runner = web.AppRunner(application or new_application(), **settings)
    await runner.setup()
    try:
        if unix:
            await web.UnixSite(runner, unix).start()
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0]
    finally:
        await soon(runner.cleanup())


@contextlib.asynccontextmanager
async def _session(**settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A server and a client that knows it."""
    connector = settings.pop("connector", None) or aiohttp.TCPConnector()
    async with _serving(**settings) as (_, port):
        scheme = "https" if settings.get("ssl_context") else "http"
        async with aiohttp.ClientSession(
            f"{scheme}://localhost:{port}", connector=connector, auto_decompress=True
        ) as session:
            yield session


async def _bodies(session: aiohttp.ClientSession) -> None:
    for size in SIZES:
        async with session.get(f"/bytes?n={size}") as answer:
            assert await answer.read() == body(size)
        async with session.post("/digest", data=io.BytesIO(body(size))) as answer:
            told = await answer.json()
            assert told == {"length": size, "sha256": hashlib.sha256(body(size)).hexdigest()}


async def check_bodies() -> None:
    async with _session() as session:
        await _bodies(session)


async def check_tls() -> None:
    connector = aiohttp.TCPConnector(ssl=place.client_context())
    async with _session(ssl_context=place.server_context(), connector=connector) as session:
        await _bodies(session)
    async with _session(ssl_context=place.server_context()) as session:
        try:
            await session.get("/bytes?n=1")
        except aiohttp.ClientConnectorCertificateError:
            pass
        else:
            raise AssertionError("nobody should trust it")


async def check_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        async with _serving(unix=path):
            connector = aiohttp.UnixConnector(path)
            async with aiohttp.ClientSession("http://any", connector=connector) as session:
                await _bodies(session)


async def check_pipelining() -> None:
    async with _serving() as address, connected(*address) as client:
        sizes = [size * 37 for size in range(100)]
        sending = asyncio.gather(*[client.send(f"/bytes?n={size}") for size in sizes])
        for size in sizes:
            assert (await client.receive()).body == body(size)
        await sending


async def check_streaming() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(300):
            yield body(number * 100)

    expected = b"".join([piece async for piece in pieces()])
    async with _session() as session:
        async with session.post("/echo", data=pieces()) as answer:
            assert await answer.read() == expected
        for compress in ("", "&compress=1"):
            async with session.get(f"/stream?n={4 << 20}{compress}") as answer:
                got = b"".join([piece async for piece in answer.content.iter_chunked(10_000)])
                assert got == body(4 << 20)


async def check_backpressure() -> None:
    async with _serving() as address, connected(*address, limit=1024) as client:
        await client.send(f"/stream?n={64 << 20}")
        _, headers = await client.receive_head()
        seen = -1
        while seen != len(events):
            seen = len(events)
            await asyncio.sleep(0.1)
        assert seen < 512, "the server has buffered it all"
        assert len(await client.receive_body(headers)) == 64 << 20


async def check_upload() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(body(3 << 20))
        file.seek(0)
        form = aiohttp.FormData()
        form.add_field("field", "value")
        form.add_field("file", file, filename="name")
        async with _session() as session, session.post("/upload", data=form) as answer:
            assert await answer.json() == {"field": 5, "file": 3 << 20}


def _application_of(path: Path) -> web.Application:
    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    application = web.Application()
    application.add_routes([web.get("/file", file)])
    return application


async def check_files() -> None:
    """FileResponse, which is loop.sendfile: whole, a range, by TLS, to a client that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        application = _application_of(path)
        async with _session(application=application) as session:
            for size in SIZES:
                path.write_bytes(body(size))
                async with session.get("/file") as answer:
                    assert await answer.read() == body(size)
            async with session.get("/file", headers={"range": "bytes=1000-99999"}) as answer:
                assert answer.status == 206
                assert await answer.read() == body(8 << 20)[1000:100_000]
            answers = await asyncio.gather(*[session.get("/file") for _ in range(10)])
            for answer in answers:
                assert await answer.read() == body(8 << 20)


async def check_files_by_sendfile() -> None:
    """aiohttp would hide a loop without sendfile: see that it has not."""
    loop: Any = asyncio.get_running_loop()
    sendfile, sent = loop.sendfile, []

    async def watched(*arguments: Any, **keywords: Any) -> int:
        count: int = await sendfile(*arguments, **keywords)
        sent.append(count)
        return count

    loop.sendfile = watched
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file").write_bytes(body(1 << 20))
        application = web.Application()
        application.add_routes([web.static("/", folder)])
        async with _session(application=application) as session:
            async with session.get("/file") as answer:
                assert await answer.read() == body(1 << 20)
    assert sent == [1 << 20]


async def check_files_by_tls() -> None:
    """Here sendfile falls back on reading and writing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(body(3 << 20))
        application = web.Application()
        application.add_routes([web.static("/", folder)])
        connector = aiohttp.TCPConnector(ssl=place.client_context())
        async with _session(
            application=application, ssl_context=place.server_context(), connector=connector
        ) as session:
            async with session.get("/file") as answer:
                assert await answer.read() == body(3 << 20)


async def check_files_and_a_client_that_goes_away() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(body(64 << 20))
        application = _application_of(path)
        async with _serving(application) as address:
            for _ in range(5):
                async with connected(*address) as client:
                    await client.send("/file")
                    await client.receive_head()
                    client.writer.transport.abort()
            async with connected(*address) as client:
                answer = await client.ask("/file", headers="range: bytes=0-9\r\n")
                assert answer.body == body(10)


async def check_many_requests() -> None:
    """A connector's limits: 500 requests over ten connections."""
    connector = aiohttp.TCPConnector(limit=10, limit_per_host=10)
    async with _session(connector=connector) as session:

        async def one(size: int) -> None:
            async with session.get(f"/bytes?n={size}") as answer:
                assert await answer.read() == body(size)

        await asyncio.gather(*[one(number * 10) for number in range(500)])
        assert sum(len(kept) for kept in connector._conns.values()) <= 10


async def check_client_goes_away() -> None:
    async with _serving(handler_cancellation=True) as address:
        for _ in range(5):
            async with connected(*address) as client:
                before = len(events)
                await client.send("/wait")
                await until(lambda before=before: len(events) > before)  # type: ignore[misc]
            await until(lambda before=before: len(events) > before + 1)  # type: ignore[misc]
        assert events == ["waiting", "cancelled"] * 5


async def check_timeouts_and_cancellation() -> None:
    async with _session(handler_cancellation=True) as session:
        for _ in range(3):
            try:
                await session.get("/wait", timeout=aiohttp.ClientTimeout(total=0.05))
            except asyncio.TimeoutError:
                pass
            else:
                raise AssertionError("no timeout")
        before = len(events)
        asking = asyncio.ensure_future(session.get("/wait"))
        await until(lambda: len(events) > before)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        await until(lambda: events.count("cancelled") == 4)


async def check_errors() -> None:
    async with _session() as session:
        async with session.get("/fail") as answer:
            assert (answer.status, await answer.text()) == (409, "asked for")
        async with session.get("/nowhere") as answer:
            assert answer.status == 404
    async with _serving() as address, connected(*address) as client:
        client.writer.write(b"no HTTP at all\r\n\r\n")
        assert (await client.receive()).status == 400
    async with aiohttp.ClientSession() as session:
        try:
            await session.get(f"http://localhost:{address[1]}/")
        except aiohttp.ClientConnectorError:
            pass
        else:
            raise AssertionError("nobody listens there")


async def check_keep_alive_runs_out() -> None:
    async with _serving(keepalive_timeout=0.3) as address, connected(*address) as client:
        assert (await client.ask("/bytes?n=5")).status == 200
        assert await client.at_end()


async def check_websocket() -> None:
    async with _session() as session:
        async with session.ws_connect("/ws", max_msg_size=0, compress=15) as socket_:
            for size in (0, 1, 126, 70_000, 4 << 20):
                await socket_.send_bytes(body(size))
                assert await soon(socket_.receive_bytes()) == body(size)
            await socket_.send_str("ελληνικά")
            assert await soon(socket_.receive_str()) == "ελληνικά"
            await socket_.ping()
        await until(lambda: "websocket closed 1000" in events)
        async with session.ws_connect("/ws") as socket_:
            await socket_.send_str("close 4321")
            message = await soon(socket_.receive())
            assert (message.type, message.data, message.extra) == (
                WSMsgType.CLOSE, 4321, "asked for",
            )  # fmt: skip


async def check_websockets_at_the_same_time() -> None:
    connector = aiohttp.TCPConnector(limit=0, ssl=place.client_context())
    async with _session(ssl_context=place.server_context(), connector=connector) as session:

        async def one(number: int) -> None:
            async with session.ws_connect("/ws") as socket_:
                for size in (number, number * 100, number * 1000):
                    await socket_.send_bytes(body(size))
                    assert await soon(socket_.receive_bytes()) == body(size)

        await asyncio.gather(*[one(number) for number in range(50)])
        await until(lambda: events.count("websocket closed 1000") == 50)


async def check_websocket_that_breaks() -> None:
    async with _serving() as (host, port):
        async with aiohttp.ClientSession() as session:
            socket_ = await session.ws_connect(f"http://{host}:{port}/ws")
            transport = socket_._response.connection.transport  # type: ignore[union-attr]
            transport.abort()  # type: ignore[union-attr]
            await until(lambda: "websocket closed 1006" in events)
            await soon(socket_.receive())
            assert socket_.closed


async def check_proxy() -> None:
    """CONNECT, then TLS in the same connection by loop.start_tls()."""
    context, asked = place.client_context(), []  # type: ignore[var-annotated]
    async with _serving(ssl_context=place.server_context()) as (_, port):
        async with proxy.connecting(asked=asked) as proxy_port:
            url, via = f"https://localhost:{port}", f"http://localhost:{proxy_port}"
            connector = aiohttp.TCPConnector(ssl=context)
            async with aiohttp.ClientSession(url, connector=connector, proxy=via) as session:
                await _bodies(session)
                async with session.ws_connect("/ws", proxy=via) as socket_:
                    await socket_.send_bytes(body(100_000))
                    assert await soon(socket_.receive_bytes()) == body(100_000)
    assert set(asked) == {f"localhost:{port}"}


async def check_server_in_a_thread() -> None:
    """web.run_app() in another thread, on a loop of its own, ended by a signal to that loop."""
    started: asyncio.Queue[int] = asyncio.Queue()
    here, loops, ends = asyncio.get_running_loop(), [], []

    async def serve() -> None:
        end = asyncio.Event()
        loops.append(asyncio.get_running_loop())
        ends.append(end)
        async with _serving() as (_, port):
            here.call_soon_threadsafe(started.put_nowait, port)
            await end.wait()

    def run() -> None:
        loop = place.loop_factory()()
        try:
            loop.run_until_complete(serve())
        finally:
            loop.close()

    running = here.run_in_executor(None, run)
    port = await soon(started.get())
    async with aiohttp.ClientSession(f"http://localhost:{port}") as session:
        await _bodies(session)
    loops[0].call_soon_threadsafe(ends[0].set)
    await soon(running)


async def check_socket_site() -> None:
    """Sites on one port by SO_REUSEPORT and on a socket that the user made; IPv6 by name."""
    runner = web.AppRunner(new_application())
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        port = listener.getsockname()[1]
        await web.SockSite(runner, listener).start()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_port=True).start()
        for _ in range(20):
            async with connected("127.0.0.1", port) as client:
                assert (await client.ask("/bytes?n=100")).body == body(100)
        await soon(runner.cleanup())


async def check_test_classes() -> None:
    client: Any
    async with TestServer(new_application()) as server, TestClient(server) as client:
        async with client.get("/bytes?n=1000") as answer:
            assert await answer.read() == body(1000)
        async with client.ws_connect("/ws") as socket_:
            await socket_.send_str("text")
            assert await soon(socket_.receive_str()) == "text"


async def check_graceful_shutdown() -> None:
    """cleanup() lets a request end; websockets are told by on_shutdown."""
    application, go = web.Application(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        events.append("waiting")
        await go.wait()
        return web.Response(text="in the end")

    application.add_routes([web.get("/slow", slow)])
    async with contextlib.AsyncExitStack() as stack:
        async with _serving(application, shutdown_timeout=5) as address:
            client = await stack.enter_async_context(connected(*address))
            await client.send("/slow")
            await until(lambda: events)
            asyncio.get_running_loop().call_later(0.2, go.set)
        assert (await client.receive()).body == b"in the end"
        assert await client.at_end()
