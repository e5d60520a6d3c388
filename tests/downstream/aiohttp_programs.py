"""aiohttp in programs of their own: web.run_app(), signals, unittest's classes, mocks."""

from __future__ import annotations

import asyncio
import signal
from unittest import mock

from . import place
from .place import soon
from .processes import serve_and_end

PROGRAM = """
import asyncio, json, os
from aiohttp import web
import {loops} as loops
from tests.downstream.application import _write_event

async def about(request):
    kind = type(asyncio.get_running_loop())
    loop = kind.__module__.partition(".")[0]
    return web.json_response(dict(loop=loop, pid=os.getpid(), **{{"class": kind.__name__}}))

async def startup(application): _write_event("lifespan.startup")
async def cleanup(application): _write_event("lifespan.shutdown")

application = web.Application()
application.add_routes([web.get("/about", about)])
application.on_startup.append(startup)
application.on_cleanup.append(cleanup)
web.run_app(application, host="127.0.0.1", port={port}, loop=loops.new_event_loop())
"""


async def check_run_app_sigterm() -> None:
    program = PROGRAM.replace("{loops}", place.loop_package())
    await serve_and_end(place.python("-c", program), signal.SIGTERM)


async def check_run_app_sigint() -> None:
    program = PROGRAM.replace("{loops}", place.loop_package())
    await serve_and_end(place.python("-c", program), signal.SIGINT)


TWICE = """
import asyncio, signal, sys
from aiohttp import web
import {loops} as loops

def run():
    async def stop(application):
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
    application = web.Application()
    application.on_startup.append(stop)
    web.run_app(application, host="127.0.0.1", port=0, print=None, loop=loops.new_event_loop())

for _ in range(3):
    run()
    assert signal.set_wakeup_fd(-1) == -1, "the wake-up descriptor of a loop that is closed"
loop = loops.new_event_loop()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
"""


async def check_run_app_again_and_again() -> None:
    """What it does to signals is undone when it returns."""
    program = TWICE.replace("{loops}", place.loop_package())
    process = await asyncio.create_subprocess_exec(
        *place.python("-W", "error", "-c", program), env=place.environment()
    )
    assert await soon(process.wait()) == 0


UNITTEST = """
import {loops} as loops
getattr(loops, "install", int)()
import asyncio, unittest
from aiohttp import web
from aiohttp.test_utils import AioHTTPTestCase

class TestIt(AioHTTPTestCase):
    async def get_application(self):
        async def about(request):
            return web.Response(text=type(asyncio.get_running_loop()).__module__)
        application = web.Application()
        application.add_routes([web.get("/", about)])
        return application

    async def test_loop(self):
        async with self.client.get("/") as answer:
            assert (await answer.text()).partition(".")[0] == "{loops}"

class TestIsolated(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        self.addAsyncCleanup(self.server.wait_closed)
        self.addCleanup(self.server.close)

    async def test_connect(self):
        reader, writer = await asyncio.open_connection(*self.server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

unittest.main()
"""


async def check_unittest_classes() -> None:
    program = UNITTEST.replace("{loops}", place.loop_package())
    process = await asyncio.create_subprocess_exec(
        *place.python("-W", "error", "-c", program),
        env=place.environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await soon(process.communicate())
    assert b"Ran 2 tests" in output, output.decode()
    assert output.rstrip().endswith(b"OK"), output.decode()


async def check_mocked_methods() -> None:
    """Mocks of a loop's coroutine methods can be awaited, as aiohttp's own tests do."""
    loop = asyncio.get_running_loop()
    for name in ("create_server", "create_connection", "create_unix_server", "getaddrinfo"):
        with mock.patch.object(loop, name, autospec=True, return_value=name):
            assert await getattr(loop, name)(asyncio.Protocol, "localhost") == name
