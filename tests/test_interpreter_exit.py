"""What a program leaves behind when its interpreter ends: loops that are not closed, with everything that they can have,
and loops that other threads still run. asyncio's programs end with 0 then, whatever they print.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from support.backends import Backend
from support.children import environment_of, run_python

HEAD = """
import asyncio, os, socket, subprocess, sys, threading, time

kept = []


async def serve(reader, writer):
    writer.write(b"welcome")
    while await reader.read(100):
        pass


async def connected():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.readexactly(7) == b"welcome"
    return server, reader, writer
"""

#: A coroutine `main` each.
LEFT = {
    "streams that are read": """
async def main():
    server, reader, writer = await connected()
    reading = asyncio.ensure_future(reader.read())
    await asyncio.sleep(0)
    return server, writer, reading
""",
    "a connection with much to send": """
async def main():
    left, right = socket.socketpair()
    transport, protocol = await loop.create_connection(asyncio.Protocol, sock=left)
    transport.write(bytes(10_000_000))
    return transport, right
""",
    "connections under way": """
async def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listener.getsockname()
    opening = [
        asyncio.ensure_future(loop.create_connection(asyncio.Protocol, *address)) for _ in range(5)
    ]
    await asyncio.sleep(0)
    return listener, opening
""",
    "datagrams": """
async def main():
    return await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
""",
    "a child": """
async def main():
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "input()", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return child, asyncio.ensure_future(child.communicate())
""",
    "pipes": """
async def main():
    reading, writing = os.pipe()
    return [
        await loop.connect_read_pipe(asyncio.Protocol, open(reading, "rb")),
        await loop.connect_write_pipe(asyncio.BaseProtocol, open(writing, "wb")),
    ]
""",
    "sockets and watches": """
async def main():
    left, right = socket.socketpair()
    left.setblocking(False)
    loop.add_reader(right, print, loop)
    receiving = asyncio.ensure_future(loop.sock_recv(left, 10))
    await asyncio.sleep(0)
    return left, right, receiving
""",
    "timers and callbacks": """
async def main():
    loop.call_later(3600, print, loop)
    loop.call_soon(lambda: loop.call_soon(loop.is_running))
    return asyncio.ensure_future(asyncio.sleep(3600))
""",
    "tasks that wait for each other": """
async def main():
    queue, event, lock = asyncio.Queue(), asyncio.Event(), asyncio.Lock()
    await lock.acquire()
    waiting = [asyncio.ensure_future(each) for each in (queue.get(), event.wait(), lock.acquire())]
    await asyncio.sleep(0)
    return waiting
""",
    "an asynchronous generator": """
async def numbers():
    try:
        yield 1
    finally:
        await asyncio.sleep(3600)


async def main():
    generator = numbers()
    await generator.__anext__()
    return generator
""",
    "coroutines in a cycle": """
async def main():
    left, right = socket.socketpair()
    left.setblocking(False)
    cycle = [loop.sock_recv(left, 1), loop.sock_recv(left, 1), left, right]
    cycle[0].send(None)
    cycle.append(cycle)
    return cycle
""",
    "a call in an executor": """
async def main():
    return loop.run_in_executor(None, time.sleep, 0.01)
""",
}

#: What happens to the names of it.
ENDS = {
    "kept": "",
    "dropped": "del loop\nkept.clear()\n",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("what", LEFT)
def test_what_is_left(backend: Backend, what: str, end: str) -> None:
    if what == "a child" and not backend.has_pipes:
        pytest.skip("there are no child processes on this loop")
    if what == "pipes" and sys.platform == "win32":
        pytest.skip("os.pipe() makes no pipes that a loop can have there")
    child = run_python(
        f"{HEAD}{backend.source}\nloop = new_loop()\nasyncio.set_event_loop(loop)\n"
        f"{LEFT[what]}\nkept.append(loop.run_until_complete(main()))\n{ENDS[end]}",
        options=["-W", "ignore"],
    )
    assert child.returncode == 0, child.stderr
    assert "panicked" not in child.stderr


#: What a thread's loop does until the process has ended.
BUSY = {
    "sleeps": "await asyncio.sleep(3600)",
    "makes turns": "await asyncio.sleep(0)",
    "computes": "sum(range(1000))",
    "asks the loop": "loop.call_later(0, loop.time).cancel(); await connected()",
}


@pytest.mark.parametrize("what", BUSY)
def test_loops_of_daemon_threads(backend: Backend, what: str) -> None:
    """Before Python 3.14 the interpreter ends such threads in the middle of what they do (pthread_exit(3))."""
    source = f"""{HEAD}{backend.source}
ready = threading.Semaphore(0)


def run():
    loop = new_loop()
    asyncio.set_event_loop(loop)

    async def main():
        kept.append(await connected())
        ready.release()
        while True:
            {BUSY[what]}

    loop.run_until_complete(main())


for _ in range(4):
    threading.Thread(target=run, daemon=True).start()
for _ in range(4):
    ready.acquire()
"""
    children = [start(source) for _ in range(2)]
    ends = [(child.communicate(timeout=50)[1], child.returncode) for child in children]
    assert [code for _, code in ends] == [0, 0], ends


def start(source: str) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", source],
        env=environment_of(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
