"""Whether an installed oxloop works at all: needs nothing but itself, and is no test module of pytest's.

usage: python tests/smoke.py
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import subprocess
import sys
from typing import Any

import oxloop
from oxloop import _native


async def echo_over_tcp() -> None:
    """Talk to a server of our own, with streams."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello\n")
        assert await reader.read() == b"hello\n"
        writer.close()
        await writer.wait_closed()


def main() -> None:
    """Try each kind of loop that there is, and the command line."""
    loops: list[Any] = [oxloop.SelectorEventLoop]
    if _native.proactor_unavailable() is None:
        loops.append(oxloop.ProactorEventLoop)
    for make in loops:
        loop = make()
        loop.run_until_complete(asyncio.wait_for(echo_over_tcp(), 30))
        loop.close()
    oxloop.run(echo_over_tcp())
    version = importlib.metadata.version("oxloop")
    assert oxloop.__version__ == version
    info = subprocess.run(
        [sys.executable, "-m", "oxloop", "info"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert info.stdout.startswith(f"oxloop {version}\n"), info.stdout
    names = importlib.metadata.metadata("oxloop")
    assert names["License-Expression"] == "MIT OR Apache-2.0", names.items()
    assert len(names.get_all("License-File") or ()) == 2, names.items()
    print(f"oxloop {version} works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
