"""Windows: the platform section of asyncio's chapter, with its limits lifted, on both loop classes.

Where asyncio's own loop raises NotImplementedError the test is skipped on it, which says so: that is a
limit that oxloop lifts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, AsyncIterator, Iterator, List, Tuple

import pytest
from support.backends import PY314, Backend
from support.children import environment_of
from support.platforms import WINDOWS
from support.recorders import Recorder, Recording
from support.reports import Reports
from support.running import NewLoop, Run, turns
from support.sockets import LOCALHOST, bound_udp, listener, tcp_pair
from support.threads import call_while_waiting

pytestmark = pytest.mark.skipif(not WINDOWS, reason="for Windows")

PIPE = subprocess.PIPE
MEGABYTE = bytes(range(256)) * 4096
COUNTER = itertools.count()

#: asyncio's SelectorEventLoop(SelectSelector()), and oxloop's over a selector that was given.
HAS_NO_PIPES = ("asyncio-selector", "select", "user")


@pytest.fixture
def needs_pipes(backend: Backend) -> None:
    """Skip the loops that wait in select(), which knows sockets only."""
    if backend.name in HAS_NO_PIPES:
        pytest.skip("select() takes sockets only")


def pipe(duplex: bool = True) -> Tuple[Any, Any]:
    """Both ends of an overlapped pipe, the reading one first.

    asyncio's transport for writing reads, too, to see that the other end is closed.
    """
    from asyncio import windows_utils

    ends = windows_utils.pipe(overlapped=(True, True), duplex=duplex)  # type: ignore[attr-defined]
    return tuple(windows_utils.PipeHandle(end) for end in ends)  # type: ignore[attr-defined, return-value]


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    """Two connected sockets, closed after the test."""
    left, right = tcp_pair()
    yield left, right
    left.close()
    right.close()


def pipe_name() -> str:
    """A name that no other pipe has."""
    return rf"\\.\pipe\oxloop-{os.getpid()}-{next(COUNTER)}"


def python(source: str) -> List[str]:
    """A command that runs `source`."""
    return [sys.executable, "-S", "-c", source]


class Datagrams(Recording, asyncio.DatagramProtocol):
    """Writes datagrams down."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: List[Tuple[bytes, Any]] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Keep it."""
        self.datagrams.append((data, addr))
        self.record("datagram")


# UDP


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_udp(run: Run, backend: Backend, family: socket.AddressFamily) -> None:
    """The chapter: "create_datagram_endpoint() (UDP) is not supported" by the proactor."""
    empty = [] if backend.name == "asyncio" and not PY314 else [b""]  # which it drops

    async def main() -> None:
        loop = asyncio.get_running_loop()
        host = LOCALHOST if family == socket.AF_INET else "::1"
        answering, asked = await loop.create_datagram_endpoint(Datagrams, local_addr=(host, 0))
        address = answering.get_extra_info("sockname")
        asking, answered = await loop.create_datagram_endpoint(Datagrams, remote_addr=address[:2])
        for data in (b"one", *empty, b"x" * 60_000):
            asking.sendto(data)
            await asked.until_event("datagram")
            received, peer = asked.datagrams[-1]
            assert (received, peer) == (data, asking.get_extra_info("sockname"))
            asked.events.clear()
            answering.sendto(data[::-1], peer)
            await answered.until_event("datagram")
            assert answered.datagrams[-1] == (data[::-1], address)
            answered.events.clear()
        for transport, protocol in ((asking, answered), (answering, asked)):
            transport.close()
            assert await protocol.lost() is None

    run(main)


def test_udp_of_many_senders(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            Datagrams, local_addr=(LOCALHOST, 0)
        )
        senders = [bound_udp() for _ in range(20)]
        for number, sender in enumerate(senders):
            await loop.sock_sendto(sender, b"%d" % number, transport.get_extra_info("sockname"))
        await protocol.until(lambda: len(protocol.datagrams) == len(senders))
        expected = {(b"%d" % number, it.getsockname()) for number, it in enumerate(senders)}
        assert set(protocol.datagrams) == expected
        for sender in senders:
            sender.close()
        transport.close()
        await protocol.lost()

    run(main)


# Watching sockets


def test_a_reader(loop: Any, pair: Tuple[Any, Any]) -> None:
    """The chapter: "add_reader() and add_writer() are not supported" by the proactor."""
    left, right = pair
    seen = []

    def readable() -> None:
        seen.append(left.recv(100))
        loop.stop()

    loop.add_reader(left, readable)
    for data in (b"once", b"again"):
        loop.call_soon(right.send, data)
        loop.run_forever()
    assert seen == [b"once", b"again"]
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False


def test_a_reader_is_level_triggered(loop: Any, pair: Tuple[Any, Any]) -> None:
    left, right = pair
    right.send(b"abc")
    seen = b""

    def readable() -> None:
        nonlocal seen
        seen += left.recv(1)
        if len(seen) == 3:
            loop.stop()

    loop.add_reader(left.fileno(), readable)
    loop.run_forever()
    assert seen == b"abc"
    loop.remove_reader(left.fileno())


def test_a_reader_of_a_peer_that_has_gone(loop: Any, pair: Tuple[Any, Any]) -> None:
    left, right = pair
    loop.add_reader(left, loop.stop)
    right.close()
    loop.run_forever()
    assert left.recv(1) == b""
    loop.remove_reader(left)


def test_a_reader_of_a_listener(loop: Any) -> None:
    with listener() as listening, socket.socket() as sock:
        loop.add_reader(listening, loop.stop)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(listening.getsockname())
        loop.run_forever()
        loop.remove_reader(listening)
        listening.accept()[0].close()


def test_a_writer(loop: Any, pair: Tuple[Any, Any]) -> None:
    left, right = pair
    calls = []

    def writable() -> None:
        calls.append(left.send(b"x"))
        if len(calls) == 3:
            loop.stop()

    loop.add_writer(left, writable)
    loop.run_forever()
    assert loop.remove_writer(left) is True
    assert right.recv(100) == b"xxx"


def test_a_writer_of_a_connection_that_is_made(loop: Any) -> None:
    with listener() as listening, socket.socket() as sock:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(listening.getsockname())
        loop.add_writer(sock, loop.stop)
        loop.run_forever()
        loop.remove_writer(sock)
        assert sock.getpeername() == listening.getsockname()
        listening.accept()[0].close()


def test_both_ways_at_once(loop: Any, pair: Tuple[Any, Any]) -> None:
    left, right = pair
    seen = []

    def note(what: str) -> None:
        seen.append(what)
        if {"reader", "writer"} <= set(seen):
            loop.stop()

    loop.add_reader(left, note, "reader")
    loop.add_writer(left, note, "writer")
    right.send(b"x")
    loop.run_forever()
    loop.remove_reader(left)
    seen.clear()
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    assert set(seen) == {"writer"}
    loop.remove_writer(left)


def test_what_is_no_socket_is_not_watched(loop: Any, backend: Backend, tmp_path: Path) -> None:
    """The chapter: they "only accept file descriptors of sockets"."""
    if backend.is_oracle or backend.name == "user":
        pytest.skip("asyncio's next select() fails")
    with open(tmp_path / "file", "wb") as file:
        for method in (loop.add_reader, loop.add_writer):
            with pytest.raises((OSError, ValueError)):
                method(file, print)


@pytest.mark.parametrize("count", [600])
def test_more_than_512_sockets(loop: Any, backend: Backend, count: int) -> None:
    """The chapter: "SelectSelector is used which only supports sockets and is limited to 512"."""
    if backend.name in ("asyncio-selector", "user"):
        pytest.skip("select.select() raises ValueError: too many file descriptors")
    with contextlib.ExitStack() as stack:
        pairs = [tcp_pair() for _ in range(count)]
        for sock in itertools.chain.from_iterable(pairs):
            stack.callback(sock.close)
        watch_all(loop, pairs)


def watch_all(loop: Any, pairs: List[Tuple[socket.socket, socket.socket]]) -> None:
    """Each pair's first socket becomes readable, and is seen once."""
    seen = set()

    def readable(number: int) -> None:
        pairs[number][0].recv(1)
        seen.add(number)
        if len(seen) == len(pairs):
            loop.stop()

    for number, (left, _) in enumerate(pairs):
        loop.add_reader(left, readable, number)
    for _, right in pairs:
        right.send(b"x")
    loop.run_forever()
    assert seen == set(range(len(pairs)))
    for left, _ in pairs:
        assert loop.remove_reader(left)


def test_more_than_512_connections(run: Run, backend: Backend) -> None:
    if backend.name in ("asyncio-selector", "user"):
        pytest.skip("select.select() raises ValueError: too many file descriptors")
    count = 300  # each has two sockets here

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, LOCALHOST, 0, backlog=count)
        address = server.sockets[0].getsockname()
        streams = [await asyncio.open_connection(*address) for _ in range(count)]
        for number, (_, writer) in enumerate(streams):
            writer.write(b"%d\n" % number)
        for number, (reader, _) in enumerate(streams):
            assert await reader.readline() == b"%d\n" % number
        for _, writer in streams:
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main)


# sock_*


def test_the_sock_methods(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, socket.socket() as sock:
            sock.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listening))
            await loop.sock_connect(sock, listening.getsockname())
            accepted, address = await accepting
            with accepted:
                assert address == sock.getsockname()
                sending = asyncio.ensure_future(loop.sock_sendall(sock, MEGABYTE * 4))
                received = bytearray()
                while len(received) < len(MEGABYTE) * 4:
                    received += await loop.sock_recv(accepted, 1 << 16)
                await sending
                assert received == MEGABYTE * 4
                buffer = bytearray(10)
                await loop.sock_sendall(accepted, b"answer")
                assert await loop.sock_recv_into(sock, buffer) == 6
                assert buffer[:6] == b"answer"
                sock.shutdown(socket.SHUT_WR)
                assert await loop.sock_recv(accepted, 10) == b""

    run(main)


def test_the_sock_methods_of_datagrams(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with bound_udp() as one, bound_udp() as two:
            assert await loop.sock_sendto(one, b"data", two.getsockname()) == 4
            assert await loop.sock_recvfrom(two, 100) == (b"data", one.getsockname())
            buffer = bytearray(10)
            receiving = asyncio.ensure_future(loop.sock_recvfrom_into(one, buffer))
            await turns(2)
            await loop.sock_sendto(two, b"answer", one.getsockname())
            assert await receiving == (6, two.getsockname())
            assert buffer[:6] == b"answer"

    run(main)


def test_a_cancelled_receive_loses_nothing(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        with left, right:
            receiving = asyncio.ensure_future(loop.sock_recv(left, 100))
            await turns(3)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            await loop.sock_sendall(right, b"for the next one")
            assert await loop.sock_recv(left, 100) == b"for the next one"

    run(main)


@pytest.mark.parametrize("size", [0, 100, 3_000_000])
@pytest.mark.parametrize("method", ["sendfile", "sock_sendfile"])
def test_sendfile(run: Run, tmp_path: Path, method: str, size: int) -> None:
    data = (MEGABYTE * 3)[:size]
    path = tmp_path / "file"
    path.write_bytes(b"head" + data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader_socket, sock = tcp_pair()
        reader, writer = await asyncio.open_connection(sock=reader_socket)
        with open(path, "rb") as file:
            receiving = asyncio.ensure_future(reader.read(-1))
            if method == "sock_sendfile":
                assert await loop.sock_sendfile(sock, file, 4) == size
                sock.close()
            else:
                transport, protocol = await loop.create_connection(Recorder, sock=sock)
                assert await loop.sendfile(transport, file, 4) == size
                assert not transport.is_closing()
                transport.close()
                await protocol.lost()
            if size:
                assert file.tell() == 4 + size
        assert await receiving == data
        writer.close()
        await writer.wait_closed()

    run(main)


# Pipes


@pytest.mark.usefixtures("needs_pipes")
class TestPipes:
    """The chapter: "Pipes are not supported" by the selector's loop."""

    @contextlib.asynccontextmanager
    async def both(self) -> AsyncIterator[Tuple[Any, Any, Any, Any]]:
        """Transports of both ends of a pipe, each with its protocol."""
        loop = asyncio.get_running_loop()
        read_end, write_end = pipe()
        reading, reader = await loop.connect_read_pipe(Recorder, read_end)
        writing, writer = await loop.connect_write_pipe(Recorder, write_end)
        try:
            yield reading, reader, writing, writer
        finally:
            reading.close()
            writing.close()
            await reader.lost()
            await writer.lost()

    def test_data_then_the_end(self, run: Run) -> None:
        async def main() -> None:
            async with self.both() as (_, reader, writing, writer):
                writing.write(b"first ")
                writing.writelines([b"and ", b"last"])
                writing.close()
                assert await reader.lost() is None
                assert reader.data == b"first and last"
                assert reader.events[0] == "made"
                assert reader.events[-2:] == ["eof", "lost"]
                assert await writer.lost() is None

        run(main)

    def test_much_data(self, run: Run) -> None:
        async def main() -> None:
            async with self.both() as (_, reader, writing, writer):
                writing.write(MEGABYTE)
                assert "pause" in writer.events
                assert await reader.received(len(MEGABYTE)) == MEGABYTE
                await writer.until_event("resume")
                assert writing.get_write_buffer_size() == 0

        run(main)

    def test_pause_reading(self, run: Run) -> None:
        async def main() -> None:
            async with self.both() as (reading, reader, writing, _):
                reading.pause_reading()
                writing.write(b"data")
                await turns(10)
                assert reader.events == ["made"]
                reading.resume_reading()
                assert await reader.received(4) == b"data"

        run(main)

    def test_a_reader_that_leaves(self, run: Run) -> None:
        async def main() -> None:
            async with self.both() as (reading, reader, writing, writer):
                reading.close()
                await reader.lost()
                for _ in range(6):
                    if writing.is_closing():
                        break
                    writing.write(b"to nobody")
                    await turns(3)
                error = await writer.lost()
                assert error is None or isinstance(error, OSError)

        run(main)

    def test_abort(self, run: Run) -> None:
        async def main() -> None:
            async with self.both() as (_, reader, writing, writer):
                writing.write(MEGABYTE)
                writing.abort()
                assert await writer.lost() is None
                assert await reader.lost() is None
                assert len(reader.data) < len(MEGABYTE)

        run(main)

    def test_the_extra_information(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            read_end, write_end = pipe()
            transport, protocol = await loop.connect_read_pipe(Recorder, read_end)
            assert isinstance(transport, asyncio.ReadTransport)
            assert transport.get_extra_info("pipe") is read_end
            transport.close()
            await protocol.lost()
            assert read_end.handle is None
            write_end.close()

        run(main)

    def test_streams(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            read_end, write_end = pipe()
            reader = asyncio.StreamReader()
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), read_end
            )
            writing, writer = await loop.connect_write_pipe(Recorder, write_end)
            writing.write(b"line one\nline")
            assert await reader.readline() == b"line one\n"
            writing.write(b" two\n")
            writing.close()
            assert await reader.readline() == b"line two\n"
            assert await reader.read() == b""
            await writer.lost()
            transport.close()
            await turns(3)

        run(main)

    def test_a_transport_that_is_dropped_warns_and_closes(
        self, new_loop: NewLoop, backend: Backend
    ) -> None:
        if backend.is_oracle:
            pytest.skip("a read under way keeps asyncio's transport")
        read_end, write_end = pipe()

        async def main() -> None:
            await asyncio.get_running_loop().connect_read_pipe(Recorder, read_end)

        loop = new_loop()
        loop.run_until_complete(main())
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            loop.close()  # which watches the pipe until then
            gc.collect()
        read_end.close()
        write_end.close()

    def test_an_end_that_can_only_be_written_to(self, run: Run, backend: Backend) -> None:
        if backend.is_oracle:
            pytest.skip("asyncio's transport for writing reads, too")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            read_end, write_end = pipe(duplex=False)
            reading, reader = await loop.connect_read_pipe(Recorder, read_end)
            writing, writer = await loop.connect_write_pipe(Recorder, write_end)
            writing.write(b"data")
            assert await reader.received(4) == b"data"
            writing.close()
            await writer.lost()
            await reader.lost()

        run(main)


@pytest.mark.usefixtures("needs_pipes")
class TestNamedPipes:
    """`start_serving_pipe` and `create_pipe_connection`, as asyncio's ProactorEventLoop has them."""

    def test_an_echo(self, run: Run) -> None:
        class Echo(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                self.transport.write(bytes(data))

        served: List[Echo] = []

        def make() -> Echo:
            served.append(Echo())
            return served[-1]

        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            name = pipe_name()
            (server,) = await loop.start_serving_pipe(make, name)
            links = [await loop.create_pipe_connection(Recorder, name) for _ in range(3)]
            for number, (transport, _) in enumerate(links):
                transport.write(b"%d" % number * 1000)
            for number, (transport, protocol) in enumerate(links):
                assert await protocol.received(1000) == b"%d" % number * 1000
                assert transport.get_extra_info("pipe") is not None
                transport.close()
                assert await protocol.lost() is None
            for echo in served:
                if echo.transport is not None:
                    await echo.lost()
            server.close()
            with pytest.raises(FileNotFoundError):
                await loop.create_pipe_connection(Recorder, name)

        run(main)

    def test_streams(self, run: Run) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            name = pipe_name()
            (server,) = await loop.start_serving_pipe(
                lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve), name
            )
            reader = asyncio.StreamReader()
            transport, protocol = await loop.create_pipe_connection(
                lambda: asyncio.StreamReaderProtocol(reader), name
            )
            transport.write(b"line\n")
            assert await reader.readline() == b"LINE\n"
            assert await reader.read() == b""
            transport.close()
            server.close()
            await turns(5)

        run(main)

    def test_nobody_serves(self, run: Run) -> None:
        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            with pytest.raises(FileNotFoundError):
                await loop.create_pipe_connection(Recorder, pipe_name())

        run(main)

    def test_a_server_that_is_closed_twice(self, run: Run) -> None:
        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            (server,) = await loop.start_serving_pipe(Recorder, pipe_name())
            await turns(2)
            server.close()
            server.close()
            assert server.closed()

        run(main)

    def test_a_factory_that_raises(self, run: Run, backend: Backend, reports: Reports) -> None:
        if backend.is_oracle:
            pytest.skip("asyncio's server listens no more, and keeps the pipe")

        class Refused(Exception):
            pass

        def factory() -> Recorder:
            if not served:
                served.append(None)
                raise Refused
            served.append(Recorder())
            return served[-1]

        served: List[Any] = []

        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            name = pipe_name()
            (server,) = await loop.start_serving_pipe(factory, name)
            transport, protocol = await loop.create_pipe_connection(Recorder, name)
            await protocol.lost()
            assert isinstance(reports.take_one()["exception"], Refused)
            transport, protocol = await loop.create_pipe_connection(Recorder, name)
            transport.writelines([b"still ", b"there"])
            while len(served) < 2:
                await turns(1)
            assert await served[1].received(11) == b"still there"
            transport.close()
            assert await served[1].lost() is None
            server.close()

        run(main)


# Processes


@pytest.mark.usefixtures("needs_pipes")
class TestProcesses:
    """The chapter: "Subprocesses are not supported" by the selector's loop."""

    def test_communicate(self, run: Run) -> None:
        source = "import sys; sys.stderr.write('to err'); sys.stdout.write(sys.stdin.read())"

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python(source), stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
            assert await process.communicate(b"to out") == (b"to out", b"to err")
            assert process.returncode == 0

        run(main)

    def test_much_data_in_both_directions(self, run: Run) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python(
                    "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
                ),
                stdin=PIPE,
                stdout=PIPE,
            )
            out, _ = await process.communicate(MEGABYTE)
            assert out == MEGABYTE

        run(main)

    @pytest.mark.parametrize("code", [0, 1, 255, 3221225786], ids=hex)
    def test_the_exit_code(self, run: Run, code: int) -> None:
        """It has 32 bits and no sign: STATUS_CONTROL_C_EXIT is 0xC000013A."""

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python(f"import ctypes; ctypes.windll.kernel32.ExitProcess({code})")
            )
            assert await process.wait() == code
            assert process.returncode == code

        run(main)

    @pytest.mark.parametrize("method", ["kill", "terminate"])
    def test_an_end_by_force(self, run: Run, method: str) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(*python("input()"), stdin=PIPE)
            getattr(process, method)()
            assert await process.wait() == 1  # as Popen says after TerminateProcess()
            with contextlib.suppress(ProcessLookupError):  # asyncio refuses it, subprocess does not
                getattr(process, method)()
            process.stdin.close()

        run(main)

    def test_a_shell(self, run: Run) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_shell("echo a word& exit 7", stdout=PIPE)
            out, _ = await process.communicate()
            assert (out.strip(), process.returncode) == (b"a word", 7)

        run(main)

    def test_keywords_of_popen(self, run: Run, tmp_path: Path) -> None:
        environment = {**os.environ, "OXLOOP": "a value"}
        source = "import os; print(os.getcwd()); print(os.environ['OXLOOP'])"

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python(source),
                stdout=PIPE,
                cwd=tmp_path,
                env=environment,
                creationflags=subprocess.CREATE_NO_WINDOW,  # type: ignore[attr-defined]
            )
            out, _ = await process.communicate()
            folder, value = out.decode().splitlines()
            assert Path(folder).samefile(tmp_path)
            assert value == "a value"

        run(main)

    def test_no_such_program(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec("no such program", stdout=PIPE)

        run(main)

    def test_many_at_once(self, run: Run) -> None:
        async def one(number: int) -> int:
            process = await asyncio.create_subprocess_exec(
                *python(f"print({number}); raise SystemExit({number})"), stdout=PIPE
            )
            out, _ = await process.communicate()
            assert int(out) == number
            return int(process.returncode)  # type: ignore[arg-type]

        async def main() -> None:
            codes = await asyncio.gather(*map(one, range(8)))
            assert codes == list(range(8))

        run(main)

    def test_a_file_for_standard_output(self, run: Run, tmp_path: Path) -> None:
        async def main() -> None:
            with open(tmp_path / "out", "wb") as out:
                process = await asyncio.create_subprocess_exec(*python("print('x')"), stdout=out)
                await process.wait()

        run(main)
        assert (tmp_path / "out").read_text().strip() == "x"

    def test_the_events_of_a_protocol(self, run: Run) -> None:
        events: List[Any] = []
        output = bytearray()

        class Child(asyncio.SubprocessProtocol):
            def connection_made(self, transport: Any) -> None:
                events.append("made")

            def pipe_data_received(self, fd: int, data: bytes) -> None:
                output.extend(data)
                if output.strip() == data.strip():
                    events.append("data")

            def pipe_connection_lost(self, fd: int, exc: Any) -> None:
                events.append("pipe lost")

            def process_exited(self) -> None:
                events.append("exited")

            def connection_lost(self, exc: Any) -> None:
                events.append("lost")
                lost.set_result(None)

        async def main() -> None:
            nonlocal lost
            loop = asyncio.get_running_loop()
            lost = loop.create_future()
            transport, _ = await loop.subprocess_exec(
                Child, *python("print('x')"), stdin=None, stderr=None
            )
            await lost
            assert transport.get_returncode() == 0
            transport.close()

        lost: Any = None
        run(main)
        assert events[0] == "made"
        assert events[-1] == "lost"
        assert sorted(events[1:-1]) == ["data", "exited", "pipe lost"]
        assert events.index("data") < events.index("pipe lost")
        assert output.strip() == b"x"


# Signals


@pytest.fixture
def dispositions(leaves_nothing: None) -> Iterator[None]:
    """Give the signals their dispositions back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.Signals["SIGBREAK"])
    before = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.usefixtures("dispositions")
@pytest.mark.parametrize("name", ["SIGINT", "SIGBREAK", "SIGTERM"])
class TestSignals:
    """The chapter: "add_signal_handler() and remove_signal_handler() are not supported"."""

    def test_a_handler(self, loop: Any, name: str) -> None:
        number, got = signal.Signals[name], []
        before = signal.getsignal(number)

        def handler(*args: Any) -> None:
            got.append((args, asyncio.get_running_loop()))
            loop.stop()

        loop.add_signal_handler(number, handler, 1, "two")
        loop.call_soon(signal.raise_signal, number)
        loop.run_forever()
        assert got == [((1, "two"), loop)]
        assert loop.remove_signal_handler(number) is True
        assert loop.remove_signal_handler(number) is False
        assert signal.getsignal(number) is before

    def test_it_wakes_a_loop_that_waits(self, loop: Any, name: str) -> None:
        number = signal.Signals[name]
        loop.add_signal_handler(number, loop.stop)
        waiting = threading.Event()

        def work() -> None:
            waiting.wait()
            signal.raise_signal(number)

        thread = threading.Thread(target=work)
        thread.start()
        loop.call_soon(waiting.set)
        loop.run_forever()
        thread.join()

    def test_one_that_comes_between_two_runs(self, loop: Any, name: str) -> None:
        loop.add_signal_handler(signal.Signals[name], loop.stop)
        signal.raise_signal(signal.Signals[name])
        loop.run_forever()


@pytest.mark.usefixtures("dispositions")
def test_a_signal_that_windows_does_not_have(loop: Any) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        loop.add_signal_handler(10, print)


PRESSES_CTRL_C = """
import asyncio, ctypes, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
def press():
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    if not kernel.GenerateConsoleCtrlEvent(0, 0):
        print("cannot be pressed:", ctypes.get_last_error(), flush=True)
"""


def press_ctrl_c(backend: Backend, body: str) -> str:
    """What a program prints that has a console of its own and presses Ctrl-C there."""
    child = subprocess.run(
        [sys.executable, "-c", backend.source + PRESSES_CTRL_C + body],
        env=environment_of(),
        stdout=PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        creationflags=subprocess.CREATE_NO_WINDOW,  # type: ignore[attr-defined]
        text=True,
        timeout=25,
        check=False,
    )
    return child.stdout


def test_ctrl_c_ends_a_loop_that_waits(backend: Backend) -> None:
    if backend.name == "asyncio-selector":
        pytest.skip("asyncio's SelectorEventLoop finds out when something else wakes it")
    out = press_ctrl_c(
        backend,
        """
loop = new_loop()
loop.call_soon(threading.Thread(target=press).start)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
finally:
    loop.close()
""",
    )
    assert out == "interrupted\n"


def test_ctrl_c_in_a_runner(backend: Backend) -> None:
    if backend.name == "asyncio-selector":
        pytest.skip("asyncio's SelectorEventLoop finds out when something else wakes it")
    out = press_ctrl_c(
        backend,
        """
async def main():
    threading.Thread(target=press).start()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("cancelled")
        raise
try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
""",
    )
    assert out == "cancelled\ninterrupted\n"


def test_ctrl_c_of_a_handler(backend: Backend) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio has no add_signal_handler() on Windows")
    out = press_ctrl_c(
        backend,
        """
loop = new_loop()
loop.add_signal_handler(signal.SIGINT, lambda: (print("handled"), loop.stop()))
loop.call_soon(threading.Thread(target=press).start)
loop.run_forever()
loop.close()
""",
    )
    assert out == "handled\n"


# Timers


def test_timers_are_finer_than_the_clock_of_windows(run: Run, backend: Backend) -> None:
    """The chapter: "The resolution of the monotonic clock on Windows is usually around 15.6 msec".

    Timers that are due one millisecond after the other come in different turns, and none too soon.
    """
    if backend.is_oracle:
        pytest.skip("asyncio rounds to what its clock says")
    delays = [number / 1000 for number in range(1, 21)]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        start = loop.time()
        seen: List[Tuple[float, float]] = []
        turn = itertools.count()

        def due(delay: float) -> None:
            seen.append((delay, loop.time() - start))
            if len(seen) == len(delays):
                done.set_result(next(turn))

        for delay in reversed(delays):
            loop.call_at(start + delay, due, delay)
        await done
        assert [delay for delay, _ in seen] == delays
        assert all(passed >= delay for delay, passed in seen), seen

    run(main)


def test_the_clock_of_the_loop_is_fine(loop: Any, backend: Backend) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio's is time.monotonic(), in steps of 15.6 ms before Python 3.13")
    before = loop.time()
    while (after := loop.time()) == before:
        pass
    assert after - before < 0.005
    assert abs(after - time.monotonic()) < 1


def test_the_resolution_of_the_system_is_left_alone(backend: Backend) -> None:
    """Nobody else's timers get finer, which costs power: winmm's timeBeginPeriod() is not there."""
    source = backend.source + (
        "import asyncio, ctypes\n"
        "def loaded(name): return ctypes.WinDLL('kernel32').GetModuleHandleW(name)\n"
        "before = loaded('winmm.dll')\n"
        "loop = new_loop()\nloop.run_until_complete(asyncio.sleep(0.002))\nloop.close()\n"
        "print(before or not loaded('winmm.dll'))\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=25
    )
    assert (child.stdout, child.stderr) == ("True\n", "")


# Policies, child watchers and what Windows does not have


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["Selector", "Proactor"])
def test_the_policies(package: Any, kind: str) -> None:
    policy = getattr(package, f"Windows{kind}EventLoopPolicy")()
    loop = policy.new_event_loop()
    assert isinstance(loop, getattr(package, f"{kind}EventLoop"))
    loop.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_default_policy_makes_proactors(package: Any) -> None:
    """As asyncio's since Python 3.8."""
    loop = package.DefaultEventLoopPolicy().new_event_loop()
    assert isinstance(loop, package.ProactorEventLoop)
    loop.close()
    loop = package.new_event_loop()
    assert isinstance(loop, package.ProactorEventLoop)
    loop.close()


def test_asyncios_names_of_the_loops(oxloop: Any) -> None:
    loop = oxloop.new_event_loop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()
    if PY314:
        assert issubclass(oxloop.DefaultEventLoopPolicy, oxloop.AbstractEventLoopPolicy)


def test_an_iocp_proactor_as_the_argument(oxloop: Any) -> None:
    """asyncio's constructor takes an IocpProactor."""
    proactor = oxloop.IocpProactor()
    loop = oxloop.ProactorEventLoop(proactor)
    assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
    loop.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["get_child_watcher", "set_child_watcher"])
def test_there_are_no_child_watchers(oxloop: Any, name: str) -> None:
    """The chapter: "EventLoopPolicy.set_child_watcher() is not supported"."""
    arguments = () if name.startswith("get") else (None,)
    for owner in (oxloop, oxloop.get_event_loop_policy()):
        with pytest.raises(NotImplementedError):
            getattr(owner, name)(*arguments)


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_unix_sockets(run: Run, tmp_path: Path, method: str) -> None:
    """The chapter: they "are not supported": so it is said, or they work where there is AF_UNIX."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_unix_server(Recorder, str(tmp_path / "s"))
        except NotImplementedError as error:
            assert not hasattr(socket, "AF_UNIX") or isinstance(error, NotImplementedError)
            with pytest.raises(NotImplementedError):
                await getattr(loop, method)(Recorder, str(tmp_path / "s"))
            return
        transport, protocol = await loop.create_unix_connection(Recorder, str(tmp_path / "s"))
        transport.close()
        await protocol.lost()
        server.close()
        await server.wait_closed()

    run(main)


def test_pipes_without_them(loop: Any, backend: Backend) -> None:
    """Over a selector there are neither pipes nor processes, and this is said as asyncio says it."""
    if backend.name not in HAS_NO_PIPES:
        pytest.skip("this loop has both")
    read_end, write_end = pipe()
    for coroutine in (
        loop.connect_read_pipe(Recorder, read_end),
        loop.connect_write_pipe(Recorder, write_end),
        loop.subprocess_exec(asyncio.SubprocessProtocol, *python("")),
    ):
        with pytest.raises(NotImplementedError):
            loop.run_until_complete(coroutine)
    for end in (read_end, write_end):
        if end.handle is not None:
            end.close()


# The loop and other threads


def test_another_thread_wakes_a_loop_that_waits(run: Run) -> None:
    async def main() -> None:
        assert await call_while_waiting(lambda: None) == []

    run(main)


def test_a_listener_is_shared(run: Run, backend: Backend) -> None:
    """Processes that serve one socket, as uvicorn's workers: it can have one completion port only."""
    if backend.name == "asyncio":
        pytest.skip("asyncio's proactor: WinError 87")
    source = """
import asyncio, socket, sys
async def serve(reader, writer):
    writer.write(b"child")
    writer.close()
async def main():
    sock = socket.fromshare(bytes.fromhex(sys.stdin.readline()))
    await asyncio.start_server(serve, sock=sock)
    print("serving", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
new_loop().run_until_complete(main())
"""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"parent")
        writer.close()

    async def main(sock: socket.socket) -> None:
        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            answer = await reader.read()
            writer.close()
            return answer

        assert {await ask() for _ in range(5)} == {b"child"}
        async with await asyncio.start_server(serve, sock=sock):
            answers = await asyncio.gather(*(ask() for _ in range(20)))
            assert set(answers) <= {b"child", b"parent"}
            await asyncio.get_running_loop().run_in_executor(None, child.communicate)
            assert {await ask() for _ in range(5)} == {b"parent"}

    with (
        subprocess.Popen(
            [sys.executable, "-c", backend.source + source],
            env=environment_of(),
            stdin=PIPE,
            stdout=PIPE,
            text=True,
        ) as child,
        listener() as sock,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(sock.share(child.pid).hex() + "\n")
        child.stdin.flush()
        assert child.stdout.readline() == "serving\n"
        run(lambda: main(sock))


def test_an_executor(run: Run, reports: Reports) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        mine = threading.get_ident()
        assert await loop.run_in_executor(None, threading.get_ident) != mine

    run(main)


def test_many_loops_leave_no_handle(backend: Backend) -> None:
    """Completion ports, wake-ups and what watches sockets are closed with their loop."""

    def once() -> None:
        loop = backend.new_loop()
        left, right = tcp_pair()
        with left, right:
            loop.run_until_complete(loop.sock_sendall(left, b"x"))
            loop.run_until_complete(loop.sock_recv(right, 1))
        loop.close()

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]

    def lowest_free() -> int:
        """The number of a new handle: the lowest free one is taken."""
        handle = kernel.CreateEventW(None, False, False, None)
        kernel.CloseHandle(handle)
        return int(handle)

    for _ in range(5):
        once()
    before = lowest_free()
    for _ in range(30):
        once()
    assert lowest_free() <= before + 8
