"""The contract of a stream transport, applied to every kind that there is.

It is asyncio's documentation of Transport, Protocol and BufferedProtocol, one behaviour a test. A kind
of transport subclasses `StreamContract` and says how a connected one and its peer are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import math
import socket
import threading
import warnings
import weakref
from asyncio.trsock import TransportSocket
from dataclasses import dataclass
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, List, Optional, Type

import pytest

from support.backends import GIL, PY312, Backend
from support.platforms import WINDOWS
from support.recorders import BufferedRecorder, Recorder, Recording
from support.releases import ONE_CONTEXT, since
from support.reports import Reports
from support.running import Run, turns
from support.sockets import Peer
from support.threads import call_while_waiting

MEGABYTE = bytes(range(256)) * 4096
#: From these on `write` says which types it takes (gh-138703).
NAMES_TYPES = (3, 13, 8), (3, 14, 1)
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@dataclass
class Link:
    """A connected transport with its protocol, and the peer at the other end."""

    transport: Any
    protocol: Any
    peer: Peer

    async def block(self) -> int:
        """Write until more than the default high-water mark is buffered; the bytes written."""
        written = 0
        while self.transport.get_write_buffer_size() <= 65536:
            self.transport.write(MEGABYTE)
            written += len(MEGABYTE)
            await turns(1)  # what is buffered for this turn only leaves
        return written


class StreamContract:
    """Tests of a stream transport; `open` makes one."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """A connected transport of the kind under test."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def link(self, factory: Callable[[], Any] = Recorder) -> AsyncIterator[Link]:
        """A connected transport that is gone, with its peer, after the block."""
        link = await self.open(factory)
        try:
            yield link
        finally:
            if not link.transport.is_closing():
                link.transport.abort()
            link.peer.close()
            await turns(3)

    # What a transport is

    def test_it_is_asyncios_transport_to_isinstance(self, run: Run) -> None:
        """Types that pass asyncio's `isinstance` checks."""

        async def main() -> None:
            async with self.link() as link:
                assert isinstance(link.transport, asyncio.Transport)
                assert isinstance(link.transport, asyncio.ReadTransport)
                assert isinstance(link.transport, asyncio.WriteTransport)
                assert isinstance(link.transport, asyncio.BaseTransport)
                assert not isinstance(link.transport, asyncio.DatagramTransport)

        run(main)

    def test_it_takes_new_attributes(self, run: Run) -> None:
        """Transports take new attributes."""

        async def main() -> None:
            async with self.link() as link:
                link.transport.colour = "red"
                assert link.transport.colour == "red"
                assert weakref.ref(link.transport)() is link.transport

        run(main)

    def test_it_takes_replaced_methods(self, run: Run) -> None:
        """Transports take replaced methods (`transport.write = ...`)."""

        async def main() -> None:
            async with self.link() as link:
                written: List[bytes] = []
                original = link.transport.write

                def write(data: bytes) -> None:
                    written.append(data)
                    original(data.upper())

                link.transport.write = write
                link.transport.write(b"data")
                assert written == [b"data"]
                assert await link.peer.receive(4) == b"DATA"
                del link.transport.write
                link.transport.write(b"data")
                assert await link.peer.receive(4) == b"data"

        run(main)

    def test_it_can_be_hashed_and_compared_by_identity(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as first, self.link() as second:
                assert first.transport == first.transport  # noqa: PLR0124
                assert first.transport != second.transport
                assert len({first.transport, second.transport}) == 2

        run(main)

    def test_its_repr_tells_its_state(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                assert f"fd={link.transport.get_extra_info('socket').fileno()}" in repr(
                    link.transport
                )
                link.transport.close()
                assert " closing " in repr(link.transport)
                await link.protocol.lost()
                await turns(1)
                assert " closed " in repr(link.transport)

        run(main)

    def test_extra_information(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                info = link.transport.get_extra_info
                assert isinstance(info("socket"), TransportSocket)
                assert info("sockname") == link.peer.sock.getpeername()
                assert info("peername") == link.peer.sock.getsockname()
                assert info("no such key") is None
                assert info("no such key", "default") == "default"
                assert info("sslcontext") is None
                link.transport.close()
                await link.protocol.lost()
                assert info("peername") == link.peer.sock.getsockname()

        run(main)

    def test_the_socket_of_the_extra_information_when_all_is_over(self, run: Run) -> None:
        """It is closed, and still there."""

        async def main() -> None:
            async with self.link() as link:
                info = link.transport.get_extra_info
                link.transport.abort()
                await link.protocol.lost()
                await turns(1)
                assert info("socket").fileno() == -1
                assert info("socket").family == link.peer.sock.family
                assert info("socket").type == socket.SOCK_STREAM

        run(main)

    def test_the_socket_of_the_extra_information_is_guarded(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                sock = link.transport.get_extra_info("socket")
                assert sock.gettimeout() == 0
                with pytest.raises(ValueError, match="cannot be blocking"):
                    sock.setblocking(True)
                with pytest.raises(ValueError, match="only 0 timeout is allowed"):
                    sock.settimeout(1)

        run(main)

    def test_the_socket_of_the_extra_information_cannot_be_made(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the transport makes it on demand, that fails: the connection goes on."""

        def fail(*args: Any, **kwargs: Any) -> None:
            raise MemoryError

        async def main() -> None:
            async with self.link() as link:
                with monkeypatch.context() as patch, contextlib.suppress(MemoryError):
                    patch.setattr(socket.socket, "__init__", fail)
                    link.transport.get_extra_info("socket")
                link.transport.write(b"alive")
                assert await link.peer.receive(5) == b"alive"
                await link.peer.send(b"x")
                assert await link.protocol.received(1) == b"x"
                assert link.transport.get_extra_info("socket").fileno() >= 0

        run(main)

    def test_writing_while_the_socket_of_the_extra_information_is_made(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the transport makes it on demand, Python code runs meanwhile."""
        writes: List[Callable[[], None]] = []
        original = socket.socket.__init__

        def write(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            writes.pop()()

        async def main() -> None:
            async with self.link() as link:
                writes.append(lambda: link.transport.write(b"meanwhile"))
                with monkeypatch.context() as patch:
                    patch.setattr(socket.socket, "__init__", write)
                    link.transport.get_extra_info("socket")
                while writes:  # asyncio has had it all the time
                    writes.pop()()
                link.transport.write(b", then")
                assert await link.peer.receive(15) == b"meanwhile, then"

        run(main)

    # The order of callbacks

    def test_connection_made_comes_first_and_once(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                assert link.protocol.events == ["made"]
                assert link.protocol.transport is link.transport
                await link.peer.send(b"x")
                link.peer.send_eof()
                await link.protocol.lost()
                assert link.protocol.events == ["made", "data", "eof", "lost"]

        run(main)

    def test_nothing_comes_after_connection_lost(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                await link.peer.send(b"x")
                link.transport.abort()
                await link.protocol.lost()
                events = list(link.protocol.events)
                await turns(5)
                assert link.protocol.events == events
                assert events.count("lost") == 1

        run(main)

    def test_callbacks_run_in_the_context_of_who_connected(self, run: Run) -> None:
        class Contextual(Recorder):
            seen: List[str]

            def connection_made(self, transport: Any) -> None:
                self.seen = [VARIABLE.get()]
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                self.seen.append(VARIABLE.get())
                super().data_received(data)

        async def main() -> None:
            VARIABLE.set("the connecting task's")
            async with self.link(Contextual) as link:
                await link.peer.send(b"x")
                await link.protocol.received(1)
                assert link.protocol.seen == ["the connecting task's"] * 2

        run(main)

    def test_what_connection_made_sets(self, run: Run) -> None:
        """It is seen by data_received() where there is one context for both; otherwise each runs in a
        copy of its own of the context that they were arranged in.
        """

        class Setting(Recorder):
            def connection_made(self, transport: Any) -> None:
                VARIABLE.set("connection_made's")
                super().connection_made(transport)

        assert self.seen_by_data_received(run, Setting) == [
            "connection_made's" if ONE_CONTEXT else "the test's"
        ]

    def test_what_data_received_sets_is_seen_by_the_next_one(self, run: Run) -> None:
        """The loop watches the socket once: its calls share a context."""

        async def again(link: Link) -> None:
            VARIABLE.set("set later")
            await link.peer.send(b"y")
            await link.protocol.received(2)

        seen = self.seen_by_data_received(run, Recorder, again, "data_received's")
        assert seen == ["the test's", "data_received's"]

    def test_the_context_of_data_received_after_a_pause(self, run: Run) -> None:
        async def again(link: Link) -> None:
            link.transport.pause_reading()
            VARIABLE.set("the resuming task's")
            link.transport.resume_reading()
            VARIABLE.set("set later")
            await link.peer.send(b"y")
            await link.protocol.received(2)

        seen = self.seen_by_data_received(run, Recorder, again, "data_received's")
        assert seen == [
            "the test's",
            "data_received's" if ONE_CONTEXT else "the resuming task's",
        ]

    def seen_by_data_received(
        self,
        run: Run,
        factory: Any,
        more: Optional[Callable[[Link], Awaitable[None]]] = None,
        sets: Optional[str] = None,
    ) -> List[str]:
        """The variable in each data_received(), which sets it to `sets`, of one byte and of `more`."""
        seen: List[str] = []

        class Contextual(factory):  # type: ignore[misc]
            def data_received(self, data: bytes) -> None:
                seen.append(VARIABLE.get())
                if sets is not None:
                    VARIABLE.set(sets)
                super().data_received(data)

        async def main() -> None:
            VARIABLE.set("the test's")
            async with self.link(Contextual) as link:
                await link.peer.send(b"x")
                await link.protocol.received(1)
                if more is not None:
                    await more(link)

        run(main)
        return seen

    def test_the_context_of_resume_writing(self, run: Run) -> None:
        seen: List[str] = []

        class Contextual(Recorder):
            def resume_writing(self) -> None:
                seen.append(VARIABLE.get())
                super().resume_writing()

        async def main() -> None:
            VARIABLE.set("the connecting task's")
            async with self.link(Contextual) as link:
                VARIABLE.set("the writing task's")
                written = await link.block()
                VARIABLE.set("set later")
                assert len(await link.peer.receive(written)) == written
                await link.protocol.until_event("resume")

        run(main)
        assert seen == ["the connecting task's" if ONE_CONTEXT else "the writing task's"]

    @pytest.mark.parametrize("method", ["close", "abort"])
    def test_the_context_of_connection_lost(self, run: Run, method: str) -> None:
        seen: List[str] = []

        class Contextual(Recorder):
            def data_received(self, data: bytes) -> None:
                VARIABLE.set("data_received's")
                super().data_received(data)

            def connection_lost(self, exc: Optional[BaseException]) -> None:
                seen.append(VARIABLE.get())
                super().connection_lost(exc)

        async def main() -> None:
            VARIABLE.set("the connecting task's")
            async with self.link(Contextual) as link:
                await link.peer.send(b"x")
                await link.protocol.received(1)
                VARIABLE.set("the closing task's")
                getattr(link.transport, method)()
                VARIABLE.set("set later")
                await link.protocol.lost()

        run(main)
        assert seen == ["data_received's" if ONE_CONTEXT else "the closing task's"]

    def test_connection_lost_after_eof_runs_in_the_readers_context(self, run: Run) -> None:
        seen: List[str] = []

        class Contextual(Recorder):
            def data_received(self, data: bytes) -> None:
                VARIABLE.set("data_received's")
                super().data_received(data)

            def connection_lost(self, exc: Optional[BaseException]) -> None:
                seen.append(VARIABLE.get())
                super().connection_lost(exc)

        async def main() -> None:
            async with self.link(Contextual) as link:
                await link.peer.send(b"x")
                link.peer.send_eof()
                await link.protocol.lost()

        run(main)
        assert seen == ["data_received's"]

    # Reading

    def test_data_arrives_in_order(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                for number in range(100):
                    await link.peer.send(b"%04d" % number)
                assert await link.protocol.received(400) == b"".join(
                    b"%04d" % number for number in range(100)
                )

        run(main)

    def test_large_data_arrives_whole(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                sending = asyncio.ensure_future(link.peer.send(MEGABYTE * 3))
                assert await link.protocol.received(3 * len(MEGABYTE)) == MEGABYTE * 3
                await sending

        run(main)

    def test_received_data_stays_what_it_was(self, run: Run) -> None:
        """Each data_received() gets bytes of its own, also where the loop's buffer is shared."""
        chunks: List[bytes] = []

        class Keeping(Recorder):
            def data_received(self, data: bytes) -> None:
                chunks.append(data)
                super().data_received(data)

        async def main() -> None:
            async with self.link(Keeping) as link:
                for letter in (b"a", b"b", b"c"):
                    await link.peer.send(letter * 1000)
                    count = len(link.protocol.data)
                    await link.protocol.received(count + 1)
                await link.protocol.received(3000)
                assert b"".join(chunks) == b"a" * 1000 + b"b" * 1000 + b"c" * 1000

        run(main)

    def test_pause_reading_holds_data_back(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.pause_reading()
                assert not link.transport.is_reading()
                await link.peer.send(b"held back")
                await turns(5)
                assert link.protocol.events == ["made"]
                link.transport.resume_reading()
                assert link.transport.is_reading()
                assert await link.protocol.received(9) == b"held back"

        run(main)

    def test_pause_and_resume_reading_can_be_repeated(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                assert link.transport.is_reading()
                link.transport.resume_reading()
                link.transport.pause_reading()
                link.transport.pause_reading()
                assert not link.transport.is_reading()
                link.transport.resume_reading()
                link.transport.resume_reading()
                assert link.transport.is_reading()
                await link.peer.send(b"x")
                await link.protocol.received(1)
                link.transport.close()
                assert not link.transport.is_reading()
                link.transport.pause_reading()
                link.transport.resume_reading()
                assert not link.transport.is_reading()

        run(main)

    def test_pause_reading_from_data_received(self, run: Run) -> None:
        class Pausing(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                self.transport.pause_reading()

        async def main() -> None:
            async with self.link(Pausing) as link:
                await link.peer.send(b"one")
                await link.protocol.received(3)
                await link.peer.send(b"two")
                await turns(5)
                assert link.protocol.data == b"one"
                link.transport.resume_reading()
                assert await link.protocol.received(6) == b"onetwo"

        run(main)

    def test_pause_reading_from_connection_made(self, run: Run, backend: Backend) -> None:
        if backend.is_oracle and not PY312:
            pytest.skip("asyncio starts to read all the same before Python 3.12")

        class Paused(Recorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                transport.pause_reading()

        async def main() -> None:
            async with self.link(Paused) as link:
                await link.peer.send(b"held back")
                await turns(5)
                assert link.protocol.events == ["made"]
                link.transport.resume_reading()
                assert await link.protocol.received(9) == b"held back"

        run(main)

    def test_data_and_eof_that_came_while_paused_are_delivered(self, run: Run) -> None:
        """Data that came before EOF while reading was paused is delivered."""

        async def main() -> None:
            async with self.link() as link:
                link.transport.pause_reading()
                await link.peer.send(b"last words")
                link.peer.close()
                await turns(5)
                assert link.protocol.events == ["made"]
                link.transport.resume_reading()
                assert await link.protocol.lost() is None
                assert link.protocol.data == b"last words"
                assert link.protocol.events == ["made", "data", "eof", "lost"]

        run(main)

    def test_data_before_an_eof_is_delivered_first(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                sending = asyncio.ensure_future(link.peer.send(MEGABYTE))
                sending.add_done_callback(lambda _: link.peer.close())
                assert await link.protocol.lost() is None
                assert link.protocol.data == MEGABYTE

        run(main)

    # EOF

    @pytest.mark.parametrize("answer", [False, None])
    def test_eof_closes_unless_the_protocol_keeps_the_transport(
        self, run: Run, answer: Any
    ) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.protocol.keep_open = answer
                link.peer.send_eof()
                assert await link.protocol.lost() is None
                assert link.protocol.events == ["made", "eof", "lost"]
                assert await link.peer.receive_to_eof() == b""

        run(main)

    def test_a_transport_kept_after_eof_still_writes(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.protocol.keep_open = True
                link.peer.send_eof()
                await link.protocol.until_event("eof")
                await turns(5)
                assert link.protocol.events == ["made", "eof"]
                assert not link.transport.is_closing()
                link.transport.write(b"answer")
                assert await link.peer.receive(6) == b"answer"
                link.transport.close()
                assert await link.protocol.lost() is None
                assert await link.peer.receive_to_eof() == b""

        run(main)

    def test_a_transport_kept_after_eof_does_not_spin(self, run: Run) -> None:
        """EOF is a level: it must not be reported again, nor keep the loop from waiting."""

        async def main() -> None:
            async with self.link() as link:
                link.protocol.keep_open = True
                link.peer.send_eof()
                await link.protocol.until_event("eof")
                await asyncio.sleep(0.01)
                assert link.protocol.events == ["made", "eof"]

        run(main)

    def test_eof_flushes_what_was_written_before_it_closes(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                written = await link.block()
                link.peer.send_eof()
                await link.protocol.until_event("eof")
                assert len(await link.peer.receive_to_eof()) == written
                assert await link.protocol.lost() is None

        run(main)

    def test_write_eof_shuts_the_writing_side_down(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                assert link.transport.can_write_eof() is True
                link.transport.write(b"last words")
                link.transport.write_eof()
                link.transport.write_eof()
                assert await link.peer.receive_to_eof() == b"last words"
                assert not link.transport.is_closing()
                await link.peer.send(b"answer")
                assert await link.protocol.received(6) == b"answer"

        run(main)

    def test_write_eof_flushes_first(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                written = await link.block()
                link.transport.write_eof()
                assert len(await link.peer.receive_to_eof()) == written

        run(main)

    def test_writing_after_write_eof_is_refused(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.write_eof()
                with pytest.raises(
                    RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"
                ):
                    link.transport.write(b"x")
                with pytest.raises(
                    RuntimeError, match=r"Cannot call write(lines)?\(\) after write_"
                ):
                    link.transport.writelines([b"x"])

        run(main)

    def test_write_eof_after_close_does_nothing(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.close()
                link.transport.write_eof()
                assert await link.protocol.lost() is None
                link.transport.write_eof()

        run(main)

    # Writing

    @pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
    def test_bytes_like_objects_are_written(self, run: Run, convert: Any) -> None:
        async def main() -> None:
            async with self.link() as link:
                assert link.transport.write(convert(b"data")) is None
                assert await link.peer.receive(4) == b"data"

        run(main)

    @pytest.mark.parametrize("wrong", ["text", 5, None, [b"x"], 1.5], ids=repr)
    @pytest.mark.usefixtures("of_one_release")
    def test_other_types_are_refused(self, run: Run, wrong: Any) -> None:
        """Wrong arguments raise asyncio's exception with its text."""
        wanted = "bytes, bytearray, or memoryview" if since(*NAMES_TYPES) else "bytes-like"

        async def main() -> None:
            async with self.link() as link:
                text = f"data argument must be a {wanted} object, not '{type(wrong).__name__}'"
                with pytest.raises(TypeError, match=text):
                    link.transport.write(wrong)
                link.transport.write(b"alive")
                assert await link.peer.receive(5) == b"alive"

        run(main)

    def test_nothing_can_be_written(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.write(b"")
                link.transport.writelines([])
                link.transport.writelines([b"", b""])
                link.transport.write(b"x")
                assert await link.peer.receive(1) == b"x"

        run(main)

    def test_writes_arrive_in_order(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                expected = b""
                for number in range(200):
                    data = b"%06d" % number
                    expected += data * 3
                    link.transport.write(data)
                    link.transport.writelines([data, bytearray(data)])
                assert await link.peer.receive(len(expected)) == expected

        run(main)

    def test_writelines_takes_any_sequence_of_many(self, run: Run) -> None:
        """More buffers than one writev(2) takes (IOV_MAX is 1024)."""

        async def main() -> None:
            async with self.link() as link:
                lines = [b"%05d" % number for number in range(3000)]
                link.transport.writelines(tuple(lines))
                assert await link.peer.receive(15000) == b"".join(lines)

        run(main)

    def test_writelines_refuses_what_is_not_bytes_like(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                for wrong in (["text"], [b"x", 5], 5):
                    with pytest.raises(TypeError):
                        link.transport.writelines(wrong)

        run(main)

    @pytest.mark.usefixtures("of_one_release")
    @pytest.mark.parametrize("false", [None, "", 0, []], ids=repr)
    def test_writelines_of_what_is_false(self, run: Run, false: Any) -> None:
        """From Python 3.14.8 on asyncio looks at no chunk that is false (gh-155888)."""

        async def main() -> None:
            async with self.link() as link:
                if since((3, 14, 8)):
                    link.transport.writelines([false, b"x", false])
                    assert await link.peer.receive(1) == b"x"
                    assert link.transport.get_write_buffer_size() == 0
                else:
                    with pytest.raises(TypeError):
                        link.transport.writelines([false, b"x", false])

        run(main)

    def test_writelines_with_an_empty_chunk_at_the_end(self, run: Run, backend: Backend) -> None:
        """gh-155888: it is nothing that the end of the connection waits for."""
        if backend.is_oracle and PY312 and not since((3, 14, 8)):
            pytest.skip("asyncio waits for ever until Python 3.14.8")

        async def main() -> None:
            async with self.link() as link:
                link.transport.writelines([b"x", b""])
                assert link.transport.get_write_buffer_size() == 0
                link.transport.close()
                assert await link.peer.receive_to_eof() == b"x"
                assert await link.protocol.lost() is None

        run(main)

    def test_write_takes_one_argument(self, run: Run) -> None:
        """The second one is not silently dropped, nor is a keyword of call_soon()'s taken."""

        async def main() -> None:
            async with self.link() as link:
                with pytest.raises(
                    TypeError, match=r"write\(\) takes 2 positional arguments but 3"
                ):
                    link.transport.write(b"a", b"b")
                with pytest.raises(TypeError, match="unexpected keyword argument 'context'"):
                    link.transport.write(b"a", context=1)
                with pytest.raises(TypeError, match="missing 1 required positional argument"):
                    link.transport.write()
                link.transport.write(data=b"c")
                assert await link.peer.receive(1) == b"c"

        run(main)

    def test_the_texts_of_what_writelines_refuses(self, run: Run) -> None:
        """asyncio joins the lines before Python 3.12, and sends them as they are since."""

        async def main() -> None:
            async with self.link() as link:
                text = "sequence item 0: expected a bytes-like object, str found"
                if PY312:
                    text = "memoryview: a bytes-like object is required, not 'str'"
                with pytest.raises(TypeError) as caught:
                    link.transport.writelines(["text"])
                assert str(caught.value) == text
                link.transport.write_eof()
                name = "writelines" if PY312 else "write"
                with pytest.raises(RuntimeError) as refused:
                    link.transport.writelines([b"x"])
                assert str(refused.value) == f"Cannot call {name}() after write_eof()"

        run(main)

    def test_large_writes_arrive_whole(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                for _ in range(4):
                    link.transport.write(MEGABYTE)
                link.transport.write(b"end")
                got = await link.peer.receive(4 * len(MEGABYTE) + 3)
                assert got == MEGABYTE * 4 + b"end"

        run(main)

    def test_a_mutable_buffer_may_be_changed_after_write(self, run: Run, backend: Backend) -> None:
        """Mutable buffers are snapshotted."""
        if backend.is_oracle and PY312:
            pytest.skip("asyncio keeps a view of a bytearray since Python 3.12")

        async def main() -> None:
            async with self.link() as link:
                written = await link.block()
                buffer = bytearray(b"before")
                link.transport.write(buffer)
                link.transport.write(memoryview(buffer)[:3])
                buffer[:] = b"after!"
                buffer.extend(b"resized")
                got = await link.peer.receive(written + 9)
                assert got[written:] == b"beforebef"

        run(main)

    def test_what_was_written_is_on_its_way_without_another_turn_of_ours(self, run: Run) -> None:
        """`drain`, `close` and a stopping loop see to it that what was written is on its way."""

        async def main() -> Link:
            link = await self.open(Recorder)
            link.transport.write(b"then the loop stops")
            return link

        async def stop(link: Link) -> None:
            link.transport.write(b", twice")

        def check(loop: Any) -> None:
            link = loop.run_until_complete(main())
            assert link.peer.sock.recv(100) == b"then the loop stops"
            loop.run_until_complete(stop(link))
            assert link.peer.sock.recv(100) == b", twice"
            link.transport.abort()
            link.peer.close()

        async def nothing() -> None:
            await turns(3)

        run(nothing, prepare=check)

    def test_a_write_from_another_thread_does_not_crash(self, run: Run) -> None:
        """Seen elsewhere: a transport touched from another thread aborts the process."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with self.link() as link:
                errors: List[BaseException] = []

                def work() -> None:
                    for call in (
                        lambda: link.transport.write(b"x"),
                        link.transport.is_closing,
                        link.transport.get_write_buffer_size,
                        lambda: link.transport.get_extra_info("peername"),
                        lambda: repr(link.transport),
                        link.transport.pause_reading,
                        link.transport.resume_reading,
                        link.transport.close,
                    ):
                        try:
                            call()
                        except RuntimeError as error:
                            errors.append(error)

                thread = threading.Thread(target=work)
                thread.start()
                await loop.run_in_executor(None, thread.join)

        run(main)

    def test_a_large_write_from_another_thread_while_the_loop_waits(self, run: Run) -> None:
        """It is done, or it is refused before a byte is sent; the connection lives either way.

        Without a GIL it takes to know that the loop waits: one that begins to in the middle of a write refuses its end.
        """
        if WINDOWS and not GIL:
            pytest.skip("Windows does not tell whether a thread waits")

        async def main() -> None:
            async with self.link() as link:
                data = MEGABYTE * 16
                refused = await call_while_waiting(lambda: link.transport.write(data))
                expected = b"" if refused else data
                link.transport.write(b"alive")
                assert await link.peer.receive(len(expected) + 5) == expected + b"alive"
                link.transport.close()
                assert await link.protocol.lost() is None

        run(main)

    def test_resuming_from_another_thread_while_the_loop_waits(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.pause_reading()
                refused = await call_while_waiting(link.transport.resume_reading)
                assert link.transport.is_reading() is not bool(refused)
                link.transport.resume_reading()
                await link.peer.send(b"x")
                assert await link.protocol.received(1) == b"x"
                assert link.protocol.events == ["made", "data"]

        run(main)

    @pytest.mark.parametrize("method", ["close", "abort"])
    def test_closing_from_another_thread_while_the_loop_waits(self, run: Run, method: str) -> None:
        """It is done, or it is refused and nothing has changed."""

        async def main() -> None:
            async with self.link() as link:
                refused = await call_while_waiting(getattr(link.transport, method))
                assert link.transport.is_closing() is not bool(refused)
                getattr(link.transport, method)()
                assert await link.protocol.lost() is None
                assert await link.peer.receive_to_eof() == b""

        run(main)

    # Flow control

    def test_the_default_limits(self, run: Run) -> None:
        """asyncio docs: 64 KiB and a quarter of it, in bytes."""

        async def main() -> None:
            async with self.link() as link:
                assert link.transport.get_write_buffer_limits() == (16384, 65536)
                assert link.transport.get_write_buffer_size() == 0

        run(main)

    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            ({}, (16384, 65536)),
            ({"high": 4000}, (1000, 4000)),
            ({"low": 1000}, (1000, 4000)),
            ({"high": 4000, "low": 10}, (10, 4000)),
            ({"high": 0}, (0, 0)),
            ({"high": 7}, (1, 7)),
            ({"high": 5, "low": 5}, (5, 5)),
            ({"high": 8000 / 2}, (1000, 4000)),
            ({"low": 1e3}, (1000, 4000)),
        ],
        ids=repr,
    )
    def test_set_write_buffer_limits(
        self, run: Run, limits: Dict[str, float], expected: Any
    ) -> None:
        """Seen elsewhere: low-water mark in the wrong unit."""

        async def main() -> None:
            async with self.link() as link:
                link.transport.set_write_buffer_limits(**limits)
                assert link.transport.get_write_buffer_limits() == expected

        run(main)

    @pytest.mark.parametrize("high", [1 << 70, math.inf], ids=repr)
    def test_a_limit_beyond_all_sizes(self, run: Run, high: float) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.set_write_buffer_limits(high=high, low=0)
                link.transport.write(MEGABYTE * 8)
                assert link.protocol.events == ["made"]

        run(main)

    @pytest.mark.differs("no quarter of infinity is known to be less than it")
    def test_no_limit_and_its_quarter(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                with pytest.raises(ValueError, match="high .inf. must be >= low .nan. must be"):
                    link.transport.set_write_buffer_limits(high=math.inf)

        run(main)

    @pytest.mark.parametrize(
        "limits",
        [{"high": 1, "low": 2}, {"high": -1}, {"low": -1}, {"high": -0.5}, {"high": math.nan}],
        ids=repr,
    )
    def test_wrong_limits_are_refused(self, run: Run, limits: Dict[str, float]) -> None:
        async def main() -> None:
            async with self.link() as link:
                with pytest.raises(
                    ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >="
                ):
                    link.transport.set_write_buffer_limits(**limits)
                assert link.transport.get_write_buffer_limits() == (16384, 65536)

        run(main)

    def test_pause_and_resume_writing_alternate(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                written = await link.block()
                assert link.protocol.events == ["made", "pause"]
                link.transport.write(MEGABYTE)
                assert link.protocol.events == ["made", "pause"]
                assert link.transport.get_write_buffer_size() > len(MEGABYTE)
                await link.peer.receive(written + len(MEGABYTE))
                await link.protocol.until_event("resume")
                assert link.protocol.events == ["made", "pause", "resume"]
                assert link.transport.get_write_buffer_size() <= 16384

        run(main)

    def test_resume_writing_comes_at_the_low_water_mark(self, run: Run) -> None:
        """Seen elsewhere: low-water mark in the wrong unit: it counts bytes."""

        async def main() -> None:
            sizes: List[int] = []

            class Measuring(Recorder):
                def resume_writing(self) -> None:
                    sizes.append(self.transport.get_write_buffer_size())
                    super().resume_writing()

            async with self.link(Measuring) as link:
                link.transport.set_write_buffer_limits(high=600_000, low=300_000)
                written = await link.block()
                while "pause" not in link.protocol.events:
                    link.transport.write(b"x" * 1000)
                    written += 1000
                    assert link.transport.get_write_buffer_size() <= 601_000 + len(MEGABYTE)
                left = link.transport.get_write_buffer_size()
                await link.peer.receive(left - 300_000 - 50_000)
                await link.peer.receive(written - (left - 300_000 - 50_000))
                await link.protocol.until_event("resume")
                assert sizes[0] <= 300_000

        run(main)

    def test_a_high_water_mark_of_zero_pauses_at_once(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.set_write_buffer_limits(high=0)
                written = await link.block()
                assert "pause" in link.protocol.events
                await link.peer.receive(written)
                await link.protocol.until_event("resume")
                await turns(2)
                assert link.transport.get_write_buffer_size() == 0

        run(main)

    def test_lower_limits_pause_at_once(self, run: Run, backend: Backend) -> None:
        if backend.is_oracle and not PY312:
            pytest.skip("asyncio looks at new limits at the next write before Python 3.12")

        async def main() -> None:
            async with self.link() as link:
                link.transport.set_write_buffer_limits(high=1 << 30)
                await link.block()
                assert link.protocol.events == ["made"]
                link.transport.set_write_buffer_limits(high=10)
                assert link.protocol.events == ["made", "pause"]

        run(main)

    def test_writing_from_resume_writing(self, run: Run) -> None:
        class Refilling(Recorder):
            def resume_writing(self) -> None:
                super().resume_writing()
                if self.events.count("resume") == 1:
                    for _ in range(3):
                        self.transport.write(MEGABYTE)
                    asyncio.get_running_loop().call_soon(self.transport.close)

        async def main() -> None:
            async with self.link(Refilling) as link:
                written = await link.block()
                got = await link.peer.receive_to_eof()
                assert len(got) == written + 3 * len(MEGABYTE)
                assert await link.protocol.lost() is None

        run(main)

    def test_closing_from_resume_writing(self, run: Run, backend: Backend) -> None:
        """gh-156512: nothing is lost twice."""
        if backend.is_oracle and not since((3, 14, 8)):
            pytest.skip("asyncio calls connection_lost() twice until Python 3.14.8")

        class Leaving(Recorder):
            def resume_writing(self) -> None:
                super().resume_writing()
                self.transport.close()

        async def main() -> None:
            async with self.link(Leaving) as link:
                written = await link.block()
                assert len(await link.peer.receive_to_eof()) == written
                await link.protocol.lost()
                await turns(3)
                assert link.protocol.events == ["made", "pause", "resume", "lost"]

        run(main)

    # Closing

    def test_close_calls_connection_lost_later_with_none(self, run: Run) -> None:
        """Seen elsewhere: `connection_lost` runs inside `close()`."""

        async def main() -> None:
            async with self.link() as link:
                assert not link.transport.is_closing()
                assert link.transport.close() is None
                assert link.transport.is_closing()
                assert link.protocol.events == ["made"]
                assert await link.protocol.lost() is None
                assert link.protocol.events == ["made", "lost"]

        run(main)

    def test_close_can_be_repeated(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                for _ in range(3):
                    link.transport.close()
                await link.protocol.lost()
                link.transport.close()
                link.transport.abort()
                await turns(3)
                assert link.protocol.events == ["made", "lost"]

        run(main)

    def test_close_sends_a_fin_while_references_live(self, run: Run) -> None:
        """Seen elsewhere: `transport.close()` sends no FIN while a reference lives."""

        async def main() -> None:
            async with self.link() as link:
                references = [link.transport, link.transport.get_extra_info("socket")]
                link.transport.close()
                assert await link.peer.receive_to_eof() == b""
                assert len(references) == 2

        run(main)

    def test_close_flushes_first(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                written = await link.block()
                link.transport.close()
                await turns(3)
                assert "lost" not in link.protocol.events
                assert len(await link.peer.receive_to_eof()) == written
                assert await link.protocol.lost() is None

        run(main)

    def test_close_stops_reading(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                await link.block()
                link.transport.close()
                await link.peer.send(b"too late")
                await turns(5)
                assert link.protocol.data == b""

        run(main)

    def test_write_after_close_is_dropped_with_a_warning(
        self, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Seen elsewhere: `write()` after close raises where asyncio warns and drops."""

        async def main() -> None:
            async with self.link() as link:
                link.transport.close()
                with caplog.at_level(logging.WARNING, "asyncio"):
                    for _ in range(8):
                        link.transport.write(b"dropped")
                assert await link.peer.receive_to_eof() == b""
                await link.protocol.lost()
                link.transport.write(b"dropped")

        run(main)
        texts = {record.getMessage() for record in caplog.records}
        assert texts == {"socket.send() raised exception."}
        assert {record.levelno for record in caplog.records} == {logging.WARNING}

    def test_abort_drops_what_was_written(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                written = await link.block()
                link.transport.abort()
                assert link.transport.is_closing()
                assert "lost" not in link.protocol.events
                assert await link.protocol.lost() is None
                with contextlib.suppress(ConnectionError):
                    assert len(await link.peer.receive_to_eof()) < written

        run(main)

    def test_abort_after_close_does_not_wait_for_the_flush(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                await link.block()
                link.transport.close()
                link.transport.abort()
                assert await link.protocol.lost() is None
                assert link.protocol.events.count("lost") == 1

        run(main)

    @pytest.mark.parametrize("method", ["close", "abort"])
    def test_leaving_from_data_received(self, run: Run, method: str) -> None:
        class Leaving(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                getattr(self.transport, method)()

        async def main() -> None:
            async with self.link(Leaving) as link:
                await link.peer.send(b"x")
                assert await link.protocol.lost() is None
                assert link.protocol.events == ["made", "data", "lost"]

        run(main)

    @pytest.mark.parametrize("method", ["close", "abort"])
    def test_leaving_from_connection_made(self, run: Run, method: str) -> None:
        class Leaving(Recorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                getattr(transport, method)()

        async def main() -> None:
            async with self.link(Leaving) as link:
                assert await link.protocol.lost() is None
                assert link.protocol.events == ["made", "lost"]
                assert await link.peer.receive_to_eof() == b""

        run(main)

    def test_closing_from_pause_writing(self, run: Run) -> None:
        class Leaving(Recorder):
            def pause_writing(self) -> None:
                super().pause_writing()
                self.transport.abort()

        async def main() -> None:
            async with self.link(Leaving) as link:
                while "pause" not in link.protocol.events:
                    link.transport.write(MEGABYTE)
                assert await link.protocol.lost() is None
                assert link.protocol.events == ["made", "pause", "lost"]

        run(main)

    def test_writing_in_connection_made(self, run: Run) -> None:
        class Greeting(Recorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                transport.write(b"hello")

        async def main() -> None:
            async with self.link(Greeting) as link:
                assert await link.peer.receive(5) == b"hello"

        run(main)

    def test_a_peer_that_resets(self, run: Run) -> None:
        """A peer that resets gives asyncio's exception and leaks nothing."""

        async def main() -> None:
            async with self.link() as link:
                link.peer.reset()
                assert isinstance(await link.protocol.lost(), ConnectionResetError)
                assert link.protocol.events == ["made", "lost"]
                assert link.transport.is_closing()

        run(main)

    def test_a_peer_that_resets_while_data_waits_to_be_written(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.pause_reading()
                await link.block()
                link.peer.reset()
                assert isinstance(
                    await link.protocol.lost(), (ConnectionResetError, BrokenPipeError)
                )
                assert link.transport.get_write_buffer_size() == 0

        run(main)

    def test_writing_to_a_peer_that_is_gone(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                link.transport.pause_reading()
                link.peer.close()
                while "lost" not in link.protocol.events:
                    link.transport.write(b"x")
                    await turns(1)
                assert isinstance(link.protocol.error, (ConnectionResetError, BrokenPipeError))

        run(main)

    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # collected first
    def test_an_unclosed_transport_warns_and_closes(self, loop: Any) -> None:
        link = loop.run_until_complete(self.open(Recorder))
        loop.close()
        peer = link.peer
        with pytest.warns(ResourceWarning, match="unclosed transport <"):
            del link
            gc.collect()
        peer.sock.setblocking(True)
        assert peer.sock.recv(10) == b""
        peer.close()

    def test_a_closed_transport_and_its_protocol_are_collected(self, run: Run) -> None:
        async def main() -> None:
            link = await self.open(Recorder)
            gone = [weakref.ref(link.transport), weakref.ref(link.protocol)]
            link.transport.close()
            await link.protocol.lost()
            link.peer.close()
            del link
            await turns(3)
            gc.collect()
            assert [reference() for reference in gone] == [None, None]

        run(main)

    def test_connection_lost_finds_its_protocol(self, run: Run) -> None:
        """The transport lets go of it after the call."""
        found: List[Any] = []

        class Looking(Recorder):
            def connection_lost(self, exc: Optional[BaseException]) -> None:
                found.append(self.transport.get_protocol())
                super().connection_lost(exc)

        async def main() -> None:
            async with self.link(Looking) as link:
                link.transport.close()
                await link.protocol.lost()
                assert found == [link.protocol]
                assert link.transport.get_protocol() is None

        run(main)

    def test_a_protocol_set_in_connection_lost_is_let_go_of(self, run: Run) -> None:
        class Replacing(Recorder):
            def connection_lost(self, exc: Optional[BaseException]) -> None:
                self.transport.set_protocol(Recorder())
                super().connection_lost(exc)

        async def main() -> None:
            async with self.link(Replacing) as link:
                link.transport.close()
                await link.protocol.lost()
                assert link.transport.get_protocol() is None

        run(main)

    # After the loop is closed

    def after_the_loop(
        self, loop: Any, act: Callable[[Any], None], prepare: Callable[[Any], None] = id
    ) -> bool:
        """Let `act` find that the loop is closed; whether the transport is closing then."""
        link = loop.run_until_complete(self.open(Recorder))
        prepare(link.transport)
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            act(link.transport)
        closing: bool = link.transport.is_closing()
        link.peer.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del link
            gc.collect()
        return closing

    @pytest.mark.parametrize("method", ["close", "abort"])
    def test_closing_after_the_loop(self, loop: Any, method: str) -> None:
        self.after_the_loop(loop, lambda transport: getattr(transport, method)())

    def test_resuming_after_the_loop(self, loop: Any) -> None:
        def pause(transport: Any) -> None:
            transport.pause_reading()

        assert not self.after_the_loop(loop, lambda transport: transport.resume_reading(), pause)

    @pytest.mark.parametrize("method", ["write", "writelines"])
    def test_writing_after_the_loop(self, loop: Any, method: str) -> None:
        """What the kernel takes is sent; the rest would need the loop."""
        data: Any = MEGABYTE * 8 if method == "write" else [MEGABYTE] * 8
        assert not self.after_the_loop(loop, lambda transport: getattr(transport, method)(data))

    # Callbacks that raise

    def fails_with(self, reports: Reports, link: Link, message: str) -> None:
        """The only report is a fatal error of this transport with that message."""
        context = reports.take_one()
        assert context["message"] == message
        assert isinstance(context["exception"], ZeroDivisionError)
        assert context["transport"] is link.transport
        assert context["protocol"] is link.protocol

    def test_data_received_that_raises(self, run: Run, reports: Reports) -> None:
        """Seen elsewhere: `data_received` that raises kills the process, or is dropped."""

        class Failing(Recorder):
            def data_received(self, data: bytes) -> None:
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                await link.peer.send(b"x")
                assert isinstance(await link.protocol.lost(), ZeroDivisionError)
                self.fails_with(reports, link, "Fatal error: protocol.data_received() call failed.")
                assert await link.peer.receive_to_eof() == b""

        run(main)

    def test_eof_received_that_raises(self, run: Run, reports: Reports) -> None:
        class Failing(Recorder):
            def eof_received(self) -> bool:
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                link.peer.send_eof()
                assert isinstance(await link.protocol.lost(), ZeroDivisionError)
                self.fails_with(reports, link, "Fatal error: protocol.eof_received() call failed.")

        run(main)

    def test_connection_made_that_raises(self, run: Run, reports: Reports) -> None:
        """asyncio calls it by call_soon(): it is reported, and the connection goes on."""

        class Failing(Recorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                context = reports.take_one()
                assert isinstance(context["exception"], ZeroDivisionError)
                assert context["message"].startswith("Exception in callback ")
                await link.peer.send(b"x")
                assert await link.protocol.received(1) == b"x"

        run(main)

    def test_connection_lost_that_raises(self, run: Run, reports: Reports) -> None:
        class Failing(Recorder):
            def connection_lost(self, exc: Optional[BaseException]) -> None:
                super().connection_lost(exc)
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                link.transport.close()
                await link.protocol.lost()
                assert await link.peer.receive_to_eof() == b""
                assert isinstance(reports.take_one()["exception"], ZeroDivisionError)

        run(main)

    @pytest.mark.parametrize("callback", ["connection_made", "connection_lost"])
    def test_the_report_of_what_call_soon_calls_has_its_handle(
        self, run: Run, reports: Reports, callback: str
    ) -> None:
        """asyncio calls both by call_soon(): handlers look at `context["handle"]`."""

        def fail(protocol: Any, argument: Any) -> None:
            getattr(Recorder, callback)(protocol, argument)
            raise ZeroDivisionError

        async def main() -> None:
            async with self.link(type("Failing", (Recorder,), {callback: fail})) as link:
                link.transport.close()
                await link.protocol.lost()
                await turns(2)
                context = reports.take_one()
                assert isinstance(context["handle"], asyncio.Handle)
                assert set(context) == {"message", "exception", "handle"}

        run(main)

    def test_an_error_that_cannot_be_shown(self, run: Run, reports: Reports) -> None:
        """Its repr() raises, and connection_lost() raises as well: the loop goes on."""

        class Unspeakable(Exception):
            def __repr__(self) -> str:
                raise LookupError

        class Failing(Recorder):
            def data_received(self, data: bytes) -> None:
                raise Unspeakable

            def connection_lost(self, exc: Optional[BaseException]) -> None:
                super().connection_lost(exc)
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                await link.peer.send(b"x")
                assert isinstance(await link.protocol.lost(), Unspeakable)
                await turns(2)
                raised = [type(context["exception"]) for context in reports.take()]
                assert raised == [Unspeakable, ZeroDivisionError]

        run(main)

    def test_a_transport_whose_loop_stops_before_connection_lost_is_collected(
        self, backend: Backend, reports: Reports
    ) -> None:
        """The reason it keeps for connection_lost() refers to the protocol by its traceback."""

        class Failing(Recorder):
            def data_received(self, data: bytes) -> None:
                asyncio.get_running_loop().stop()
                raise ZeroDivisionError

        def make() -> List[Any]:
            loop = backend.new_loop()
            loop.set_exception_handler(lambda loop, context: None)
            link = loop.run_until_complete(self.open(Failing))
            link.peer.sock.setblocking(True)
            link.peer.sock.send(b"x")
            loop.run_forever()
            assert "lost" not in link.protocol.events
            link.peer.close()
            loop.close()
            return [weakref.ref(loop), weakref.ref(link.transport), weakref.ref(link.protocol)]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gone = make()
            gc.collect()
            gc.collect()
        assert [reference() for reference in gone] == [None, None, None]

    def test_pause_writing_that_raises(self, run: Run, reports: Reports) -> None:
        """Seen elsewhere: `pause_writing` that raises kills the process, or is dropped."""

        class Failing(Recorder):
            def pause_writing(self) -> None:
                super().pause_writing()
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                written = await link.block()
                self.fails_with(reports, link, "protocol.pause_writing() failed")
                assert len(await link.peer.receive(written)) == written
                await link.protocol.until_event("resume")

        run(main)

    def test_resume_writing_that_raises(self, run: Run, reports: Reports) -> None:
        class Failing(Recorder):
            def resume_writing(self) -> None:
                super().resume_writing()
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                written = await link.block()
                assert len(await link.peer.receive(written)) == written
                await link.protocol.until_event("resume")
                self.fails_with(reports, link, "protocol.resume_writing() failed")
                link.transport.write(b"alive")
                assert await link.peer.receive(5) == b"alive"

        run(main)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_exits_propagate_from_data_received(self, run: Run, error: Type[BaseException]) -> None:
        """Seen elsewhere: `KeyboardInterrupt` in a callback is swallowed."""

        class Leaving(Recorder):
            def data_received(self, data: bytes) -> None:
                raise error("from the protocol")

        async def nothing() -> None:
            await turns(3)

        def check(loop: Any) -> None:
            link = loop.run_until_complete(self.open(Leaving))
            link.peer.sock.send(b"x")
            with pytest.raises(error, match="from the protocol"):
                loop.run_forever()
            link.transport.abort()
            link.peer.close()

        run(nothing, prepare=check)

    # Protocols

    def test_the_protocol_can_be_switched(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                first, second = link.protocol, Recorder()
                assert link.transport.get_protocol() is first
                await link.peer.send(b"first")
                await first.received(5)
                link.transport.set_protocol(second)
                assert link.transport.get_protocol() is second
                await link.peer.send(b"second")
                await second.received(6)
                assert first.data == b"first"
                assert second.data == b"second"
                link.transport.close()
                await second.lost()
                assert first.events == ["made", "data"]
                assert second.events == ["data", "lost"]

        run(main)

    def test_the_protocol_can_be_switched_to_a_buffered_one_and_back(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                buffered, last = BufferedRecorder(), Recorder()
                link.transport.set_protocol(buffered)
                await link.peer.send(b"buffered")
                assert await buffered.received(8) == b"buffered"
                link.transport.set_protocol(last)
                await link.peer.send(b"plain")
                assert await last.received(5) == b"plain"

        run(main)

    def test_the_protocol_can_be_switched_from_data_received(self, run: Run) -> None:
        second = {}  # type: Dict[str, Recording]

        class Switching(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                second["protocol"] = BufferedRecorder()
                self.transport.set_protocol(second["protocol"])

        async def main() -> None:
            async with self.link(Switching) as link:
                await link.peer.send(b"one")
                await link.protocol.received(3)
                await link.peer.send(b"two")
                assert await second["protocol"].received(3) == b"two"
                assert link.protocol.data == b"one"

        run(main)

    def test_a_protocol_by_duck_typing(self, run: Run) -> None:
        """A protocol need not subclass asyncio.Protocol."""

        class Duck(Recording):
            def data_received(self, data: bytes) -> None:
                self.data += data
                self.record("data")

        async def main() -> None:
            async with self.link(Duck) as link:
                await link.peer.send(b"quack")
                assert await link.protocol.received(5) == b"quack"

        run(main)

    def test_a_protocol_whose_methods_are_replaced_later(self, run: Run) -> None:
        async def main() -> None:
            async with self.link() as link:
                got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
                link.protocol.data_received = got.set_result
                await link.peer.send(b"data")
                assert await got == b"data"

        run(main)

    # BufferedProtocol

    def test_a_buffered_protocol_gets_data_in_its_own_buffer(self, run: Run) -> None:
        async def main() -> None:
            async with self.link(BufferedRecorder) as link:
                await link.peer.send(b"data")
                assert await link.protocol.received(4) == b"data"
                assert link.protocol.buffer[:4] == b"data"
                assert sum(link.protocol.counts) == 4
                assert set(link.protocol.hints) == {-1}
                link.peer.send_eof()
                assert await link.protocol.lost() is None
                assert link.protocol.events == ["made", "data", "eof", "lost"]

        run(main)

    def test_a_buffered_protocol_with_a_small_buffer(self, run: Run) -> None:
        async def main() -> None:
            async with self.link(lambda: BufferedRecorder(7)) as link:
                await link.peer.send(b"0123456789" * 10)
                assert await link.protocol.received(100) == b"0123456789" * 10
                assert max(link.protocol.counts) <= 7

        run(main)

    def test_a_buffered_protocol_reads_large_data(self, run: Run) -> None:
        async def main() -> None:
            async with self.link(lambda: BufferedRecorder(300_000)) as link:
                sending = asyncio.ensure_future(link.peer.send(MEGABYTE))
                assert await link.protocol.received(len(MEGABYTE)) == MEGABYTE
                await sending

        run(main)

    def test_a_buffered_protocol_that_offers_a_memoryview(self, run: Run) -> None:
        class Viewing(BufferedRecorder):
            def get_buffer(self, sizehint: int) -> Any:
                return memoryview(self.buffer)[:5]

        async def main() -> None:
            async with self.link(Viewing) as link:
                await link.peer.send(b"0123456789")
                assert await link.protocol.received(10) == b"0123456789"
                assert max(link.protocol.counts) == 5

        run(main)

    @pytest.mark.parametrize("fault", ["empty", "raises", "none", "read-only"])
    def test_get_buffer_that_fails(self, run: Run, reports: Reports, fault: str) -> None:
        class Failing(BufferedRecorder):
            def get_buffer(self, sizehint: int) -> Any:
                if fault == "raises":
                    raise ZeroDivisionError
                return {"empty": bytearray(), "none": None, "read-only": b"four"}[fault]

        async def main() -> None:
            async with self.link(Failing) as link:
                await link.peer.send(b"x")
                error = await link.protocol.lost()
                context = reports.take_one()
                assert context["exception"] is error
                assert context["transport"] is link.transport
                assert context["protocol"] is link.protocol
                if fault == "read-only":
                    assert context["message"] == "Fatal read error on socket transport"
                else:
                    assert context["message"] == ("Fatal error: protocol.get_buffer() call failed.")
                expected = {"empty": RuntimeError, "raises": ZeroDivisionError}
                assert type(error) is expected.get(fault, TypeError)
                if fault == "empty":
                    assert str(error) == "get_buffer() returned an empty buffer"

        run(main)

    def test_buffer_updated_that_raises(self, run: Run, reports: Reports) -> None:
        class Failing(BufferedRecorder):
            def buffer_updated(self, nbytes: int) -> None:
                raise ZeroDivisionError

        async def main() -> None:
            async with self.link(Failing) as link:
                await link.peer.send(b"x")
                assert isinstance(await link.protocol.lost(), ZeroDivisionError)
                self.fails_with(
                    reports, link, "Fatal error: protocol.buffer_updated() call failed."
                )

        run(main)

    def test_a_buffered_protocol_that_closes(self, run: Run) -> None:
        class Leaving(BufferedRecorder):
            def buffer_updated(self, nbytes: int) -> None:
                super().buffer_updated(nbytes)
                self.transport.close()

        async def main() -> None:
            async with self.link(Leaving) as link:
                await link.peer.send(b"x")
                assert await link.protocol.lost() is None
                assert link.protocol.data == b"x"

        run(main)

    def test_a_buffer_is_free_after_buffer_updated(self, run: Run) -> None:
        """The transport holds no export of the buffer between two reads: it can be resized."""

        class Resizing(BufferedRecorder):
            def buffer_updated(self, nbytes: int) -> None:
                super().buffer_updated(nbytes)
                self.buffer = bytearray(10)

        async def main() -> None:
            async with self.link(Resizing) as link:
                await link.peer.send(b"x" * 100)
                await link.protocol.received(100)
                link.protocol.buffer.extend(b"resized")

        run(main)

    # Both ways

    def test_an_echo_of_much_data(self, run: Run) -> None:
        class Echo(Recorder):
            def data_received(self, data: bytes) -> None:
                self.transport.write(data)

        async def main() -> None:
            async with self.link(Echo) as link:
                sending = asyncio.ensure_future(link.peer.send(MEGABYTE * 2))
                assert await link.peer.receive(2 * len(MEGABYTE)) == MEGABYTE * 2
                await sending

        run(main)
