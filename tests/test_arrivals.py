"""Data that arrives while a transport changes: pauses, other protocols, TLS, an end, a loop that stops.

A loop may have taken data from the kernel before the protocol may have it. Whatever happens then, a byte
that arrived is delivered once, in order, and to whom it belongs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
import socket
from typing import Any, AsyncIterator, Awaitable, Callable, List

import pytest
from support.backends import PY312, Backend
from support.recorders import BufferedRecorder, Recorder, Recording
from support.running import Run, turns
from support.sockets import LOCALHOST, fill, tcp_pair
from support.tls import Authority, Closing, TlsPeer

Open = Callable[[Callable[[], Any]], Awaitable[Any]]
DATA = random.Random(4).randbytes(1 << 20)


def digest(data: Any) -> str:
    """What two pieces of data are compared by: a difference of a MiB is no help."""
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()}"


class Ends:
    """A transport with its protocol, and the other end: a plain socket that does not block."""

    def __init__(self, protocol: Any, peer: socket.socket) -> None:
        self.protocol = protocol
        self.transport = protocol.transport
        self.peer = peer

    def send(self, data: bytes) -> None:
        """Send, in this step; it has arrived when this returns, since it is the same machine."""
        assert self.peer.send(data) == len(data)

    async def send_all(self, data: bytes) -> None:
        """Send in pieces, waiting for room."""
        await asyncio.get_running_loop().sock_sendall(self.peer, data)


async def adopted(factory: Callable[[], Any]) -> Ends:
    """A transport over the user's TCP socket."""
    left, right = tcp_pair()
    _, protocol = await asyncio.get_running_loop().create_connection(factory, sock=left)
    return Ends(protocol, right)


async def served(factory: Callable[[], Any]) -> Ends:
    """A transport that a server made."""
    loop = asyncio.get_running_loop()
    made: List[Any] = []

    def make() -> Any:
        made.append(factory())
        return made[-1]

    server = await loop.create_server(make, LOCALHOST, 0)
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, server.sockets[0].getsockname())
    while not made or made[0].transport is None:
        await turns(1)
    server.close()
    return Ends(made[0], client)


async def by_unix_socket(factory: Callable[[], Any]) -> Ends:
    """A transport over a Unix socket."""
    left, right = socket.socketpair()
    right.setblocking(False)
    _, protocol = await asyncio.get_running_loop().create_connection(factory, sock=left)
    return Ends(protocol, right)


@pytest.fixture(params=[adopted, served, by_unix_socket], ids=lambda kind: kind.__name__)
def ends(request: pytest.FixtureRequest) -> Any:
    """Gives a connection of each kind, as a context manager."""

    @contextlib.asynccontextmanager
    async def opened(factory: Callable[[], Any] = Recorder) -> AsyncIterator[Ends]:
        made: Ends = await request.param(factory)
        try:
            yield made
        finally:
            if made.transport and not made.transport.is_closing():
                made.transport.abort()
            made.peer.close()
            await turns(3)

    return opened


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Who has issued the certificates."""
    return Authority()


def settle(made: Ends) -> Awaitable[None]:
    """Let the transport begin to receive, so that a proactor has its operation under way."""
    assert made.transport.is_reading()
    return turns(3)


# In one step: what has arrived and what the program does, with no turn of the loop between them


def test_a_pause_in_the_step_in_which_data_arrives(run: Run, ends: Any) -> None:
    async def main() -> None:
        async with ends() as it:
            await settle(it)
            it.send(b"one")
            it.transport.pause_reading()
            await turns(5)
            assert it.protocol.events == ["made"]
            it.send(b"two")
            await turns(5)
            assert it.protocol.events == ["made"]
            it.transport.resume_reading()
            assert await it.protocol.received(6) == b"onetwo"

    run(main)


def test_a_pause_in_the_step_in_which_data_and_the_end_arrive(run: Run, ends: Any) -> None:
    async def main() -> None:
        async with ends() as it:
            await settle(it)
            it.send(b"last words")
            it.peer.close()
            it.transport.pause_reading()
            await turns(5)
            assert it.protocol.events == ["made"]
            it.transport.resume_reading()
            assert await it.protocol.lost() is None
            assert it.protocol.data == b"last words"
            assert it.protocol.events == ["made", "data", "eof", "lost"]

    run(main)


@pytest.mark.parametrize("method", ["close", "abort"])
def test_leaving_in_the_step_in_which_data_arrives(run: Run, ends: Any, method: str) -> None:
    async def main() -> None:
        async with ends() as it:
            await settle(it)
            it.send(b"too late")
            getattr(it.transport, method)()
            assert await it.protocol.lost() is None
            await turns(5)
            assert it.protocol.events == ["made", "lost"]

    run(main)


@pytest.mark.parametrize("method", ["close", "abort"])
@pytest.mark.parametrize("size", [100, 16384], ids=["little", "much"])
def test_leaving_in_a_pause(run: Run, ends: Any, method: str, size: int) -> None:
    """The peer sees the end at once: nothing keeps the descriptor open."""

    async def main() -> None:
        async with ends() as it:
            for number in range(1, 20):
                it.send(bytes(size))
                await it.protocol.received(number * size)
            it.transport.pause_reading()
            await turns(3)
            getattr(it.transport, method)()
            assert await it.protocol.lost() is None
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(it.peer, 1) == b""

    run(main)


@pytest.mark.parametrize("size", [100, 16384], ids=["little", "much"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_dropping_a_transport_in_a_pause(run: Run, ends: Any, size: int) -> None:
    """Nobody refers to it, and the loop only for a moment: it is collected, and its peer sees the end."""

    async def main() -> None:
        async with ends() as it:
            loop = asyncio.get_running_loop()
            for number in range(1, 20):
                it.send(bytes(size))
                await it.protocol.received(number * size)
            it.transport.pause_reading()
            seen = loop.create_task(loop.sock_recv(it.peer, 1))
            it.protocol.transport = it.transport = it.protocol = None
            while not seen.done():
                gc.collect()
                await turns(1)
            assert await seen == b""

    run(main)


def test_a_protocol_set_in_the_step_in_which_data_arrives(run: Run, ends: Any) -> None:
    async def main() -> None:
        async with ends() as it:
            await settle(it)
            it.send(b"for the second")
            second, third = BufferedRecorder(5), Recorder()
            it.transport.set_protocol(second)
            assert await second.received(14) == b"for the second"
            it.send(b"for the third")
            it.transport.set_protocol(third)
            assert await third.received(13) == b"for the third"
            assert it.protocol.events == ["made"]

    run(main)


def test_a_pause_and_a_resumption_in_one_step(run: Run, ends: Any) -> None:
    async def main() -> None:
        async with ends() as it:
            expected = bytearray()
            for number in range(50):
                await turns(number % 3)
                for _ in range(number % 4):
                    it.transport.pause_reading()
                    piece = bytes([number]) * (number + 1)
                    it.send(piece)
                    expected += piece
                    it.transport.resume_reading()
            assert await it.protocol.received(len(expected)) == expected

    run(main)


# Sizes round those of buffers


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 131072, 262144, 262145, 1 << 20])
@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
def test_data_that_arrives_together_with_the_end(
    run: Run, ends: Any, factory: Any, size: int
) -> None:
    async def main() -> None:
        async with ends(factory) as it:
            await it.send_all(DATA[:size])
            it.peer.close()
            assert await it.protocol.lost() is None
            assert digest(it.protocol.data) == digest(DATA[:size])
            assert it.protocol.events[-2:] == ["eof", "lost"]
            assert it.protocol.events.count("eof") == 1

    run(main)


@pytest.mark.parametrize("size", [1, 1000, 65536, 300_000])
def test_a_buffer_smaller_than_what_came(run: Run, ends: Any, size: int) -> None:
    async def main() -> None:
        async with ends(lambda: BufferedRecorder(min(size, 977))) as it:
            await settle(it)
            sending = asyncio.ensure_future(it.send_all(DATA[:size]))
            assert digest(await it.protocol.received(size)) == digest(DATA[:size])
            await sending
            assert max(it.protocol.counts) <= 977

    run(main)


# At random


class Restless(Recorder):
    """Pauses, resumes and hands over to the next one, as the dice have it."""

    def __init__(self, dice: random.Random, chunks: List[bytes]) -> None:
        super().__init__()
        self.dice = dice
        self.chunks = chunks

    def data_received(self, data: bytes) -> None:
        """Keep it, and do something."""
        assert self.transport.is_reading()
        self.chunks.append(bytes(data))
        self.choose()
        self.record("data")

    def choose(self) -> None:
        """Do one thing or another."""
        loop = asyncio.get_running_loop()
        what = self.dice.randrange(6)
        if what < 3:
            self.transport.pause_reading()
        if what == 1:
            self.transport.resume_reading()
        elif what == 0:
            loop.call_soon(self.transport.resume_reading)
        elif what == 2:
            loop.call_later(self.dice.random() / 1000, self.transport.resume_reading)
        elif what == 3:
            kind = self.dice.choice([Restless, RestlessBuffered])
            successor = kind(self.dice, self.chunks)
            successor.transport, successor._waiters = self.transport, self._waiters
            self.transport.set_protocol(successor)


class RestlessBuffered(Restless, asyncio.BufferedProtocol):  # type: ignore[misc]
    """The same, in a buffer of its own, of another size each time."""

    def get_buffer(self, sizehint: int) -> Any:
        """Offer a small buffer, or a large one."""
        self.buffer = bytearray(self.dice.choice([1, 100, 4096, 70_000]))
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Keep it, and do something."""
        super().data_received(self.buffer[:nbytes])


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_pauses_and_protocols_keeps_the_order(run: Run, ends: Any, seed: int) -> None:
    dice = random.Random(seed)

    async def main() -> None:
        chunks: List[bytes] = []
        async with ends(lambda: Restless(dice, chunks)) as it:
            sent = bytearray()

            async def send() -> None:
                while len(sent) < 600_000:
                    piece = DATA[: dice.choice([1, 10, 1000, 10_000, 100_000])]
                    sent.extend(piece)
                    await it.send_all(piece)
                    await turns(dice.randrange(3))

            await send()
            while sum(map(len, chunks)) < len(sent):
                await asyncio.sleep(0.0005)
            assert digest(b"".join(chunks)) == digest(sent)
            await turns(3)

    run(main)


def test_whether_a_buffer_is_asked_for_before_the_end(
    run: Run, ends: Any, backend: Backend
) -> None:
    """A proactor has the end without a buffer to read it into, as asyncio's own on Windows."""

    async def main() -> None:
        async with ends(BufferedRecorder) as it:
            await settle(it)
            it.send(b"data")
            assert await it.protocol.received(4) == b"data"
            await turns(3)
            it.peer.shutdown(socket.SHUT_WR)
            await it.protocol.until_event("eof")
            assert it.protocol.counts == [4]
            assert it.protocol.hints == ([-1] if backend.is_proactor else [-1, -1])

    run(main)


# A peer that is not read from


def test_a_paused_transport_takes_no_more_than_there_is_room_for(run: Run, ends: Any) -> None:
    """Backpressure: what a loop takes ahead is bounded; and all of it arrives in the end."""

    async def main() -> None:
        async with ends() as it:
            await settle(it)
            it.transport.pause_reading()
            sent = 0
            for _ in range(20):
                sent += fill(it.peer)
                await turns(2)
            assert it.protocol.events == ["made"]
            before = sent
            for _ in range(20):
                sent += fill(it.peer)
                await turns(2)
            assert sent - before < 1 << 20
            it.transport.resume_reading()
            assert await it.protocol.received(sent) == b"f" * sent

    run(main)


def test_a_transport_that_never_read_leaves_the_data_in_its_socket(
    run: Run, ends: Any, backend: Backend
) -> None:
    """Whoever pauses in `connection_made` may hand the socket to somebody else."""
    if backend.is_oracle and not PY312:
        pytest.skip("asyncio starts to read all the same before Python 3.12")

    class Paused(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    async def main() -> None:
        async with ends(Paused) as it:
            it.send(b"untouched")
            await turns(5)
            with socket.socket(
                fileno=socket.dup(it.transport.get_extra_info("socket").fileno())
            ) as other:
                assert other.recv(100) == b"untouched"

    run(main)


# TLS from the middle on


@pytest.mark.parametrize("paused", [True, False], ids=["paused", "reading"])
def test_a_handshake_that_arrives_before_start_tls(
    run: Run, authority: Authority, paused: bool
) -> None:
    """What came after the last plain byte belongs to TLS, if the transport was paused by then."""

    class Upgrading(Closing):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if paused:
                self.transport.pause_reading()

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Upgrading, sock=left)
        peer = TlsPeer(right, authority.client())
        await turns(3)
        right.send(b"STARTTLS")
        await protocol.received(8)
        with contextlib.suppress(Exception):
            peer.tls.do_handshake()
        hello = peer.encrypt()
        if paused:
            right.send(hello[:100])
            await turns(3)
            right.send(hello[100:])
            await turns(3)
            assert protocol.data == b"STARTTLS"
        else:
            right.send(hello)  # it has arrived, and the loop has not had a turn since
        upgrading = asyncio.ensure_future(
            loop.start_tls(transport, protocol, authority.server(), server_side=True)
        )
        await peer.handshake()
        secure = await upgrading
        protocol.transport = secure
        secure.write(b"secret")
        assert await peer.hear(6) == b"secret"
        assert protocol.data == b"STARTTLS"
        secure.abort()
        await protocol.lost()
        right.close()

    run(main)


# A loop that is stopped


def one_run(loop: Any) -> None:
    """Run the loop for a few turns."""
    loop.run_until_complete(turns(4))


def test_data_that_arrives_while_the_loop_does_not_run(loop: Any, ends: Any) -> None:
    opened = ends()
    it = loop.run_until_complete(opened.__aenter__())
    expected = b""
    for number in range(10):
        piece = b"%d" % number * (number + 1)
        it.send(piece)
        expected += piece
        one_run(loop)
        assert it.protocol.data == expected
    it.send(b"last words")
    it.peer.close()
    one_run(loop)
    one_run(loop)
    assert it.protocol.data == expected + b"last words"
    assert it.protocol.events[-2:] == ["eof", "lost"]
    loop.run_until_complete(opened.__aexit__(None, None, None))


def test_clients_that_come_while_the_loop_does_not_run(loop: Any) -> None:
    made: List[Recording] = []

    def make() -> Recording:
        made.append(Recorder())
        return made[-1]

    server = loop.run_until_complete(loop.create_server(make, LOCALHOST, 0))
    clients = []
    for number in range(5):
        one_run(loop)
        clients.append(socket.create_connection(server.sockets[0].getsockname()))
        clients[-1].send(b"%d" % number)
    loop.run_until_complete(asyncio.wait_for(_all_have(made, 5), 10))
    assert sorted(bytes(protocol.data) for protocol in made) == [b"0", b"1", b"2", b"3", b"4"]
    for client in clients:
        client.close()
    server.close()
    one_run(loop)
    one_run(loop)
    assert all(protocol.events[-1] == "lost" for protocol in made)


async def _all_have(made: List[Recording], count: int) -> None:
    while sum(bool(protocol.data) for protocol in made) < count:
        await asyncio.sleep(0)


def test_an_exit_in_the_middle_of_a_turn(loop: Any, ends: Any) -> None:
    """What came in the same turn for the others is delivered when the loop runs again."""

    class Leaving(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise SystemExit(7)

    connections = [ends(Leaving) for _ in range(4)]
    opened = [loop.run_until_complete(each.__aenter__()) for each in connections]
    one_run(loop)
    for number, it in enumerate(opened):
        it.send(b"%d" % number)
    for _ in opened:
        with pytest.raises(SystemExit):
            loop.run_forever()
    assert [bytes(it.protocol.data) for it in opened] == [b"0", b"1", b"2", b"3"]
    for each in connections:
        loop.run_until_complete(each.__aexit__(None, None, None))


# What was written


@pytest.mark.parametrize("method", ["abort", "close"])
def test_leaving_with_writes_under_way(run: Run, ends: Any, method: str) -> None:
    """The peer has a beginning of what was written: with close() all of it."""

    async def main() -> None:
        async with ends() as it:
            sock = it.transport.get_extra_info("socket")
            written = bytearray()
            while it.transport.get_write_buffer_size() < 100_000:
                piece = DATA[: 100_000 + len(written) % 7]
                it.transport.write(piece)
                written += piece
                await turns(len(written) % 3)
            getattr(it.transport, method)()
            received = bytearray()
            loop = asyncio.get_running_loop()
            with contextlib.suppress(ConnectionResetError):
                while piece := await loop.sock_recv(it.peer, 50_000):
                    received += piece
            assert await it.protocol.lost() is None
            assert digest(received) == digest(written[: len(received)])
            assert len(received) == len(written) or method == "abort"
            await turns(1)
            assert sock.fileno() == -1

    run(main)


def test_writes_in_each_turn_arrive_in_order(run: Run, ends: Any) -> None:
    dice = random.Random(7)

    async def main() -> None:
        async with ends() as it:
            sent = bytearray()

            async def write() -> None:
                while len(sent) < 2_000_000:
                    pieces = [DATA[: dice.choice([0, 1, 500, 70_000])] for _ in range(3)]
                    if dice.random() < 0.5:
                        it.transport.writelines(pieces)
                    else:
                        for piece in pieces:
                            it.transport.write(piece)
                    sent.extend(b"".join(pieces))
                    await turns(dice.randrange(2))
                it.transport.write_eof()

            writing = asyncio.ensure_future(write())
            received = bytearray()
            loop = asyncio.get_running_loop()
            while piece := await loop.sock_recv(it.peer, dice.choice([1, 1000, 100_000])):
                received += piece
            await writing
            assert digest(received) == digest(sent)

    run(main)


@pytest.mark.parametrize("method", ["close", "abort"])
def test_the_peer_sees_the_end_as_soon_as_the_connection_is_lost(
    run: Run, ends: Any, method: str
) -> None:
    """Nothing of the loop's holds the socket any longer, a receive under way for example."""

    async def main() -> None:
        async with ends() as it:
            await settle(it)
            sock = it.transport.get_extra_info("socket")
            getattr(it.transport, method)()
            await it.protocol.lost()
            assert sock.fileno() == -1
            assert it.peer.recv(10) == b""

    run(main)


def numbered(start: int, size: int) -> bytes:
    """Bytes that show where in a stream they stood: words that count, from `start` bytes on."""
    return b"".join(number.to_bytes(4, "big") for number in range(start // 4, (start + size) // 4))


def test_a_connection_that_begins_to_carry_much(run: Run) -> None:
    """What had come by then is first, also if a pause kept it and what comes next is there already."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ends = await adopted(Recorder)
        ends.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = 0

        def send(size: int) -> None:
            nonlocal sent
            ends.send(numbered(sent, size))
            sent += size

        class Pausing(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if self.events.count("data") == 1:
                    send(400)
                if self.events.count("data") == 2:
                    self.transport.pause_reading()

        protocol = Pausing()
        protocol.connection_made(ends.transport)
        ends.transport.set_protocol(protocol)

        def resume() -> None:
            if not ends.transport.is_reading():
                ends.transport.resume_reading()

        noisy, feeding = socket.socketpair()
        idle, other = socket.socketpair()
        with noisy, feeding, idle, other:
            feeding.send(b"x")
            loop.add_reader(idle, resume)
            loop.add_reader(noisy, resume)
            await turns(10)
            loop.call_soon(lambda: (send(100_000), loop.remove_reader(idle)))
            send(5_000)
            await protocol.until(lambda: len(protocol.data) >= 105_400)
            loop.remove_reader(noisy)
        assert digest(protocol.data) == digest(numbered(0, sent))
        ends.transport.abort()
        await turns(2)
        ends.peer.close()

    run(main)


class Interrupting:
    """Mixed into a protocol: lets data, and the end, interrupt the loop."""

    interrupts = 2

    def interrupt(self, when: bool) -> None:
        """Raise, if it is time to."""
        if when and self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt


class InterruptingRecorder(Recorder, Interrupting):
    """By `data_received`; the second data interrupts, the first pauses."""

    def data_received(self, data: bytes) -> None:
        """Note it first."""
        super().data_received(data)
        count = self.events.count("data")
        if count == 1:
            self.transport.pause_reading()
        self.interrupt(count == 2)

    def eof_received(self) -> None:
        """Note it first."""
        super().eof_received()
        self.interrupt(self.events.count("eof") == 1)


class InterruptingBuffer(BufferedRecorder, Interrupting):
    """Into a buffer of its own."""

    def buffer_updated(self, count: int) -> None:
        """Note it first."""
        super().buffer_updated(count)
        self.interrupt(len(self.data) <= 128)

    def eof_received(self) -> None:
        """Note it first."""
        super().eof_received()
        self.interrupt(self.events.count("eof") == 1)


@pytest.mark.parametrize("make", [InterruptingRecorder, lambda: InterruptingBuffer(64)])
def test_an_interrupt_loses_nothing(loop: Any, make: Callable[[], Any]) -> None:
    """KeyboardInterrupt out of a protocol leaves the loop, and the rest is delivered by the next run."""

    def interrupted(main: Awaitable[Any]) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_until_complete(main)

    ends = loop.run_until_complete(adopted(make))
    ends.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sent = b""
    for data in (numbered(0, 100_000), b"in between", b"the end"):
        ends.send(data)
        sent += data
        for _ in range(3):
            interrupted(asyncio.sleep(0.001))
            ends.transport.resume_reading()
    ends.peer.close()
    for _ in range(4):
        interrupted(asyncio.sleep(0.001))
    loop.run_until_complete(ends.protocol.lost())
    assert digest(ends.protocol.data) == digest(sent)
