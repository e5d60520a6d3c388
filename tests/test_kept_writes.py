"""What a callback writes in several pieces, to a connection that has been written to like this before.

oxloop keeps it for the end of the callback, so that it leaves in one system call. Nothing else than
when it leaves may differ from asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import socket
import struct
import sys
import threading
import warnings
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest
from support.backends import Backend
from support.recorders import Recorder
from support.releases import ONE_CONTEXT
from support.running import Run, turns
from support.sockets import Peer, fill, listener, reset, tcp_pair

PIECES = [b"head ", bytearray(b"and "), memoryview(b"body")]
WHOLE = b"head and body"
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
# data_segs_out of struct tcp_info (linux/tcp.h).
SEGMENTS_OUT = 156


async def connected(
    factory: Callable[[], Any] = Recorder, *, used_to: bool = True
) -> Tuple[Any, Any, Peer]:
    """A transport with its protocol and peer, which is used to several writes a callback."""
    loop = asyncio.get_running_loop()
    with listener() as listening:
        transport, protocol = await loop.create_connection(factory, *listening.getsockname())
        accepted = listening.accept()[0]
    accepted.setblocking(False)
    peer = Peer(accepted)
    if used_to:
        transport.write(b"1")
        transport.write(b"2")
        await turns(1)
        assert await peer.receive(2) == b"12"
    return transport, protocol, peer


@contextlib.contextmanager
def closing(transport: Any, peer: Peer) -> Iterator[None]:
    """Both ends are closed after the block."""
    try:
        yield
    finally:
        transport.abort()
        peer.close()


def write_pieces(transport: Any) -> None:
    for piece in PIECES:
        transport.write(piece)


def segments(sock: Any) -> int:
    """How many segments with data a TCP socket has sent."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SEGMENTS_OUT + 4)
    count: int = struct.unpack_from("I", info, SEGMENTS_OUT)[0]
    return count


def test_pieces_arrive_in_order(run: Run) -> None:
    class Answering(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            for number in range(len(self.events) % 4):
                self.transport.write(b"%d" % number)
                self.transport.writelines([b"(", bytearray(b"%d" % number), b")"])
            self.transport.write(b".")

    async def main() -> None:
        transport, protocol, peer = await connected(Answering)
        with closing(transport, peer):
            for _ in range(50):
                await peer.send(b"x")
                expected = b"".join(
                    b"%d(%d)" % (n, n) for n in range((len(protocol.events) + 1) % 4)
                )
                assert await peer.receive(len(expected) + 1) == expected + b"."

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
@pytest.mark.parametrize("lines", [False, True])
def test_pieces_leave_together(run: Run, backend: Backend, *, lines: bool) -> None:
    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer):
            sock = transport.get_extra_info("socket")
            before = segments(sock)
            for _ in range(10):
                if lines:
                    transport.write(b"head ")
                    transport.writelines(PIECES[1:])
                else:
                    write_pieces(transport)
                await turns(1)
                assert await peer.receive(len(WHOLE)) == WHOLE
            each = 2 if lines else 3
            assert segments(sock) - before == (10 * each if backend.is_oracle else 10)

    run(main)


def test_a_single_write_leaves_at_once(run: Run) -> None:
    """Of a connection that nobody writes to twice in a callback, or has not for a while."""

    async def main() -> None:
        transport, _, peer = await connected(used_to=False)
        with closing(transport, peer):
            for number in range(40):
                transport.write(b"x")
                if not 20 < number < 37:
                    assert peer.sock.recv(10) == b"x"
                else:
                    await turns(1)
                    assert await peer.receive(1) == b"x"
                if number == 20:
                    await turns(1)
                    transport.write(b"y")
                    transport.write(b"y")
                    assert peer.sock.recv(10) == b"yy"
                await turns(1)

    run(main)


@pytest.mark.differs("what is written in several pieces is kept for the end of the callback")
def test_the_peer_sees_pieces_during_the_callback(run: Run) -> None:
    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer):
            write_pieces(transport)
            assert peer.sock.recv(100) == WHOLE

    run(main)


def test_the_size_of_the_buffer(run: Run) -> None:
    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer):
            write_pieces(transport)
            assert transport.get_write_buffer_size() == 0
            assert peer.sock.recv(100) == WHOLE

    run(main)


@pytest.mark.parametrize("high", [0, 10, None])
def test_nobody_is_told_to_pause(run: Run, high: Optional[int]) -> None:
    """Of what the kernel has room for nothing waits."""

    async def main() -> None:
        transport, protocol, peer = await connected()
        with closing(transport, peer):
            transport.set_write_buffer_limits(high)
            for size in (1, 7, 20_000):
                for _ in range(5):
                    transport.write(b"x" * size)
                assert "pause" not in protocol.events
                assert await peer.receive(5 * size) == b"x" * (5 * size)
            write_pieces(transport)
            transport.set_write_buffer_limits(1)
            assert "pause" not in protocol.events
            assert await peer.receive(len(WHOLE)) == WHOLE

    run(main)


def test_more_than_there_is_room_for(run: Run) -> None:
    async def main() -> None:
        transport, protocol, peer = await connected()
        with closing(transport, peer):
            filled = fill(transport.get_extra_info("socket")._sock)
            for _ in range(3):
                transport.write(b"x" * 30_000)
            await protocol.until_event("pause")
            assert transport.get_write_buffer_size() == 90_000
            await peer.receive(filled)
            assert await peer.receive(90_000) == b"x" * 90_000
            await protocol.until_event("resume")

    run(main)


def test_many_pieces(run: Run) -> None:
    """More than one system call takes."""

    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer):
            for number in range(1000):
                transport.write(b"%04d" % number)
            transport.writelines([b"%04d" % number for number in range(1000, 2000)])
            transport.write(b"last")
            expected = b"".join(b"%04d" % number for number in range(2000)) + b"last"
            assert await peer.receive(len(expected)) == expected

    run(main)


@pytest.mark.parametrize("end", ["close", "abort", "eof", "error", "read error"])
def test_what_ends_the_connection_comes_after_it(run: Run, end: str) -> None:
    class Last(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            write_pieces(self.transport)
            if end == "close":
                self.transport.close()
            elif end == "abort":
                self.transport.abort()
            elif end == "eof":
                self.transport.write_eof()
            elif end == "error":
                self.transport._force_close(OSError("mine"))
            else:
                raise OSError("mine")

    async def main() -> None:
        transport, _, peer = await connected(Last)
        with closing(transport, peer):
            await peer.send(b"go")
            assert await peer.receive_to_eof() == WHOLE

    run(main)


@pytest.mark.parametrize("end", ["return", "stop", "exit"])
def test_a_loop_that_stops(loop: Any, end: str) -> None:
    transport, _, peer = loop.run_until_complete(connected())

    def last() -> None:
        write_pieces(transport)
        if end == "exit":
            raise SystemExit(7)
        loop.stop()

    async def main() -> None:
        write_pieces(transport)

    with closing(transport, peer):
        if end == "return":
            loop.run_until_complete(main())
        else:
            loop.call_soon(last)
            with pytest.raises(SystemExit) if end == "exit" else contextlib.nullcontext():
                loop.run_forever()
        assert peer.sock.recv(100) == WHOLE


def test_a_loop_that_does_not_run(loop: Any) -> None:
    transport, _, peer = loop.run_until_complete(connected())
    with closing(transport, peer):
        write_pieces(transport)
        assert peer.sock.recv(100) == WHOLE


def test_another_thread_sends_at_once(run: Run) -> None:
    """asyncio forbids it; what was written is not to wait for a callback that may never come."""

    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer):
            thread = threading.Thread(target=write_pieces, args=(transport,))
            thread.start()
            thread.join()
            assert peer.sock.recv(100) == WHOLE

    run(main)


def test_pieces_before_a_file(run: Run, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"file")

    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer), path.open("rb") as file:
            write_pieces(transport)
            await asyncio.get_running_loop().sendfile(transport, file)
            transport.write(b" end")
            assert await peer.receive(len(WHOLE) + 8) == WHOLE + b"file end"

    run(main)


@pytest.mark.unix("fork")
def test_a_fork(run: Run) -> None:
    """What was written leaves once, whatever a child does with its copy."""

    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other tests have threads
            write_pieces(transport)
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            assert peer.sock.recv(100) == WHOLE
            transport.close()
            assert await peer.receive_to_eof() == b""

    run(main)


def test_the_context_in_which_an_error_is_told(run: Run) -> None:
    seen: List[str] = []

    class Told(Recorder):
        def connection_lost(self, exc: Any) -> None:
            super().connection_lost(exc)
            seen.append(VARIABLE.get())

    async def main() -> None:
        transport, protocol, peer = await connected(Told)
        with closing(transport, peer):
            transport.pause_reading()
            reset(peer.sock)

            def write() -> None:
                VARIABLE.set("of the write")
                write_pieces(transport)

            contextvars.copy_context().run(write)
            assert isinstance(await protocol.lost(), ConnectionError)
            assert seen == ["unset" if ONE_CONTEXT else "of the write"]

    run(main)


def test_what_is_done_to_the_socket_comes_after_what_was_written(run: Run) -> None:
    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer):
            write_pieces(transport)
            transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
            assert await peer.receive_to_eof() == WHOLE

    run(main)


def test_a_descriptor_that_is_written_to(run: Run) -> None:
    async def main() -> None:
        transport, _, peer = await connected()
        with closing(transport, peer):
            write_pieces(transport)
            fd = transport.get_extra_info("socket").fileno()
            for _ in range(3):
                other = socket.socket(fileno=fd)
                other.send(b"!")
                other.detach()
                write_pieces(transport)
            await turns(1)
            expected = WHOLE + (b"!" + WHOLE) * 3
            assert await peer.receive(len(expected)) == expected

    run(main)


def test_a_socket_of_the_users(run: Run) -> None:
    """Who has made the socket may write to it himself."""

    async def main() -> None:
        left, right = tcp_pair()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Recorder, sock=left)
        peer = Peer(right)
        with closing(transport, peer):
            for _ in range(3):
                write_pieces(transport)
                left.send(b"!")
                await turns(1)
                assert await peer.receive(len(WHOLE) + 1) == WHOLE + b"!"

    run(main)


def test_drain_sends(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            _, writer = await asyncio.open_connection(*listening.getsockname())
            with listening.accept()[0] as accepted:
                accepted.setblocking(False)
                for _ in range(3):
                    for piece in PIECES:
                        writer.write(piece)
                    await writer.drain()
                    assert accepted.recv(100) == WHOLE
                    await turns(1)
            writer.close()
            assert not loop.is_closed()

    run(main)


def test_a_broken_connection_is_closing(run: Run) -> None:
    async def main() -> None:
        transport, protocol, peer = await connected()
        with closing(transport, peer):
            transport.pause_reading()
            reset(peer.sock)
            write_pieces(transport)
            assert transport.is_closing()
            assert isinstance(await protocol.lost(), ConnectionError)

    run(main)


def test_more_pieces_than_a_system_call_takes(run: Run) -> None:
    async def main() -> None:
        transport, protocol, peer = await connected()
        with closing(transport, peer):
            for _ in range(3):
                transport.writelines([b"x" * 100] * 200)
                await turns(1)
                assert transport.get_write_buffer_size() == 0
                assert len(await peer.receive(20_000)) == 20_000
            assert "pause_writing" not in protocol.events

    run(main)
