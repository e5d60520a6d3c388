"""uvicorn: both of its HTTP parsers and its WebSocket protocols, TLS, Unix sockets, and real processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any, AsyncIterator, Dict, List, Tuple

import uvicorn
import websockets
from websockets.asyncio.client import connect

from . import place
from .application import PIECE, application, events
from .http_client import Client, connected
from .place import body, soon, until
from .processes import python_m, serve_and_end

VERSION = tuple(int(part) for part in uvicorn.__version__.split(".")[:2])


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


@contextlib.asynccontextmanager
async def _serving(sock: Any = None, **settings: Any) -> AsyncIterator[Tuple[str, int]]:
    """A server in this loop; yields its address."""
    events.clear()
    settings = {"log_level": "critical", "timeout_graceful_shutdown": 5, **settings}
    config = uvicorn.Config(application, **settings)
    listener = sock or _listener()
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve(sockets=[listener]))
    await until(lambda: server.started or running.done())
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        await soon(running)
        listener.close()


async def _bodies(http: str) -> None:
    async with _serving(http=http) as address, connected(*address) as client:
        for size in (0, 1, 1000, 65536, 300_000, 8 << 20):
            answer = await client.ask(f"/bytes?n={size}")
            assert (answer.status, answer.body) == (200, body(size)), size
            answer = await client.ask("/digest", body(size), method="POST")
            digest = hashlib.sha256(body(size)).hexdigest()
            assert answer.json() == {"length": size, "sha256": digest}, size


async def check_bodies_h11() -> None:
    await _bodies("h11")


async def check_bodies_httptools() -> None:
    await _bodies("httptools")


async def _pipelining(http: str) -> None:
    async with _serving(http=http) as address, connected(*address) as client:
        sizes = [size * 37 for size in range(100)]
        sending = asyncio.gather(*[client.send(f"/bytes?n={size}") for size in sizes])
        for size in sizes:
            assert (await client.receive()).body == body(size)
        await sending


async def check_pipelining_h11() -> None:
    await _pipelining("h11")


async def check_pipelining_httptools() -> None:
    await _pipelining("httptools")


async def _streaming(http: str) -> None:
    """Four mebibytes go through the application while they are still being sent."""
    pieces = [body(size) for size in (1, 10, 100_000, 2 << 20, 7, 2 << 20)]
    async with _serving(http=http) as address, connected(*address) as client:
        sending = asyncio.ensure_future(client.send_chunks("/echo", pieces))
        answer = await client.receive()
        await sending
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body == b"".join(pieces)


async def check_streaming_h11() -> None:
    await _streaming("h11")


async def check_streaming_httptools() -> None:
    await _streaming("httptools")


async def check_backpressure() -> None:
    """A client that does not read stops the application."""
    async with _serving(http="httptools") as address, connected(*address, limit=1024) as client:
        size = 64 << 20
        await client.send(f"/stream?n={size}")
        _, headers = await client.receive_head()
        seen = -1
        while seen != len(events):
            seen = len(events)
            await asyncio.sleep(0.1)
        assert seen * PIECE < size // 2, "the server has buffered it all"
        content = await client.receive_body(headers)
        assert len(content) == size


async def check_many_connections() -> None:
    async def one(number: int, address: Tuple[str, int]) -> None:
        async with connected(*address) as client:
            for size in (number, number * 10, number * 100):
                assert (await client.ask(f"/bytes?n={size}")).body == body(size)

    async with _serving() as address:
        await asyncio.gather(*[one(number, address) for number in range(200)])


async def check_client_goes_away() -> None:
    async with _serving() as address:
        async with connected(*address) as client:
            await client.send("/wait", method="POST")
            await until(lambda: "waiting" in events)
        await until(lambda: "disconnected" in events)
        async with connected(*address) as client:  # in the middle of a large answer, by RST
            await client.send(f"/stream?n={64 << 20}")
            await client.receive_head()
            client.writer.transport.abort()
        async with connected(*address) as client:
            assert (await client.ask("/about")).json()["loop"] == place.loop_package()


async def check_keep_alive_runs_out() -> None:
    async with _serving(timeout_keep_alive=1) as address, connected(*address) as client:
        assert (await client.ask("/bytes?n=5")).status == 200
        assert await client.at_end()


async def check_connection_close_and_bad_requests() -> None:
    async with _serving() as address:
        async with connected(*address) as client:
            answer = await client.ask("/bytes?n=5", headers="connection: close\r\n")
            assert answer.body == body(5)
            assert await client.at_end()
        async with connected(*address) as client:
            client.writer.write(b"no HTTP at all\r\n\r\n")
            assert (await client.receive()).status == 400
            assert await client.at_end()
        async with connected(*address) as client:
            assert (await client.ask("/fail")).status == 500


async def check_expect_100_continue() -> None:
    async with _serving() as address, connected(*address) as client:
        headers = "content-length: 5\r\nexpect: 100-continue\r\n"
        await client.send("/digest", method="POST", headers=headers)
        assert (await soon(client.receive_head()))[0] == 100
        client.writer.write(b"12345")
        assert (await client.receive()).json()["length"] == 5


async def check_graceful_shutdown_finishes_requests() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "go")
        async with _serving() as address:
            client = await _client(address)
            await client.send(f"/slow?until={file}")
            _, headers = await client.receive_head()
            assert await client.reader.readexactly(4) == b"half"
            asyncio.get_running_loop().call_later(0.3, file.touch)
        assert await client.reader.readexactly(4) == b"half"
        assert await client.at_end()
        client.writer.close()
    assert events[-1] == "lifespan.shutdown"


async def _client(address: Tuple[str, int]) -> Client:
    return Client(*await asyncio.open_connection(*address))


async def check_tls() -> None:
    with tempfile.TemporaryDirectory() as folder:
        chain, key, _ = place.write_certificate(folder)
        context = place.client_context()
        async with _serving(ssl_certfile=chain, ssl_keyfile=key) as address:
            async with connected(*address, ssl=context, server_hostname="localhost") as client:
                for size in (0, 100_000, 4 << 20):
                    assert (await client.ask(f"/bytes?n={size}")).body == body(size)
                    answer = await client.ask("/digest", body(size), method="POST")
                    assert answer.json()["length"] == size
            async with connected(*address) as client:  # plain HTTP to a TLS port
                await client.send("/about")
                assert await client.at_end()


async def check_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        async with _serving(listener), connected(path) as client:
            assert (await client.ask(f"/bytes?n={1 << 20}")).body == body(1 << 20)


async def _websocket(ws: str, *more_sizes: int) -> None:
    async with _serving(ws=ws) as (host, port):
        url = f"ws://{host}:{port}/ws"
        async with connect(url, max_size=None) as socket_:
            for size in (1, 125, 126, 70_000, 1 << 20, *more_sizes):
                await socket_.send(body(size))
                assert await soon(socket_.recv()) == body(size)
            await socket_.send("ελληνικά")
            assert await soon(socket_.recv()) == "ελληνικά"
            await socket_.send(["in ", "three ", "fragments"])
            assert await soon(socket_.recv()) == "in three fragments"
            await soon(await socket_.ping())
        await until(lambda: "websocket closed 1000" in events)
        async with connect(url) as socket_:
            await socket_.send("close 4321")
            with contextlib.suppress(websockets.ConnectionClosed):
                await soon(socket_.recv())
            assert (socket_.close_code, socket_.close_reason) == (4321, "asked for")
        async with connect(url) as socket_:
            socket_.transport.abort()
        await until(lambda: "websocket closed 1006" in events or "websocket closed 1005" in events)


async def check_websocket_websockets() -> None:
    await _websocket("websockets", 0)


async def check_websocket_wsproto() -> None:
    await _websocket("wsproto", 0)


if VERSION >= (0, 35):

    async def check_websocket_sansio() -> None:
        await _websocket("websockets-sansio")


async def check_websockets_at_shutdown() -> None:
    """Whoever is connected when the server goes is told so by 1012."""
    async with _serving(ws="websockets") as (host, port):
        sockets = [await connect(f"ws://{host}:{port}/ws") for _ in range(10)]
    for socket_ in sockets:
        await soon(socket_.wait_closed())
        assert socket_.close_code == 1012


async def check_server_in_a_thread() -> None:
    """Server.run() in another thread, as test suites do it."""
    settings: Dict[str, Any] = {"loop": f"{place.loop_package()}:new_event_loop"}
    if VERSION < (0, 36):
        getattr(importlib.import_module(place.loop_package()), "install", int)()
        settings = {"loop": "none"}
    config = uvicorn.Config(application, log_level="critical", **settings)
    server, listener = uvicorn.Server(config), _listener()
    running = asyncio.get_running_loop().run_in_executor(None, server.run, [listener])
    await until(lambda: server.started or running.done())
    async with connected(*listener.getsockname()) as client:
        assert (await client.ask("/about")).json()["loop"] == place.loop_package()
        assert (await client.ask(f"/bytes?n={1 << 20}")).body == body(1 << 20)
    server.should_exit = True
    await soon(running)
    listener.close()


# Processes, as an operator starts them.


def _command() -> List[str]:
    """How the command line is told which loop to run on."""
    if place.loop_package() == "asyncio":
        return place.python("-m", "uvicorn", "--loop", "asyncio")
    if VERSION >= (0, 36):
        return place.python("-m", "uvicorn", "--loop", "oxloop:new_event_loop")
    return python_m("uvicorn", "--loop", "none")


SERVED = ["tests.downstream.application:application", "--port={port}"]


async def check_command_line_sigterm() -> None:
    await serve_and_end([*_command(), *SERVED], signal.SIGTERM)


async def check_command_line_sigint() -> None:
    await serve_and_end([*_command(), *SERVED], signal.SIGINT)


async def check_command_line_workers() -> None:
    await serve_and_end([*_command(), *SERVED, "--workers=2"], signal.SIGTERM, workers=2)


async def check_started_by_python_m() -> None:
    """The loop is left to the policy, which `python -m oxloop` has set."""
    command = python_m("uvicorn", "--loop", "none", *SERVED)
    await serve_and_end(command, signal.SIGTERM)


async def check_run() -> None:
    """uvicorn.run() in a program."""
    loop = f'"{place.loop_package()}:new_event_loop"' if VERSION >= (0, 36) else '"none"'
    program = (
        f"import {place.loop_package()}, uvicorn; "
        f"getattr({place.loop_package()}, 'install', int)(); "
        f"uvicorn.run('tests.downstream.application:application', port={{port}}, loop={loop})"
    )
    await serve_and_end(place.python("-c", program), signal.SIGTERM)
