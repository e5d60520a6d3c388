"""What a transport that reads a pipe may not miss, may not wait for, and may not keep open."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tty
from pathlib import Path
from typing import Any, Callable, Tuple

import pytest
from support.pipes import pipe_ends
from support.recorders import Recorder
from support.running import Run, turns
from support.sockets import tcp_pair

# Pipes of Windows have no descriptors that could be watched: those are in test_windows_pipes.py.
pytestmark = pytest.mark.unix("pipes by os.pipe() and os.mkfifo()")

Ends = Tuple[Any, Any]


def terminal_ends() -> Ends:
    """A pseudo-terminal that passes on what is written as it is."""
    master, terminal = os.openpty()
    tty.setraw(terminal)
    return open(terminal, "rb", 0), open(master, "wb", 0)


def socket_ends() -> Ends:
    return socket.socketpair()


async def reading(pipe: Any, factory: Callable[[], Any] = Recorder) -> Tuple[Any, Any]:
    return await asyncio.get_running_loop().connect_read_pipe(factory, pipe)


@pytest.mark.parametrize("ends", [pipe_ends, socket_ends])
def test_leaving_in_a_pause(run: Run, ends: Callable[[], Ends]) -> None:
    """Whoever writes sees that at once: nothing keeps the descriptor open."""

    async def main() -> None:
        reader, writer = ends()
        with reader, writer:
            transport, protocol = await reading(reader)
            os.write(writer.fileno(), b"data")
            await protocol.received(4)
            transport.pause_reading()
            await turns(3)
            transport.close()
            await protocol.lost()
            with pytest.raises(BrokenPipeError):
                os.write(writer.fileno(), b"nobody reads it")

    run(main)


def test_a_fifo_opened_again_after_a_pause(run: Run, tmp_path: Path) -> None:
    """The same number, of the same file."""

    async def main() -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        with open(os.open(path, os.O_RDWR), "wb", 0) as writer:
            for _ in range(3):
                reader = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
                transport, protocol = await reading(reader)
                writer.write(b"data")
                assert await protocol.received(4) == b"data"
                transport.pause_reading()
                transport.close()
                await protocol.lost()

    run(main)


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="pipes have no packets")
def test_packets(run: Run) -> None:
    """A read takes one of them, however many there are, and a sleep that ends for nothing changes nothing."""

    class HalfCloser(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            other.write_eof()

    async def main() -> None:
        nonlocal other
        left, right = tcp_pair()
        other, _ = await asyncio.get_running_loop().create_connection(Recorder, sock=left)
        await turns(3)
        number, writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        transport, protocol = await reading(open(number, "rb", 0), HalfCloser)
        for packet in (b"one", b"two", b"three"):
            os.write(writer, packet)
        assert await protocol.received(11) == b"onetwothree"
        assert protocol.events.count("data") == 3
        transport.close()
        other.close()
        right.close()
        os.close(writer)
        await turns(3)

    other: Any = None
    run(main)


@pytest.mark.parametrize("ends", [pipe_ends, socket_ends, terminal_ends])
def test_a_descriptor_that_blocks(run: Run, ends: Callable[[], Ends]) -> None:
    """Another process that has the same open file, a shell say, makes it so: the loop does not wait for data."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reader, writer = ends()
        first, trigger = os.pipe()

        def write_more() -> None:
            os.read(first, 1)
            os.write(writer.fileno(), b"second")

        transport, protocol = await reading(reader)
        loop.add_reader(first, write_more)
        await turns(3)
        os.set_blocking(reader.fileno(), True)
        # Both are told in the same turn, in whatever order: the transport reads what was written meanwhile, too.
        os.write(writer.fileno(), b"first")
        os.write(trigger, b"x")
        await protocol.received(11)
        await turns(20)
        assert protocol.data == b"firstsecond"
        loop.remove_reader(first)
        transport.close()
        os.close(first)
        os.close(trigger)
        await protocol.lost()
        writer.close()

    run(main)


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_dropping_a_transport_that_pauses(run: Run) -> None:
    """Nobody refers to it: not even the loop, which has nothing to tell it."""

    async def main() -> None:
        reader, writer = pipe_ends()
        transport, protocol = await reading(reader)
        writer.write(b"data")
        await protocol.received(4)
        transport.pause_reading()
        await turns(3)
        protocol.transport = None
        del transport, protocol
        gc.collect()
        assert reader.closed
        writer.close()

    run(main)
