"""An echo server by asyncio's Protocol, which is the cheapest way to serve.

    python examples/echo_server.py --port 8888

Port 0 takes a free one. `--once` ends after the first connection, else Ctrl-C does.
"""

from __future__ import annotations

import argparse
import asyncio

import oxloop


class Echo(asyncio.Protocol):
    """Sends back what it gets; `lost` is told when the connection is gone."""

    transport: asyncio.Transport

    def __init__(self, lost: asyncio.Event) -> None:
        self.lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def main(port: int, once: bool) -> None:
    """Serve until the first connection is lost, or for ever."""
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(lost), "127.0.0.1", port)
    async with server:
        print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
        if once:
            await lost.wait()
        else:
            await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo server by Protocol.")
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--once", action="store_true", help="end after the first connection")
    arguments = parser.parse_args()
    try:
        oxloop.run(main(arguments.port, arguments.once))
    except KeyboardInterrupt:
        print("stopped")
