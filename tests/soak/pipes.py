"""Pipes, FIFOs and terminals, as transports of either direction."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tempfile
import tty
from typing import Any, Iterator, Tuple

from soak.lifecycle import Round, lifecycle


def fifo() -> Tuple[int, int]:
    """Both ends of a named pipe."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fifo")
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return reading, os.open(path, os.O_WRONLY)


def terminal() -> Tuple[int, int]:
    """The two ends of a terminal that passes bytes as they are."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    return ours, theirs


@contextlib.contextmanager
def two_ends(round_: Round) -> Iterator[Tuple[Any, Any]]:
    """Two file objects, the first to read and the second to write; closed in the end."""
    reading, writing = round_.choose(os.pipe, os.pipe, fifo, terminal)()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    # A transport closes its file object; closing that twice does nothing.
    with open(reading, "rb", 0) as reader, open(writing, "wb", 0) as writer:
        yield reader, writer


def send(writer: Any, data: bytes) -> None:
    """Write to a plain file object as much as it takes."""
    with contextlib.suppress(OSError):
        os.write(writer.fileno(), data)


# A task that is cancelled closes the files under their transports.
@lifecycle(tolerates=(OSError,))
async def read_pipe(round_: Round) -> None:
    """connect_read_pipe(): data, pauses, the end of the writer, close."""
    with two_ends(round_) as (reader, writer):
        connecting = round_.loop.connect_read_pipe(round_.plain_protocol, reader)
        made = await round_.cut(connecting)
        if made is None:
            return
        transport, protocol = made
        send(writer, round_.data(4096))
        await round_.turns()
        if round_.chance(0.4) and not transport.is_closing():
            transport.pause_reading()
            send(writer, round_.data(4096))
            await round_.turns()
            if round_.chance(0.8) and not transport.is_closing():
                transport.resume_reading()
        if round_.chance(0.5):
            writer.close()
            await round_.turns()
        transport.close()
        await protocol.lost()


@lifecycle(tolerates=(OSError,))
async def write_pipe(round_: Round) -> None:
    """connect_write_pipe(): a reader that reads, does not read, or goes."""
    with two_ends(round_) as (reader, writer):
        connecting = round_.loop.connect_write_pipe(round_.plain_protocol, writer)
        made = await round_.cut(connecting)
        if made is None:
            return
        transport, protocol = made
        for _ in range(round_.dice.randrange(4)):
            transport.write(round_.data())
            await round_.turns()
            if round_.chance(0.5):
                with contextlib.suppress(OSError):
                    os.read(reader.fileno(), 65536)
        end = round_.choose("close", "abort", "reader", "eof")
        if end == "reader":
            reader.close()
            transport.write(b"x")
            await round_.turns()
        elif end == "eof" and not transport.is_closing():
            transport.write_eof()
        elif end == "close":
            transport.close()
        await round_.turns()
        # asyncio may tell of the end twice if what is closed and empty is aborted.
        if not transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()
        await protocol.lost()


@lifecycle()
async def pipe_between_transports(round_: Round) -> None:
    """A transport at each end: what is written arrives, then the end does."""
    reading, writing = os.pipe()
    reader, writer = open(reading, "rb", 0), open(writing, "wb", 0)
    received = round_.plain_protocol("lost")
    sent = round_.plain_protocol("lost", "pause", "resume")
    data = round_.data()
    receiving, _ = await round_.loop.connect_read_pipe(lambda: received, reader)
    sending, _ = await round_.loop.connect_write_pipe(lambda: sent, writer)
    sending.write(data)
    sending.write_eof()
    await asyncio.wait_for(received.until_event("eof"), 10)
    assert received.data == data
    receiving.close()
    await received.lost()
    await sent.lost()
