"""Pipes on Windows, which are read and written by operations: `connect_read_pipe`, named pipes.

asyncio has none on its SelectorEventLoop. Those of Unix are in test_pipes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
from pathlib import Path
from typing import Any, AsyncIterator, Iterator, List, Tuple

import pytest
from support.backends import Backend
from support.children import python
from support.pipes import pipe_ends
from support.platforms import WINDOWS
from support.recorders import Recorder
from support.reports import Reports
from support.running import NewLoop, Run, turns

pytestmark = pytest.mark.skipif(not WINDOWS, reason="for Windows")

MEGABYTE = bytes(range(256)) * 4096
COUNTER = itertools.count()


def pipe_name() -> str:
    """A name that no other pipe has."""
    return rf"\\.\pipe\oxloop-{os.getpid()}-{next(COUNTER)}"


@pytest.mark.usefixtures("needs_pipes")
class TestPipes:
    """The chapter: "Pipes are not supported" by the selector's loop."""

    @contextlib.asynccontextmanager
    async def both(self) -> AsyncIterator[Tuple[Any, Any, Any, Any]]:
        """Transports of both ends of a pipe, each with its protocol."""
        loop = asyncio.get_running_loop()
        read_end, write_end = pipe_ends()
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
            read_end, write_end = pipe_ends()
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
            read_end, write_end = pipe_ends()
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
        read_end, write_end = pipe_ends()

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
            read_end, write_end = pipe_ends(duplex=False)
            reading, reader = await loop.connect_read_pipe(Recorder, read_end)
            writing, writer = await loop.connect_write_pipe(Recorder, write_end)
            writing.write(b"data")
            assert await reader.received(4) == b"data"
            writing.close()
            await writer.lost()
            await reader.lost()

        run(main)


@contextlib.contextmanager
def files_that_wait(kind: str, tmp_path: Path) -> Iterator[Any]:
    """The ends of what was not made for overlapped operations, the reading one first."""
    from asyncio import windows_utils

    if kind == "pipe":
        ends = windows_utils.pipe(overlapped=(False, False))  # type: ignore[attr-defined]
        files = [windows_utils.PipeHandle(end) for end in ends]  # type: ignore[attr-defined]
    elif kind == "os.pipe":
        reader, writer = os.pipe()
        files = [open(reader, "rb", 0), open(writer, "wb", 0)]
    else:
        path = tmp_path / "file"
        path.write_bytes(b"data")
        files = [open(path, "rb", 0), open(path, "r+b", 0)]
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.callback(file.close)
        yield files


@pytest.mark.usefixtures("needs_pipes")
@pytest.mark.parametrize("kind", ["pipe", "os.pipe", "file"])
class TestFilesThatWait:
    """What no operation can be asked of: who writes is told at once, who reads by its first read."""

    def test_reading(self, run: Run, kind: str, tmp_path: Path, reports: Reports) -> None:
        async def main() -> None:
            with files_that_wait(kind, tmp_path) as (file, _):
                transport, protocol = await asyncio.get_running_loop().connect_read_pipe(
                    Recorder, file
                )
                assert isinstance(await protocol.lost(), OSError)
                transport.close()
            reports.take()

        run(main)

    def test_writing(self, run: Run, backend: Backend, kind: str, tmp_path: Path) -> None:
        if backend.is_oracle:
            pytest.skip("asyncio leaves a transport behind, which warns when it is collected")

        async def main() -> None:
            with files_that_wait(kind, tmp_path) as (_, file):
                with pytest.raises(OSError, match="WinError"):
                    await asyncio.get_running_loop().connect_write_pipe(Recorder, file)

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


def test_pipes_without_them(loop: Any, backend: Backend) -> None:
    """Over a selector there are neither pipes nor processes, and this is said as asyncio says it."""
    if backend.has_pipes:
        pytest.skip("this loop has both")
    read_end, write_end = pipe_ends()
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
