"""A thousand lifecycles of each thing leave no descriptor, task, object or memory behind (issue 2)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import Any, Awaitable, Callable

import pytest
from support.backends import PY312, Backend
from support.census import assert_flat
from support.recorders import BufferedRecorder, Recorder
from support.reports import Reports
from support.running import Run, turns
from support.signals import USER
from support.sockets import LOCALHOST, fill, listener, refusing_address, reset, tcp_pair


def nothing(*args: Any) -> None:
    """A callback that does nothing."""


async def closed(transport: Any, protocol: Any) -> None:
    """Close a transport and wait until it is gone."""
    transport.close()
    await protocol.lost()


def test_callbacks(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            loop.call_soon(nothing, object())
            loop.call_soon_threadsafe(nothing, object())
            loop.call_soon(nothing).cancel()
            await turns(1)

        await assert_flat(once)

    run(main)


def test_timers(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            loop.call_later(0, nothing, object())
            loop.call_later(-1, nothing, object())
            loop.call_later(3600, nothing, object()).cancel()
            await turns(2)

        await assert_flat(once)

    run(main)


def test_timeouts(run: Run) -> None:
    async def main() -> None:
        async def once() -> None:
            await asyncio.wait_for(asyncio.sleep(0, object()), 3600)

        await assert_flat(once)

    run(main)


def test_tasks_and_futures(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            future = loop.create_future()
            task = loop.create_task(asyncio.wait_for(future, 10))
            await turns(1)
            future.set_result(object())
            await task
            cancelled = loop.create_task(asyncio.sleep(3600))
            await turns(1)
            cancelled.cancel()
            await asyncio.wait([cancelled])

        await assert_flat(once)

    run(main)


def test_failing_callbacks(run: Run, reports: Reports) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def fail() -> None:
            raise ArithmeticError

        async def once() -> None:
            loop.call_soon(fail)
            await turns(1)
            reports.take()

        await assert_flat(once)

    run(main)


def test_functions_in_the_executor(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            await loop.run_in_executor(None, nothing, object())

        await assert_flat(once)

    run(main)


def test_name_lookups(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
            await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

        await assert_flat(once, 300)

    run(main)


def test_watched_descriptors(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            left, right = socket.socketpair()
            with left, right:
                loop.add_reader(left, nothing, object())
                loop.add_writer(left, nothing, object())
                loop.add_reader(left, nothing, object())
                right.send(b"x")
                await turns(1)
                loop.remove_reader(left)
                loop.remove_writer(left)

        await assert_flat(once)

    run(main)


def test_signal_handlers(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            future = loop.create_future()
            loop.add_signal_handler(USER, future.set_result, None)
            signal.raise_signal(USER)
            await future
            loop.remove_signal_handler(USER)

        await assert_flat(once)

    run(main)


def test_sock_reads_and_writes(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        with left, right:

            async def once() -> None:
                reading = asyncio.ensure_future(loop.sock_recv(right, 1000))
                await turns(1)
                await loop.sock_sendall(left, b"x" * 1000)
                await reading
                buffer = bytearray(10)
                await loop.sock_sendall(left, b"y")
                await loop.sock_recv_into(right, buffer)

            await assert_flat(once)

    run(main)


def test_cancelled_sock_reads_and_writes(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        with left, right:
            fill(left)

            async def once() -> None:
                tasks = [
                    asyncio.ensure_future(loop.sock_recv(left, 1000)),
                    asyncio.ensure_future(loop.sock_sendall(left, b"x" * 1000)),
                ]
                await turns(1)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

            await assert_flat(once)

    run(main)


def test_sock_connects_and_accepts(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:

            async def once() -> None:
                with socket.socket() as sock:
                    sock.setblocking(False)
                    accepting = asyncio.ensure_future(loop.sock_accept(listening))
                    await loop.sock_connect(sock, listening.getsockname())
                    connection, _ = await accepting
                    connection.close()

            await assert_flat(once)

    run(main)


def test_connects_that_are_refused(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as address:

            async def once() -> None:
                with contextlib.suppress(ConnectionRefusedError):
                    await loop.create_connection(Recorder, *address)

            await assert_flat(once)

    run(main)


def test_happy_eyeballs_that_fail(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with refusing_address() as one, refusing_address() as two:

            async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (one, two)
                ]

            loop.getaddrinfo = getaddrinfo

            async def once() -> None:
                with contextlib.suppress(OSError):
                    await loop.create_connection(Recorder, "name", 80, happy_eyeballs_delay=0.001)

            await assert_flat(once)

    run(main)


def test_connects_that_are_cancelled(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:

            async def once() -> None:
                task = asyncio.ensure_future(
                    loop.create_connection(Recorder, *listening.getsockname())
                )
                await turns(1)
                task.cancel()
                await asyncio.wait([task])
                listening.accept()[0].close()

            await assert_flat(once)

    run(main)


def a_connection(make: Callable[[], Any]) -> Callable[[], Awaitable[None]]:
    """Connect, exchange data, close."""

    async def once() -> None:
        left, right = tcp_pair()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(make, sock=left)
        right.send(b"x" * 1000)
        transport.write(b"y" * 1000)
        await protocol.received(1000)
        right.close()
        await protocol.lost()
        transport.close()

    return once


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
def test_connections(run: Run, make: Callable[[], Any]) -> None:
    async def main() -> None:
        await assert_flat(a_connection(make))

    run(main)


def test_connections_with_much_to_write(run: Run) -> None:
    """Closed by an abort while the write buffer is full."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            left, right = tcp_pair()
            left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            transport, protocol = await loop.create_connection(Recorder, sock=left)
            transport.write(bytes(500_000))
            transport.write(bytearray(10_000))
            transport.abort()
            await protocol.lost()
            right.close()

        await assert_flat(once, 300)

    run(main)


def test_connections_that_are_reset(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            left, right = tcp_pair()
            transport, protocol = await loop.create_connection(Recorder, sock=left)
            transport.write(b"x")
            reset(right)
            await protocol.lost()

        await assert_flat(once)

    run(main)


def test_protocols_that_fail(run: Run, reports: Reports) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ArithmeticError

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            left, right = tcp_pair()
            _, protocol = await loop.create_connection(Failing, sock=left)
            right.send(b"x")
            await protocol.lost()
            right.close()
            reports.take()

        await assert_flat(once)

    run(main)


def test_servers(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            server = await loop.create_server(Recorder, LOCALHOST, 0)
            server.close()
            await server.wait_closed()

        await assert_flat(once)

    run(main)


def test_the_connections_of_a_server(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        class Echo(Recorder):
            def data_received(self, data: bytes) -> None:
                self.transport.write(data)

        server = await loop.create_server(Echo, LOCALHOST, 0)
        address = server.sockets[0].getsockname()

        async def once() -> None:
            transport, protocol = await loop.create_connection(Recorder, *address)
            transport.write(b"x" * 1000)
            await protocol.received(1000)
            await closed(transport, protocol)
            await turns(3)

        await assert_flat(once)
        server.close()
        await server.wait_closed()

    run(main)


def test_streams(run: Run) -> None:
    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, LOCALHOST, 0)

        async def once() -> None:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"line\n")
            await reader.readline()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            await turns(3)

        await assert_flat(once)
        server.close()
        await server.wait_closed()

    run(main)


def test_loops(backend: Backend, run: Run) -> None:
    """Each loop is made, run and closed in another thread, as none can run inside of another."""

    def use_a_loop() -> None:
        loop = backend.new_loop()
        loop.call_later(3600, nothing)
        loop.call_soon(nothing)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def once() -> None:
            await loop.run_in_executor(None, use_a_loop)

        await assert_flat(once)

    run(main)


@pytest.mark.skipif(not PY312, reason="eager tasks are new in Python 3.12")
def test_eager_tasks(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)

        async def once() -> None:
            await loop.create_task(asyncio.sleep(0, object()))

        await assert_flat(once)

    run(main)
