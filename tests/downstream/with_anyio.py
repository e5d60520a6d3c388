"""anyio's asyncio backend: TCP, TLS, Unix sockets, UDP, processes, threads, signals, files."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from typing import List

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
from anyio.streams.tls import TLSListener, TLSStream

from . import place
from .place import body, soon

SIZES = (1, 1000, 65_536, 1 << 20)


async def _echo(stream: anyio.abc.ByteStream) -> None:
    async with stream:
        try:
            async for piece in stream:
                await stream.send(piece)
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass


async def _exchange(stream: anyio.abc.ByteStream) -> None:
    for size in SIZES:
        async with anyio.create_task_group() as group:
            group.start_soon(stream.send, body(size))
            got = b""
            while len(got) < size:
                got += await stream.receive()
            assert got == body(size)


async def check_tcp() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, _echo)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with await anyio.connect_tcp("localhost", port) as stream:
                await _exchange(stream)
                await stream.send_eof()
                try:
                    await stream.receive()
                except anyio.EndOfStream:
                    pass
                else:
                    raise AssertionError("no end of file")
            group.cancel_scope.cancel()


async def check_tls() -> None:
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = plain.extra(anyio.abc.SocketAttribute.local_port)
    listener = TLSListener(plain, place.server_context(), standard_compatible=False)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _echo)
        stream: TLSStream = await anyio.connect_tcp(
            "localhost", port, ssl_context=place.client_context(), tls_standard_compatible=False
        )
        async with stream:
            await _exchange(stream)
        group.cancel_scope.cancel()


async def check_unix() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        async with await anyio.create_unix_listener(path) as listener:
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, _echo)
                async with await anyio.connect_unix(path) as stream:
                    await _exchange(stream)
                group.cancel_scope.cancel()


if hasattr(anyio.abc.UNIXSocketStream, "from_socket"):

    async def check_descriptors_by_unix() -> None:
        first, second = socket.socketpair()
        with tempfile.TemporaryFile() as file:
            file.write(b"content")
            file.flush()
            one = await anyio.abc.UNIXSocketStream.from_socket(first)
            other = await anyio.abc.UNIXSocketStream.from_socket(second)
            async with one, other:
                await one.send_fds(b"here", [file.fileno()])
                message, descriptors = await soon(other.receive_fds(10, 1))
                assert message == b"here"
                with os.fdopen(descriptors[0], "rb") as copy:
                    copy.seek(0)
                    assert copy.read() == b"content"


async def check_udp() -> None:
    async with await anyio.create_udp_socket(
        family=socket.AF_INET, local_host="127.0.0.1"
    ) as server:
        port = server.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.create_connected_udp_socket("127.0.0.1", port) as client:
            for number in range(200):
                await client.send(b"%d" % number)
                data, address = await soon(server.receive())
                await server.sendto(data * 2, *address)
                assert await soon(client.receive()) == b"%d" % number * 2


async def check_processes() -> None:
    program = "import sys; sys.stdout.write(sys.stdin.read()[::-1]); sys.exit(3)"
    done = await anyio.run_process([sys.executable, "-c", program], input=b"abc", check=False)
    assert (done.stdout, done.returncode) == (b"cba", 3)
    async with await anyio.open_process([sys.executable, "-c", "input()"]) as process:
        with anyio.move_on_after(0.1) as scope:
            await process.wait()
        assert scope.cancel_called
        process.terminate()
        assert await soon(process.wait()) == -signal.SIGTERM
    try:
        await anyio.run_process([sys.executable, "-c", "exit(1)"], check=True)
    except subprocess.CalledProcessError:
        pass
    else:
        raise AssertionError("it failed")


async def check_threads() -> None:
    def in_thread(number: int) -> int:
        anyio.from_thread.run(anyio.sleep, 0)
        return anyio.from_thread.run_sync(lambda: number * 2)

    results: List[int] = []

    async def one(number: int) -> None:
        results.append(await anyio.to_thread.run_sync(in_thread, number))

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(one, number)
    assert sorted(results) == [number * 2 for number in range(100)]


async def check_signals() -> None:
    with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        got = {await soon(signals.__anext__()) for _ in range(2)}
    assert got == {signal.SIGUSR1, signal.SIGUSR2}


async def check_cancel_scopes() -> None:
    """Cancellation that is level-triggered: whatever waits in the scope is cancelled, again and again."""
    caught = 0
    with anyio.move_on_after(0.05):
        try:
            await anyio.sleep_forever()
        finally:
            try:
                await anyio.sleep(5)
            except BaseException:
                caught += 1
                raise
    assert caught == 1
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(anyio.sleep_forever)
            await anyio.sleep(0)
            group.cancel_scope.cancel()


async def check_readiness() -> None:
    """wait_readable() and wait_writable(), that is add_reader() and add_writer()."""
    first, second = socket.socketpair()
    with first, second:
        first.setblocking(False)
        second.setblocking(False)
        await soon(anyio.wait_socket_writable(first))
        waiting = asyncio.ensure_future(anyio.wait_socket_readable(second))
        await asyncio.sleep(0)
        assert not waiting.done()
        first.send(b"x")
        await soon(waiting)


async def check_backend_options() -> None:
    """anyio.run() on the loop under test, as its users choose it."""
    options = {"loop_factory": place.loop_factory()}

    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    def run() -> str:
        return anyio.run(main, backend="asyncio", backend_options=options)

    assert await anyio.to_thread.run_sync(run) == place.loop_package()


async def check_blocking_portal() -> None:
    """A loop in a thread that others call into, as starlette's and httpx's test clients have it."""

    async def where() -> str:
        await anyio.sleep(0)
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    def use() -> List[str]:
        options = {"loop_factory": place.loop_factory()}
        with anyio.from_thread.start_blocking_portal("asyncio", options) as portal:
            futures = [portal.start_task_soon(where) for _ in range(200)]
            return [future.result() for future in futures]

    assert await anyio.to_thread.run_sync(use) == [place.loop_package()] * 200


PROJECT = """
import asyncio
import anyio
import pytest
import {loops} as loops

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio", dict(loop_factory=loops.new_event_loop)

@pytest.fixture(scope="module")
async def shared(anyio_backend):
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        yield asyncio.get_running_loop()
        group.cancel_scope.cancel()

async def test_loop(shared):
    assert asyncio.get_running_loop() is shared
    assert type(shared).__module__.partition(".")[0] == "{loops}"

@pytest.mark.parametrize("number", range(10))
async def test_server(shared, number):
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async def echo(stream):
            async with stream:
                await stream.send(await stream.receive())
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with await anyio.connect_tcp("localhost", port) as stream:
                await stream.send(b"%d" % number)
                assert await stream.receive() == b"%d" % number
            group.cancel_scope.cancel()
"""


async def check_pytest_plugin() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "test_project.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(PROJECT.replace("{loops}", place.loop_package()))
        process = await asyncio.create_subprocess_exec(
            *place.python("-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", path),
            cwd=folder,
            env=place.environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await soon(process.communicate())
    assert b"11 passed" in output, output.decode()
    assert process.returncode == 0
