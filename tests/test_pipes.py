"""Pipe transports: `connect_read_pipe` and `connect_write_pipe` on everything they are for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, Tuple

import pytest
from support.backends import PY311, Backend
from support.pipes import pipe_ends
from support.recorders import Recorder
from support.reports import Reports
from support.running import NewLoop, Run, turns
from support.sockets import reset, tcp_pair

# Pipes of Windows have no descriptors that could be watched: those are in test_windows_pipes.py.
pytestmark = pytest.mark.unix("pipes by os.pipe() and os.mkfifo()")

Ends = Tuple[Any, Any]


def fifo_ends() -> Ends:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fifo")
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return open(reader, "rb", 0), open(path, "wb", 0)


def socket_ends() -> Ends:
    return socket.socketpair()


def read_now(end: Any, count: int = 1 << 20) -> bytes:
    """What is in the plain end of a pipe."""
    return os.read(end.fileno(), count)


def fill(end: Any) -> int:
    """Write until the kernel takes no more; the number of bytes that it took."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += os.write(end.fileno(), b"f" * 4096)
    return sent


def drain(end: Any) -> bytes:
    """Read until there is nothing more."""
    os.set_blocking(end.fileno(), False)
    data = bytearray()
    with contextlib.suppress(BlockingIOError):
        while True:
            chunk = read_now(end)
            if not chunk:
                break
            data += chunk
    return bytes(data)


async def reading(pipe: Any, factory: Callable[[], Any] = Recorder) -> Tuple[Any, Any]:
    return await asyncio.get_running_loop().connect_read_pipe(factory, pipe)


async def writing(pipe: Any, factory: Callable[[], Any] = Recorder) -> Tuple[Any, Any]:
    return await asyncio.get_running_loop().connect_write_pipe(factory, pipe)


@pytest.fixture(params=[pipe_ends, fifo_ends, socket_ends], ids=["pipe", "fifo", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """A reading and a writing end, closed after the test."""
    reader, writer = request.param()
    yield reader, writer
    reader.close()
    writer.close()


@pytest.fixture
def pipe() -> Iterator[Ends]:
    """The two ends of a pipe, closed after the test."""
    reader, writer = pipe_ends()
    yield reader, writer
    reader.close()
    writer.close()


class TestReading:
    def test_data_then_eof_then_lost(self, run: Run, ends: Ends) -> None:
        reader, writer = ends

        async def main() -> None:
            transport, protocol = await reading(reader)
            assert protocol.transport is transport
            assert not transport.is_closing()
            os.write(writer.fileno(), b"first")
            assert await protocol.received(5) == b"first"
            os.write(writer.fileno(), b"second")
            assert await protocol.received(11) == b"firstsecond"
            writer.close()
            assert await protocol.lost() is None
            assert protocol.events == ["made", "data", "data", "eof", "lost"]
            assert transport.is_closing()
            await turns(1)
            assert reader.fileno() == -1 if isinstance(reader, socket.socket) else reader.closed

        run(main)

    def test_eof_does_not_ask_to_be_kept_open(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        async def main() -> None:
            _, protocol = await reading(reader)
            protocol.keep_open = True
            writer.close()
            await protocol.lost()

        run(main)

    def test_busy_loop_reads(self, run: Run, ends: Ends) -> None:
        """Something is always ready, so that the loop never sleeps."""
        reader, writer = ends

        async def main() -> None:
            _, protocol = await reading(reader)
            for count in range(1, 30):
                os.write(writer.fileno(), b"x")
                for _ in range(4):
                    await turns(1)
                    if len(protocol.data) == count:
                        break
                else:
                    pytest.fail(f"byte {count} was not read in four turns")
            writer.close()
            await turns(4)
            assert protocol.events[-2:] == ["eof", "lost"]

        run(main)

    def test_large_amounts_arrive_whole(self, run: Run, ends: Ends) -> None:
        reader, writer = ends
        data = os.urandom(1 << 20)

        async def main() -> None:
            _, got = await reading(reader)
            transport, _ = await writing(writer)
            transport.write(data)
            transport.close()
            await got.lost()
            assert bytes(got.data) == data

        run(main)

    def test_pause_and_resume(self, run: Run, ends: Ends) -> None:
        reader, writer = ends

        async def main() -> None:
            transport, protocol = await reading(reader)
            transport.pause_reading()
            transport.pause_reading()
            os.write(writer.fileno(), b"data")
            await turns(5)
            assert not protocol.data
            transport.resume_reading()
            transport.resume_reading()
            assert await protocol.received(4) == b"data"
            transport.close()
            transport.pause_reading()
            transport.resume_reading()
            await protocol.lost()

        run(main)

    def test_close_reads_no_more(self, run: Run, ends: Ends) -> None:
        reader, writer = ends

        async def main() -> None:
            transport, protocol = await reading(reader)
            os.write(writer.fileno(), b"data")
            transport.close()
            transport.close()
            assert transport.is_closing()
            assert protocol.events == ["made"]
            assert await protocol.lost() is None
            await turns(2)
            assert protocol.events == ["made", "lost"]
            assert transport.get_protocol() is None

        run(main)

    def test_close_in_connection_made(self, run: Run, pipe: Ends, backend: Backend) -> None:
        if backend.is_oracle and not PY311:
            pytest.skip("it reads all the same, and is lost twice")
        reader, writer = pipe

        class Closing(Recorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                transport.close()

        async def main() -> None:
            os.write(writer.fileno(), b"data")
            _, protocol = await reading(reader, Closing)
            await protocol.lost()
            assert protocol.events == ["made", "lost"]

        run(main)

    def test_error_in_data_received_is_reported_and_reading_goes_on(
        self, run: Run, pipe: Ends, reports: Reports
    ) -> None:
        reader, writer = pipe

        class Failing(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if data == b"bad":
                    raise ZeroDivisionError

        async def main() -> None:
            transport, protocol = await reading(reader, Failing)
            os.write(writer.fileno(), b"bad")
            await protocol.received(3)
            await turns(1)
            assert not transport.is_closing()
            os.write(writer.fileno(), b"good")
            await protocol.received(7)
            transport.close()
            await protocol.lost()

        run(main)
        context = reports.take_one()
        assert isinstance(context["exception"], ZeroDivisionError)
        assert context["message"].startswith("Exception in callback ")

    def test_error_in_connection_lost_is_reported(
        self, run: Run, pipe: Ends, reports: Reports
    ) -> None:
        class Failing(Recorder):
            def connection_lost(self, exc: Any) -> None:
                super().connection_lost(exc)
                raise ZeroDivisionError

        async def main() -> None:
            transport, protocol = await reading(pipe[0], Failing)
            transport.close()
            await protocol.lost()
            await turns(1)

        run(main)
        context = reports.take_one()
        assert isinstance(context["exception"], ZeroDivisionError)
        assert "Transport._call_connection_lost(" in context["message"]
        assert isinstance(context["handle"], asyncio.Handle)
        assert pipe[0].closed

    def test_read_error_is_reported(self, run: Run, reports: Reports) -> None:
        """What read(2) answers goes to the exception handler, and to connection_lost()."""
        left, right = tcp_pair()

        async def main() -> None:
            _, protocol = await reading(left)
            reset(right)
            assert isinstance(await protocol.lost(), ConnectionResetError)

        run(main)
        context = reports.take_one()
        assert context["message"] == "Fatal read error on pipe transport"
        assert isinstance(context["exception"], ConnectionResetError)

    def test_set_protocol(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        async def main() -> None:
            transport, first = await reading(reader)
            second = Recorder()
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            os.write(writer.fileno(), b"data")
            assert await second.received(4) == b"data"
            transport.close()
            await second.lost()
            assert first.events == ["made"]

        run(main)


class TestWriting:
    def test_written_data_arrives(self, run: Run, ends: Ends) -> None:
        reader, writer = ends

        async def main() -> None:
            transport, protocol = await writing(writer)
            transport.write(b"bytes ")
            transport.write(bytearray(b"bytearray "))
            transport.write(memoryview(b"memoryview "))
            transport.writelines([b"of ", bytearray(b"lines")])
            transport.write(b"")
            assert read_now(reader) == b"bytes bytearray memoryview of lines"
            transport.close()
            assert await protocol.lost() is None
            await turns(1)
            assert read_now(reader) == b""
            assert protocol.events == ["made", "lost"]

        run(main)

    @pytest.mark.parametrize("wrong", ["text", 1, None, [b"list"]])
    def test_wrong_types_are_refused(self, run: Run, pipe: Ends, wrong: Any) -> None:
        async def main() -> None:
            transport, protocol = await writing(pipe[1])
            with pytest.raises(AssertionError) as raised:
                transport.write(wrong)
            assert repr(wrong) in str(raised.value)
            transport.close()
            await protocol.lost()

        run(main)

    @pytest.mark.parametrize("end", ["close", "write_eof"])
    def test_end_sends_what_is_buffered(self, run: Run, ends: Ends, end: str) -> None:
        reader, writer = ends
        data = os.urandom(1 << 20)

        async def main() -> None:
            transport, protocol = await writing(writer)
            assert transport.can_write_eof()
            transport.write(data)
            assert transport.get_write_buffer_size() > 0
            getattr(transport, end)()
            getattr(transport, end)()
            assert transport.is_closing()
            transport.write(b"dropped")
            got = bytearray()
            while "lost" not in protocol.events:
                got += drain(reader)
                await turns(1)
            got += drain(reader)
            assert bytes(got) == data
            assert protocol.error is None
            assert protocol.events == ["made", "pause", "resume", "lost"]

        run(main)

    def test_abort_drops_what_is_buffered(self, run: Run, ends: Ends) -> None:
        _, writer = ends

        async def main() -> None:
            transport, protocol = await writing(writer)
            transport.write(bytes(1 << 20))
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            assert transport.is_closing()
            assert await protocol.lost() is None
            assert protocol.events == ["made", "pause", "lost"]

        run(main)

    def test_abort_after_close(self, run: Run, pipe: Ends) -> None:
        async def main() -> None:
            transport, protocol = await writing(pipe[1])
            transport.write(bytes(1 << 20))
            transport.close()
            await turns(2)
            assert "lost" not in protocol.events
            transport.abort()
            assert await protocol.lost() is None

        run(main)

    def test_the_protocol_is_paused_and_resumed(self, run: Run, pipe: Ends) -> None:
        """asyncio resumes the protocol of a pipe when the buffer is empty."""
        reader, writer = pipe

        async def main() -> None:
            transport, protocol = await writing(writer)
            fill(writer)
            transport.set_write_buffer_limits(high=10)
            assert transport.get_write_buffer_limits() == (2, 10)
            transport.write(b"x" * 10)
            assert protocol.events == ["made"]
            transport.write(b"x")
            assert protocol.events == ["made", "pause"]
            assert transport.get_write_buffer_size() == 11
            drain(reader)
            await protocol.until_event("resume")
            assert transport.get_write_buffer_size() == 0
            assert drain(reader) == b"x" * 11
            transport.close()
            await protocol.lost()

        run(main)

    @pytest.mark.parametrize(("high", "low"), [(1, 2), (-1, None), (None, -1)])
    def test_wrong_limits(self, run: Run, pipe: Ends, high: Any, low: Any) -> None:
        async def main() -> None:
            transport, protocol = await writing(pipe[1])
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high=high, low=low)
            transport.close()
            await protocol.lost()

        run(main)

    def test_the_buffer_is_a_snapshot(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        async def main() -> None:
            transport, protocol = await writing(writer)
            fill(writer)
            data = bytearray(b"before")
            transport.write(data)
            data[:] = b"after!"
            drain(reader)
            while transport.get_write_buffer_size():
                await turns(1)
            assert read_now(reader) == b"before"
            transport.close()
            await protocol.lost()

        run(main)

    def test_writes_in_resume_writing(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        class Again(Recorder):
            def resume_writing(self) -> None:
                super().resume_writing()
                if self.events.count("resume") == 1:
                    self.transport.write(b"again")

        async def main() -> None:
            transport, protocol = await writing(writer, Again)
            fill(writer)
            transport.write(bytes(100_000))
            got = bytearray()
            while not got.endswith(b"again"):
                got += drain(reader)
                await turns(1)
            transport.close()
            await protocol.lost()

        run(main)

    def test_writes_after_close_are_counted_in_the_log(
        self, run: Run, pipe: Ends, log: list[str]
    ) -> None:
        async def main() -> None:
            transport, protocol = await writing(pipe[1])
            transport.close()
            await protocol.lost()
            for _ in range(7):
                transport.write(b"late")

        run(main)
        text = "WARNING pipe closed by peer or os.write(pipe, data) raised exception."
        assert [line for line in log if line.startswith("WARNING")] == [text] * 2


class TestBrokenPipe:
    def test_reader_that_leaves_is_noticed(self, run: Run, ends: Ends) -> None:
        reader, writer = ends

        async def main() -> None:
            transport, protocol = await writing(writer)
            reader.close()
            assert await protocol.lost() is None
            assert transport.is_closing()
            assert protocol.events == ["made", "lost"]

        run(main)

    def test_reader_that_leaves_data_behind(self, run: Run, ends: Ends) -> None:
        reader, writer = ends

        async def main() -> None:
            transport, protocol = await writing(writer)
            transport.write(bytes(1 << 20))
            reader.close()
            error = await protocol.lost()
            assert isinstance(error, (BrokenPipeError, ConnectionResetError))
            assert transport.get_write_buffer_size() == 0

        run(main)

    def test_write_finds_out(self, run: Run, pipe: Ends) -> None:
        async def main() -> None:
            transport, protocol = await writing(pipe[1])
            pipe[0].close()
            transport.write(b"nobody")
            assert transport.is_closing()
            assert isinstance(await protocol.lost(), BrokenPipeError)
            assert protocol.events == ["made", "lost"]

        run(main)

    def test_data_in_the_other_direction_ends_a_writer(self, run: Run) -> None:
        """What asyncio does with a socket: whatever can be read at the writing end is its end."""
        left, right = socket_ends()

        async def main() -> None:
            _, protocol = await writing(left)
            right.send(b"surprise")
            assert await protocol.lost() is None

        run(main)
        right.close()

    def test_sigpipe_does_not_kill(self, backend: Backend) -> None:
        """Python ignores SIGPIPE; a program that embeds it, or a script, may not."""
        if backend.is_oracle:
            pytest.skip("it does kill asyncio")
        source = backend.source + (
            "import asyncio, os, signal\n"
            "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
            "async def main():\n"
            "    reader, writer = os.pipe()\n"
            "    pipe = open(writer, 'wb', 0)\n"
            "    loop = asyncio.get_running_loop()\n"
            "    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, pipe)\n"
            "    os.close(reader)\n"
            "    transport.write(b'x')\n"
            "    assert transport.is_closing()\n"
            "    await asyncio.sleep(0)\n"
            "loop = new_loop()\n"
            "loop.run_until_complete(main())\n"
            "loop.close()\n"
            "print('alive')\n"
        )
        result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (0, "alive\n"), result.stderr


class TestKinds:
    @pytest.mark.parametrize("connect", [reading, writing])
    def test_regular_file_is_refused(self, run: Run, tmp_path: Path, connect: Any) -> None:
        async def main() -> None:
            with open(tmp_path / "file", "w+b", 0) as file:
                text = "Pipe transport is (only )?for pipes"
                with pytest.raises(ValueError, match=text):
                    await connect(file)
                assert not file.closed

        run(main)

    def test_pseudo_terminal(self, run: Run) -> None:
        master, slave = os.openpty()
        assert stat.S_ISCHR(os.fstat(master).st_mode)
        end = open(master, "rb", 0)

        async def main() -> None:
            transport, protocol = await reading(end)
            os.write(slave, b"line\n")
            await protocol.until(lambda: b"line" in protocol.data)
            os.close(slave)
            # Linux: EIO, which is the end of a terminal.
            error = await protocol.lost()
            assert isinstance(error, OSError)
            assert transport.is_closing()

        run(main)

    def test_terminal_can_be_written_to(self, run: Run) -> None:
        master, slave = os.openpty()
        end = open(slave, "wb", 0)

        async def main() -> None:
            transport, protocol = await writing(end)
            transport.write(b"text")
            assert os.read(master, 10) == b"text"
            transport.close()
            await protocol.lost()
            os.close(master)

        run(main)

    def test_dev_null_can_be_written_to(self, run: Run) -> None:
        async def main() -> None:
            transport, protocol = await writing(open(os.devnull, "wb", 0))
            transport.write(b"gone")
            assert transport.get_write_buffer_size() == 0
            transport.close()
            await protocol.lost()

        run(main)

    def test_the_pipe_is_made_non_blocking(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        async def main() -> None:
            read, got = await reading(reader)
            write, sent = await writing(writer)
            assert not os.get_blocking(reader.fileno())
            assert not os.get_blocking(writer.fileno())
            write.close()
            await got.lost()
            await sent.lost()
            assert read.is_closing()

        run(main)


class TestTransport:
    def test_classes(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        async def main() -> None:
            read, got = await reading(reader)
            write, _ = await writing(writer)
            assert isinstance(read, asyncio.ReadTransport)
            assert not isinstance(read, asyncio.WriteTransport)
            assert isinstance(write, asyncio.WriteTransport)
            write.close()
            await got.lost()

        run(main)

    def test_extra_info(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        async def main() -> None:
            read, got = await reading(reader)
            write, _ = await writing(writer)
            assert read.get_extra_info("pipe") is reader
            assert write.get_extra_info("pipe") is writer
            assert read.get_extra_info("other") is None
            assert read.get_extra_info("other", 5) == 5
            write.close()
            await got.lost()
            assert read.get_extra_info("pipe") is reader

        run(main)

    def test_text(self, run: Run, pipe: Ends) -> None:
        reader, writer = pipe

        async def main() -> None:
            read, got = await reading(reader)
            write, _ = await writing(writer)
            fd = reader.fileno()
            assert f"ReadPipeTransport fd={fd} polling" in repr(read)
            assert f"WritePipeTransport fd={writer.fileno()} idle bufsize=0" in repr(write)
            read.pause_reading()
            assert f"fd={fd} idle" in repr(read)
            read.resume_reading()
            write.close()
            assert "closing" in repr(write)
            await got.lost()
            await turns(1)
            assert f"closed fd={fd}" in repr(read)

        run(main)

    @pytest.mark.parametrize("connect", [reading, writing])
    def test_dropped_transport_warns_and_closes(
        self, new_loop: NewLoop, pipe: Ends, connect: Any
    ) -> None:
        loop = new_loop()
        end = pipe[connect is writing]
        transport, protocol = loop.run_until_complete(connect(end))
        loop.close()
        assert "open" in repr(transport)
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            del transport
            protocol.transport = None
            gc.collect()
        assert end.closed

    def test_debug_log(self, run: Run, pipe: Ends, log: list[str]) -> None:
        reader, writer = pipe

        async def main() -> None:
            read, got = await reading(reader)
            write, _ = await writing(writer)
            read.pause_reading()
            read.resume_reading()
            write.close()
            await got.lost()

        run(main, debug=True)
        numbers = []
        for text in (
            "DEBUG Read pipe",
            "DEBUG Write pipe",
            "pauses reading",
            "resumes reading",
            "was closed by peer",
        ):
            numbers.append(next(i for i, line in enumerate(log) if text in line))
        assert numbers == sorted(numbers)

    def test_contexts(self, run: Run, pipe: Ends) -> None:
        """Callbacks run in copies of the context in which the loop was told of them."""
        reader, writer = pipe
        place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="none")
        seen = []

        class Seeing(Recorder):
            def record(self, event: str) -> None:
                seen.append((event, place.get()))
                super().record(event)

        async def main() -> None:
            place.set("open")
            transport, protocol = await reading(reader, Seeing)
            place.set("later")
            os.write(writer.fileno(), b"a")
            await protocol.received(1)
            transport.pause_reading()
            place.set("resumed")
            transport.resume_reading()
            place.set("last")
            os.write(writer.fileno(), b"b")
            await protocol.received(2)
            transport.close()
            await protocol.lost()

        run(main)
        assert seen == [("made", "open"), ("data", "open"), ("data", "resumed"), ("lost", "last")]

    def test_cancelled_connect_closes(self, run: Run, pipe: Ends) -> None:
        reader, _ = pipe

        async def main() -> None:
            connecting = asyncio.ensure_future(reading(reader))
            await turns(1)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await turns(2)
            assert reader.closed

        run(main)

    def test_streams(self, run: Run, pipe: Ends) -> None:
        """asyncio's streams over both ends, as its documentation shows it."""
        reader, writer = pipe

        async def main() -> None:
            loop = asyncio.get_running_loop()
            stream = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), reader)
            transport, protocol = await loop.connect_write_pipe(
                asyncio.streams.FlowControlMixin, writer
            )
            out = asyncio.StreamWriter(transport, protocol, None, loop)
            out.write(b"line\n" * 100_000)
            draining = asyncio.ensure_future(out.drain())
            for _ in range(100_000):
                assert await stream.readline() == b"line\n"
            await draining
            transport.close()
            assert await stream.read() == b""

        run(main)


def test_keyboard_interrupt_leaves_the_loop(new_loop: NewLoop, pipe: Ends) -> None:
    reader, writer = pipe

    class Interrupting(Recorder):
        def data_received(self, data: bytes) -> None:
            raise KeyboardInterrupt

    loop = new_loop()
    transport, protocol = loop.run_until_complete(reading(reader, Interrupting))
    os.write(writer.fileno(), b"data")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    transport.close()
    loop.run_until_complete(protocol.lost())
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL
