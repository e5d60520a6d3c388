"""An HTTP server: aiohttp, unchanged, on oxloop.

    pip install aiohttp
    python examples/http_server.py --port 8080
    curl http://127.0.0.1:8080/you

Port 0 takes a free one. `--once` ends after the first answer, else Ctrl-C does.
"""

from __future__ import annotations

import argparse
import asyncio

from aiohttp import web

import oxloop


async def main(port: int, once: bool) -> None:
    """Serve until the first answer is given, or for ever."""
    answered = asyncio.Event()

    async def greet(request: web.Request) -> web.Response:
        answered.set()
        name = request.match_info.get("name", "world")
        return web.json_response({"hello": name})

    app = web.Application()
    app.add_routes([web.get("/", greet), web.get("/{name}", greet)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print("listening on {}:{}".format(*runner.addresses[0]), flush=True)
        if once:
            await answered.wait()
        else:
            await asyncio.Event().wait()
    finally:
        # Waits for the answers that are under way.
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An HTTP server by aiohttp.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--once", action="store_true", help="end after the first answer")
    arguments = parser.parse_args()
    try:
        oxloop.run(main(arguments.port, arguments.once))
    except KeyboardInterrupt:
        print("stopped")
