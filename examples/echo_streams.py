"""An echo server and its client by asyncio's streams, both on one loop.

python examples/echo_streams.py
"""

from __future__ import annotations

import asyncio

import oxloop


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every line back in capitals until the client has sent its last."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(port: int, lines: list[str]) -> list[str]:
    """Send the lines, say that there are no more, and return the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(f"{line}\n".encode() for line in lines)
    writer.write_eof()
    answers = (await reader.read()).decode().splitlines()
    writer.close()
    await writer.wait_closed()
    return answers


async def main() -> None:
    """Serve on a free port, ask twice at the same time, and print the answers."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for answers in await asyncio.gather(ask(port, ["one", "two"]), ask(port, ["three"])):
            print(*answers)


if __name__ == "__main__":
    oxloop.run(main())
