"""hypercorn: HTTP/1.1 and HTTP/2, WebSockets over both, TLS, Unix sockets, and real processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import tempfile
from typing import Any, AsyncIterator

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config
from websockets.asyncio.client import connect

from . import place
from .application import application, events
from .http_client import connected
from .place import body, soon, until
from .processes import python_m, serve_and_end


@contextlib.asynccontextmanager
async def serving(tls: bool = False, unix: str = "", **settings: Any) -> AsyncIterator[Any]:
    """A server in this loop; yields its address."""
    events.clear()
    config = Config()
    config.loglevel = "CRITICAL"
    config.errorlog = None
    for name, value in settings.items():
        setattr(config, name, value)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if unix:
            config.bind = [f"unix:{unix}"]
            address: Any = unix
        else:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            address = listener.getsockname()
            config.bind = [f"fd://{os.dup(listener.fileno())}"]
        if tls:
            config.certfile, config.keyfile, _ = place.write_certificate(folder)
        ending = asyncio.Event()
        running = asyncio.ensure_future(
            serve(application, config, shutdown_trigger=ending.wait)  # type: ignore[arg-type]
        )
        await until(lambda: events or running.done(), "the start of the server")
        try:
            yield address
        finally:
            ending.set()
            await soon(running)


async def check_bodies() -> None:
    async with serving() as address, connected(*address) as client:
        for size in (0, 1, 1000, 65536, 300_000, 2 << 20):
            answer = await client.ask(f"/bytes?n={size}")
            assert (answer.status, answer.body) == (200, body(size)), size
            answer = await client.ask("/digest", body(size), method="POST")
            digest = hashlib.sha256(body(size)).hexdigest()
            assert answer.json() == {"length": size, "sha256": digest}, size


async def check_pipelining() -> None:
    async with serving() as address, connected(*address) as client:
        sizes = [size * 37 for size in range(50)]
        sending = asyncio.gather(*[client.send(f"/bytes?n={size}") for size in sizes])
        for size in sizes:
            assert (await client.receive()).body == body(size)
        await sending


async def check_streaming() -> None:
    pieces = [body(size) for size in (1, 10, 100_000, 1 << 20, 7)]
    async with serving() as address, connected(*address) as client:
        sending = asyncio.ensure_future(client.send_chunks("/echo", pieces))
        answer = await client.receive()
        await sending
        assert answer.body == b"".join(pieces)


async def check_backpressure() -> None:
    async with serving() as address, connected(*address, limit=1024) as client:
        await client.send(f"/stream?n={32 << 20}")
        _, headers = await client.receive_head()
        seen = -1
        while seen != len(events):
            seen = len(events)
            await asyncio.sleep(0.1)
        assert seen < 256, "the server has buffered it all"
        assert len(await client.receive_body(headers)) == 32 << 20


async def check_client_goes_away() -> None:
    async with serving() as address:
        async with connected(*address) as client:
            await client.send("/wait", b"", method="POST", headers="content-length: 5\r\n")
            await until(lambda: "waiting" in events)
        await until(lambda: "disconnected" in events or "cancelled" in events)
        async with connected(*address) as client:
            await client.send(f"/stream?n={32 << 20}")
            await client.receive_head()
            client.writer.transport.abort()
        async with connected(*address) as client:
            assert (await client.ask("/about")).json()["loop"] == place.loop_package()


async def check_keep_alive_runs_out() -> None:
    async with serving(keep_alive_timeout=0.3) as address, connected(*address) as client:
        assert (await client.ask("/bytes?n=5")).status == 200
        assert await client.at_end()


async def check_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        async with serving(unix=path), connected(path) as client:
            assert (await client.ask(f"/bytes?n={1 << 20}")).body == body(1 << 20)


async def check_tls() -> None:
    async with serving(tls=True) as address:
        context = place.client_context()
        async with connected(*address, ssl=context, server_hostname="localhost") as client:
            for size in (0, 100_000, 2 << 20):
                assert (await client.ask(f"/bytes?n={size}")).body == body(size)
                answer = await client.ask("/digest", body(size), method="POST")
                assert answer.json()["length"] == size


async def check_http2() -> None:
    """By httpx: many streams in one connection, large bodies, a stream that is given up."""
    async with serving(tls=True) as (host, port):
        context = place.client_context()
        url = f"https://localhost:{port}"
        async with httpx.AsyncClient(http2=True, verify=context, base_url=url) as client:
            about = await client.get("/about")
            assert about.http_version == "HTTP/2"
            sizes = [0, 1, 1000, 100_000, 1 << 20] * 6
            answers = await asyncio.gather(*[client.get(f"/bytes?n={size}") for size in sizes])
            for size, answer in zip(sizes, answers):
                assert answer.content == body(size)
            posts = [client.post("/digest", content=body(size)) for size in sizes]
            for size, answer in zip(sizes, await asyncio.gather(*posts)):
                assert answer.json()["length"] == size
            async with client.stream("GET", f"/stream?n={16 << 20}") as answer:
                async for _ in answer.aiter_bytes():
                    break
            assert (await client.get("/bytes?n=7")).content == body(7)


async def check_websocket() -> None:
    async with serving() as (host, port):
        url = f"ws://{host}:{port}/ws"
        async with connect(url, max_size=None) as socket_:
            for size in (0, 1, 126, 70_000, 1 << 20):
                await socket_.send(body(size))
                assert await soon(socket_.recv()) == body(size)
            await soon(await socket_.ping())
        await until(lambda: any(event.startswith("websocket closed") for event in events))


async def check_graceful_shutdown() -> None:
    """A request that is being answered is answered to its end."""
    with tempfile.TemporaryDirectory() as folder:
        go = os.path.join(folder, "go")
        async with contextlib.AsyncExitStack() as stack:
            async with serving(graceful_timeout=5) as address:
                client = await stack.enter_async_context(connected(*address))
                await client.send(f"/slow?until={go}")
                _, headers = await client.receive_head()
                assert await client.reader.readexactly(4) == b"half"
                with open(go, "wb"):
                    pass
            assert await client.reader.readexactly(4) == b"half"
    assert events[-1] == "lifespan.shutdown"


SERVED = ["--bind=127.0.0.1:{port}", "--error-logfile=-"]
NAME = "tests.downstream.application:application"


async def check_command_line_sigterm() -> None:
    """One process: without workers the loop is that of `python -m oxloop`."""
    await serve_and_end(python_m("hypercorn", *SERVED, "--workers=0", NAME), signal.SIGTERM)


async def check_command_line_sigint() -> None:
    await serve_and_end(python_m("hypercorn", *SERVED, "--workers=0", NAME), signal.SIGINT)


async def check_command_line_workers() -> None:
    """Workers are new processes, which know of oxloop by the application's `oxloop.install()`.

    Once the first worker has ended hypercorn kills the others.
    """
    name = f"tests.downstream.{place.loop_package()}_application:application"
    command = place.python("-m", "hypercorn", *SERVED, "--workers=2", name)
    await serve_and_end(command, signal.SIGTERM, workers=2, all_shut_down=False)


async def check_serve() -> None:
    """hypercorn.asyncio.serve() in a program."""
    program = (
        f"import {place.loop_package()} as loops; from hypercorn.asyncio import serve; "
        "from hypercorn.config import Config; "
        "from tests.downstream.application import application; "
        "config = Config(); config.bind = ['127.0.0.1:{port}']; "
        "loops.run(serve(application, config))"
    )
    await serve_and_end(place.python("-c", program), signal.SIGTERM)
