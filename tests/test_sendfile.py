"""loop.sendfile and loop.sock_sendfile: by the kernel where it can, by reading the file where not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import pathlib
import signal
import socket
import ssl
import sys
import threading
from asyncio import constants
from typing import Any, AsyncIterator, Awaitable, Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from support.backends import PY312, PY313, Backend
from support.census import assert_flat
from support.children import run_python
from support.pipes import pipe_ends
from support.platforms import WINDOWS, says
from support.recorders import Recorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, Peer, bound_udp, reset, tcp_pair
from support.tls import NAME, Authority, Closing, client_of

DATA = b"".join(number.to_bytes(4, "big") for number in range(150_000)) + b"end"  # 600 KB
SMALL = 8192  # bytes: of a socket's buffer, so that a file does not fit into one

#: What is said of a socket or a file that was closed.
BADF = says(errno.ENOTSOCK if WINDOWS else errno.EBADF)

Pair = Tuple[socket.socket, socket.socket]
Sends = Callable[..., Awaitable[int]]


@pytest.fixture
def file(tmp_path: pathlib.Path) -> Iterator[Any]:
    """An open file of DATA."""
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as opened:
        yield opened


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected non-blocking sockets with small buffers."""
    left, right = small_pair()
    yield left, right
    left.close()
    right.close()


def small_pair() -> Pair:
    """Two connected non-blocking sockets with small buffers: Unix ones, as TCP is slow with these."""
    left, right = socket.socketpair()
    for sock in (left, right):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    return left, right


async def both(sending: Awaitable[int], receiving: Awaitable[bytes]) -> Tuple[int, bytes]:
    """Send and receive at the same time."""
    sent, received = await asyncio.gather(sending, receiving)
    return sent, received


def running_loop(native: bool) -> Any:
    """The running loop; unless `native`, without sendfile, in the way of asyncio's own tests."""
    loop: Any = asyncio.get_running_loop()

    async def refuse(*args: Any) -> int:
        raise asyncio.SendfileNotAvailableError("not here")

    if not native:
        loop._sock_sendfile_native = refuse
        loop._sendfile_native = refuse
    return loop


def spoilt(backend: Backend, native: bool = False) -> None:
    """Leave the test out where asyncio sends something else than the file."""
    if backend.is_oracle and PY312 and not native:
        pytest.skip("asyncio reads the next block into what its transport has not sent yet")


# What makes a file object that the kernel can send, and one that has to be read.
WAYS = pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])

ARGUMENTS: Dict[str, Tuple[Tuple[Any, ...], type, str]] = {
    "count of text": ((0, "1"), TypeError, r"count must be a positive integer \(got '1'\)"),
    "no count": ((0, 0), ValueError, r"count must be a positive integer \(got 0\)"),
    "negative count": ((0, -1), ValueError, r"count must be a positive integer \(got -1\)"),
    "offset of text": (("0",), TypeError, r"offset must be a non-negative integer \(got '0'\)"),
    "None": ((None,), TypeError, r"offset must be a non-negative integer \(got None\)"),
    "negative offset": ((-1,), ValueError, r"offset must be a non-negative integer \(got -1\)"),
    "large offset": ((1 << 70,), OverflowError, "int too (big|large)"),
}

# offset and count, and what of the file they are.
PARTS = {
    "all": ((), DATA, len(DATA)),
    "a piece": ((1000, 2000), DATA[1000:3000], 3000),
    "one byte": ((7, 1), DATA[7:8], 8),
    "the rest": ((len(DATA) - 5,), DATA[-5:], len(DATA)),
    "count None": ((300_000, None), DATA[300_000:], len(DATA)),
    "more than there is": ((0, len(DATA) + 10), DATA, len(DATA)),
    "all, counted": ((0, len(DATA)), DATA, len(DATA)),
    "behind the end": ((len(DATA), 10), b"", 0),
}


class TestSocket:
    """loop.sock_sendfile."""

    @WAYS
    @pytest.mark.parametrize("name", PARTS)
    def test_a_part_of_a_file(
        self, run: Run, pair: Pair, file: Any, name: str, native: bool
    ) -> None:
        arguments, expected, position = PARTS[name]
        left, right = pair

        async def main() -> None:
            loop = running_loop(native)
            peer = Peer(right)
            sending = loop.sock_sendfile(left, file, *arguments)
            sent, received = await both(sending, peer.receive(len(expected)))
            assert (sent, received) == (len(expected), expected)
            if expected:
                assert file.tell() == position
            assert loop.remove_writer(left) is False, "the descriptor is no longer watched"
            left.close()
            assert await peer.receive_to_eof() == b""

        run(main)

    @WAYS
    def test_between_other_sends(self, run: Run, pair: Pair, file: Any, native: bool) -> None:
        left, right = pair

        async def main() -> None:
            loop = running_loop(native)
            receiving = asyncio.ensure_future(Peer(right).receive_to_eof())
            await loop.sock_sendall(left, b"<" * 50_000)
            assert await loop.sock_sendfile(left, file) == len(DATA)
            await loop.sock_sendall(left, b">" * 50_000)
            left.close()
            assert await receiving == b"<" * 50_000 + DATA + b">" * 50_000

        run(main)

    def test_an_empty_file(self, run: Run, pair: Pair, tmp_path: pathlib.Path) -> None:
        (tmp_path / "empty").touch()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with (tmp_path / "empty").open("rb") as empty:
                assert await loop.sock_sendfile(pair[0], empty) == 0
                assert await loop.sock_sendfile(pair[0], empty, 5, 10) == 0

        run(main)

    def test_a_file_that_does_not_know_its_size(self, run: Run, pair: Pair) -> None:
        """As with asyncio nothing is sent of it without a count."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            with open("/proc/self/status", "rb") as status:
                assert os.fstat(status.fileno()).st_size == 0
                assert await loop.sock_sendfile(pair[0], status) == 0
                expected = status.read(20)
                status.seek(0)  # an offset of 0 is no reason to seek for who reads it
                assert await loop.sock_sendfile(pair[0], status, 0, 20) == 20
            assert await Peer(pair[1]).receive(20) == expected

        run(main)

    def test_a_file_that_grows(
        self, run: Run, pair: Pair, file: Any, tmp_path: pathlib.Path
    ) -> None:
        """It is sent up to where it ends in the end."""
        left, right = pair

        async def main() -> None:
            loop = asyncio.get_running_loop()
            sending = asyncio.ensure_future(loop.sock_sendfile(left, file))
            await turns(3)
            assert not sending.done()
            with (tmp_path / "data").open("ab") as same:
                same.write(b"more")
            sent, received = await both(sending, Peer(right).receive(len(DATA) + 4))
            assert (sent, received) == (len(DATA) + 4, DATA + b"more")

        run(main)

    def test_a_file_that_shrinks(
        self, run: Run, pair: Pair, file: Any, tmp_path: pathlib.Path
    ) -> None:
        left, right = pair

        async def main() -> None:
            loop = asyncio.get_running_loop()
            sending = asyncio.ensure_future(loop.sock_sendfile(left, file))
            await turns(3)
            assert not sending.done()
            os.truncate(tmp_path / "data", 10)
            receiving = asyncio.ensure_future(Peer(right).receive_to_eof())
            sent = await sending
            left.close()
            assert 10 < sent < len(DATA)
            assert sent == file.tell()
            # What the kernel had not sent yet may have been cut off under its hands.
            assert DATA.startswith((await receiving).rstrip(b"\0"))

        run(main)

    def test_a_count_beyond_all_bounds(
        self, run: Run, backend: Backend, pair: Pair, file: Any
    ) -> None:
        if backend.is_oracle and not PY313:
            pytest.skip("OverflowError")
        left, right = pair

        async def main() -> None:
            sending = asyncio.get_running_loop().sock_sendfile(left, file, 0, 1 << 70)
            assert await both(sending, Peer(right).receive(len(DATA))) == (len(DATA), DATA)

        run(main)

    def test_a_file_of_text(self, run: Run, pair: Pair) -> None:
        async def main() -> None:
            with open(__file__, encoding="utf-8") as text:
                with pytest.raises(ValueError, match="file should be opened in binary mode"):
                    await asyncio.get_running_loop().sock_sendfile(
                        pair[0],
                        text,  # type: ignore[arg-type]
                    )

        run(main)

    def test_a_socket_of_datagrams(self, run: Run, file: Any) -> None:
        async def main() -> None:
            with bound_udp() as sock:
                with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
                    await asyncio.get_running_loop().sock_sendfile(sock, file)

        run(main)

    def test_a_blocking_socket_is_refused_in_debug_mode(self, run: Run, file: Any) -> None:
        async def main() -> None:
            with socket.socket() as sock:
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    await asyncio.get_running_loop().sock_sendfile(sock, file)

        run(main, debug=True)

    def test_a_closed_socket(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setblocking(False)
            sock.close()
            with pytest.raises(OSError, match=BADF):
                await loop.sock_sendfile(sock, file)
            with pytest.raises(asyncio.SendfileNotAvailableError, match="os.sendfile call failed"):
                await loop.sock_sendfile(sock, file, fallback=False)

        run(main)

    def test_a_tls_socket_is_refused(self, run: Run, file: Any) -> None:
        async def main() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            with context.wrap_socket(socket.socket()) as sock:
                with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                    await asyncio.get_running_loop().sock_sendfile(sock, file)

        run(main)

    def test_the_socket_of_a_transport_is_refused(self, run: Run, pair: Pair, file: Any) -> None:
        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(Recorder, sock=pair[0])
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_sendfile(pair[0], file)
            transport.abort()
            await turns(3)

        run(main)

    def test_a_pipe(self, run: Run, backend: Backend, pair: Pair) -> None:
        """What cannot be sent by sendfile(2), nor be positioned."""
        if backend.is_oracle and sys.version_info >= (3, 13, 14):
            pytest.skip("asyncio positions it, and fails")
        left, right = pair

        class Unseekable(io.FileIO):
            """A pipe; `seek` would be an error."""

            seek = None  # type: ignore[assignment]

            def __getattribute__(self, name: str) -> Any:
                if name == "seek":
                    raise AttributeError(name)
                return super().__getattribute__(name)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            reader, writer = os.pipe()
            os.write(writer, b"piped")
            os.close(writer)
            with Unseekable(reader) as pipe:
                with pytest.raises(asyncio.SendfileNotAvailableError, match="os.sendfile call"):
                    await loop.sock_sendfile(left, pipe, 0, 3, fallback=False)
                assert await loop.sock_sendfile(left, pipe, 0, 30) == 5
            assert await Peer(right).receive(5) == b"piped"

        run(main)

    def test_a_file_that_cannot_be_read(self, run: Run, pair: Pair) -> None:
        class Broken:
            def readinto(self, buffer: memoryview) -> int:
                raise ZeroDivisionError

        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            with pytest.raises(ZeroDivisionError):
                await loop.sock_sendfile(pair[0], Broken())
            with pytest.raises(AttributeError):
                await loop.sock_sendfile(pair[0], object())

        run(main)

    def test_a_peer_that_was_gone(self, run: Run, pair: Pair, file: Any) -> None:
        left, right = pair

        async def main() -> None:
            loop = asyncio.get_running_loop()
            reset(right)
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await loop.sock_sendfile(left, file, fallback=False)
            with pytest.raises(ConnectionError):
                await loop.sock_sendfile(left, file)

        run(main)

    @WAYS
    def test_cancelling(
        self, run: Run, backend: Backend, pair: Pair, file: Any, native: bool
    ) -> None:
        left, right = pair

        async def main() -> None:
            loop = running_loop(native)
            sending = asyncio.ensure_future(loop.sock_sendfile(left, file))
            peer = Peer(right)
            received = await peer.receive(20_000)
            await turns(2)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert loop.remove_writer(left) is False, "the descriptor is no longer watched"
            position = file.tell()
            left.close()
            received += await peer.receive_to_eof()
            assert DATA.startswith(received)
            assert len(received) < len(DATA)
            if native:
                # asyncio leaves it at 0; its documentation says that it tells what was sent.
                assert position == (0 if backend.is_oracle else len(received))

        run(main)

    def test_a_file_closed_in_the_middle(
        self, run: Run, backend: Backend, pair: Pair, tmp_path: Any
    ) -> None:
        """asyncio would wait for ever, since it cannot set the file's position."""
        if backend.is_oracle:
            pytest.skip("does not end")
        left, right = pair
        (tmp_path / "data").write_bytes(DATA)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            file = (tmp_path / "data").open("rb")
            sending = asyncio.ensure_future(loop.sock_sendfile(left, file))
            await turns(2)
            number = file.fileno()
            file.close()
            other = os.open(__file__, os.O_RDONLY)
            assert other == number, "the file that the kernel would send in its place"
            receiving = asyncio.ensure_future(Peer(right).receive_to_eof())
            with pytest.raises(OSError, match=BADF):
                await sending
            left.close()
            os.close(other)
            assert DATA.startswith(await receiving)

        run(main)

    def test_a_socket_closed_in_the_middle_touches_no_other(
        self, run: Run, backend: Backend, file: Any
    ) -> None:
        """As with asyncio the waiting call is left to be cancelled, or fails."""
        if backend.is_oracle:
            pytest.skip("still watches the number, and does not end")
        if backend.name == "user":
            pytest.skip("select() fails as a whole with EBADF for a descriptor that is closed")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            left, right = small_pair()
            sending = asyncio.ensure_future(loop.sock_sendfile(left, file))
            await turns(2)
            left.close()
            right.close()
            await turns(2)
            sending.cancel()
            with pytest.raises((asyncio.CancelledError, OSError)):
                await sending
            new, peer = small_pair()
            with new, peer:
                again = loop.sock_sendfile(new, file)
                sent, received = await both(again, Peer(peer).receive(len(DATA)))
                assert (sent, received) == (len(DATA), DATA)

        run(main)

    def test_others_run_meanwhile(self, run: Run, backend: Backend, tmp_path: pathlib.Path) -> None:
        """However fast the peer reads, a large file leaves in pieces."""
        if backend.is_oracle:
            pytest.skip("asyncio's piece is what the kernel takes, which may be all of the file")
        size = 64 * 1024 * 1024
        with (tmp_path / "large").open("wb") as large:
            large.truncate(size)

        def read(sock: socket.socket) -> None:
            sock.setblocking(True)
            buffer = bytearray(1 << 20)
            while sock.recv_into(buffer):
                pass

        async def main() -> int:
            loop = asyncio.get_running_loop()
            left, right = tcp_pair()
            reading = threading.Thread(target=read, args=(right,))
            reading.start()
            count = 0
            with left, right, (tmp_path / "large").open("rb") as large:
                sending = asyncio.ensure_future(loop.sock_sendfile(left, large))
                while not sending.done():
                    await turns(1)
                    count += 1
                assert await sending == size
                left.shutdown(socket.SHUT_WR)
                reading.join()
            return count

        assert run(main) >= 8

    def test_nothing_is_left_behind(self, run: Run, pair: Pair, file: Any) -> None:
        left, right = pair

        async def main() -> None:
            loop = asyncio.get_running_loop()
            peer = Peer(right)

            async def once() -> None:
                await both(loop.sock_sendfile(left, file, 0, 30_000), peer.receive(30_000))
                sending = asyncio.ensure_future(loop.sock_sendfile(left, file))
                await turns(1)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                with contextlib.suppress(BlockingIOError):
                    while right.recv(1 << 20):
                        pass

            await assert_flat(once, 200)

        run(main)


@pytest.mark.unix("SIGPIPE")
def test_sigpipe_does_not_kill(backend: Backend, oxloop: Any, tmp_path: pathlib.Path) -> None:
    """A program that embeds Python may not ignore SIGPIPE, and sendfile(2) has no MSG_NOSIGNAL."""
    source = f"""
{backend.source}
import asyncio, signal, socket
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
async def main():
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    left.setblocking(False)
    right.close()
    try:
        with open({__file__!r}, "rb") as file:
            await loop.sock_sendfile(left, file, fallback=False)
    except asyncio.SendfileNotAvailableError:
        print("alive")
loop = new_loop()
loop.run_until_complete(main())
loop.close()
"""
    result = run_python(source)
    expected = (-signal.SIGPIPE, "") if backend.is_oracle else (0, "alive\n")
    assert (result.returncode, result.stdout) == expected, result.stderr


class Link:
    """A transport with its protocol, and the peer at the other end."""

    def __init__(self, transport: Any, protocol: Any, peer: Peer) -> None:
        self.transport = transport
        self.protocol = protocol
        self.peer = peer

    async def end(self) -> None:
        """Let it go."""
        if not self.transport.is_closing():
            self.transport.abort()
        self.peer.close()
        await turns(3)


async def adopted() -> Link:
    """A transport over the user's own socket."""
    left, right = small_pair()
    loop: Any = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Recorder, sock=left)
    return Link(transport, protocol, Peer(right))


async def served(make: Callable[..., Awaitable[Any]], connect: Callable[[Any], Any]) -> Link:
    loop: Any = asyncio.get_running_loop()
    made: asyncio.Future[Recorder] = loop.create_future()

    def factory() -> Recorder:
        made.set_result(Recorder())
        return made.result()

    server = await make(factory)
    sock = connect(server)
    sock.setblocking(False)
    protocol = await made
    await protocol.until_event("made")
    server.close()
    transport = protocol.transport
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    return Link(transport, protocol, Peer(sock))


async def accepted() -> Link:
    """A transport that a TCP server has made."""

    def connect(server: Any) -> socket.socket:
        sock = socket.socket()
        sock.connect(server.sockets[0].getsockname())
        return sock

    loop: Any = asyncio.get_running_loop()
    return await served(lambda factory: loop.create_server(factory, LOCALHOST, 0), connect)


async def unix() -> Link:
    """A transport that a server of a Unix socket has made."""
    name = f"\0oxloop-{os.getpid()}-sendfile"

    def connect(server: Any) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(name)
        return sock

    loop: Any = asyncio.get_running_loop()
    return await served(lambda factory: loop.create_unix_server(factory, name), connect)


WITH_UNIX = (unix,) if hasattr(socket, "AF_UNIX") else ()
LINKS = {function.__name__: function for function in (adopted, accepted, *WITH_UNIX)}


@contextlib.asynccontextmanager
async def link_of(name: str = "adopted") -> AsyncIterator[Link]:
    """A link, gone after the block."""
    link = await LINKS[name]()
    try:
        yield link
    finally:
        await link.end()


class Outlet(NamedTuple):
    """What files are sent to, by a method of the loop: a socket, or a transport."""

    method: str
    target: Any
    peer: Peer

    def send(self, file: Any, *args: Any, **options: Any) -> Any:
        """Send `file`."""
        loop: Any = asyncio.get_running_loop()
        return getattr(loop, self.method)(self.target, file, *args, **options)


@contextlib.asynccontextmanager
async def outlet_of(method: str) -> AsyncIterator[Outlet]:
    """An outlet, gone after the block."""
    if method == "sendfile":
        async with link_of() as link:
            yield Outlet(method, link.transport, link.peer)
            assert link.transport.get_protocol() in (link.protocol, None)
        return
    left, right = small_pair()
    with left, contextlib.closing(Peer(right)) as peer:
        yield Outlet(method, left, peer)
        assert asyncio.get_running_loop().remove_writer(left) is False, "it is still watched"


@pytest.mark.parametrize("method", ["sock_sendfile", "sendfile"])
class TestBoth:
    """What both methods do."""

    @pytest.mark.parametrize("name", ARGUMENTS)
    def test_arguments(self, run: Run, file: Any, method: str, name: str) -> None:
        arguments, error, text = ARGUMENTS[name]

        async def main() -> None:
            async with outlet_of(method) as outlet:
                with pytest.raises(error, match=text):
                    await outlet.send(file, *arguments)
                # As if nothing had been asked.
                sent, received = await both(outlet.send(file, 0, 9), outlet.peer.receive(9))
                assert (sent, received) == (9, DATA[:9])

        run(main)

    def test_a_file_in_memory(self, run: Run, backend: Backend, method: str) -> None:
        spoilt(backend, native=method == "sock_sendfile")

        async def main() -> None:
            memory = io.BytesIO(DATA)
            async with outlet_of(method) as outlet:
                with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
                    await outlet.send(memory, fallback=False)
                assert memory.tell() == 0
                sending = outlet.send(memory, 1000, 300_000)
                sent, received = await both(sending, outlet.peer.receive(300_000))
                assert (sent, received) == (300_000, DATA[1000:301_000])
                assert memory.tell() == 301_000

        run(main)

    @WAYS
    def test_a_peer_that_resets_in_the_middle(
        self, run: Run, file: Any, method: str, native: bool
    ) -> None:
        async def main() -> None:
            running_loop(native)
            async with outlet_of(method) as outlet:
                sending = asyncio.ensure_future(outlet.send(file))
                assert DATA.startswith(await outlet.peer.receive(1024))
                await turns(2)
                assert not sending.done()
                outlet.peer.reset()
                with pytest.raises(ConnectionError):
                    await sending
                if native:
                    assert 1024 <= file.tell() < len(DATA)

        run(main)

    def test_an_overridden_method_is_asked(self, run: Run, file: Any, method: str) -> None:
        async def main() -> None:
            asked: List[Any] = []

            async def native(*args: Any) -> int:
                asked.append(args)
                return 42

            setattr(asyncio.get_running_loop(), f"_{method}_native", native)
            async with outlet_of(method) as outlet:
                assert await outlet.send(file, 1, None) == 42
                assert asked == [(outlet.target, file, 1, None)]

        run(main)


class TestTransport:
    """loop.sendfile."""

    def test_a_refused_file_changes_nothing(self, run: Run, file: Any) -> None:
        async def main() -> None:
            async with link_of() as link:
                with pytest.raises(ValueError, match="count must be a positive integer"):
                    await asyncio.get_running_loop().sendfile(link.transport, file, 0, -1)
                assert link.transport.is_reading()
                link.transport.write(b"as before")
                assert await link.peer.receive(9) == b"as before"

        run(main)

    def test_a_peer_that_resets_is_told_once(self, run: Run, file: Any) -> None:
        async def main() -> None:
            async with link_of() as link:
                loop = asyncio.get_running_loop()
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                await link.peer.receive(1024)
                link.peer.reset()
                with pytest.raises(ConnectionError):
                    await sending
                await link.protocol.lost()
                assert link.protocol.events.count("lost") == 1

        run(main)

    @WAYS
    @pytest.mark.parametrize("kind", LINKS)
    @pytest.mark.parametrize("name", ["all", "a piece", "count None", "behind the end"])
    def test_a_part_of_a_file(
        self, run: Run, backend: Backend, file: Any, kind: str, name: str, native: bool
    ) -> None:
        """What was written before goes first, what is written afterwards behind it."""
        spoilt(backend, native)
        arguments, expected, position = PARTS[name]

        async def main() -> None:
            loop = running_loop(native)
            async with link_of(kind) as link:
                before, after = b"<" * 200_000, b">" * 200_000
                receiving = asyncio.ensure_future(link.peer.receive_to_eof())
                link.transport.write(before)
                assert link.transport.get_write_buffer_size() > 0
                assert await loop.sendfile(link.transport, file, *arguments) == len(expected)
                if expected:
                    assert file.tell() == position
                link.transport.write(after)
                link.transport.close()
                assert await receiving == before + expected + after
                assert await link.protocol.lost() is None

        run(main)

    @WAYS
    def test_reading_waits_and_goes_on(self, run: Run, file: Any, native: bool) -> None:
        async def main() -> None:
            loop = running_loop(native)
            async with link_of() as link:
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                await link.peer.send(b"meanwhile")
                await turns(3)
                assert not link.transport.is_reading()
                assert link.protocol.data == b""
                await both(sending, link.peer.receive(len(DATA)))
                assert link.transport.is_reading()
                assert await link.protocol.received(9) == b"meanwhile"
                assert link.transport.get_protocol() is link.protocol

        run(main)

    @WAYS
    def test_reading_stays_paused(self, run: Run, file: Any, native: bool) -> None:
        async def main() -> None:
            loop = running_loop(native)
            async with link_of() as link:
                link.transport.pause_reading()
                await both(loop.sendfile(link.transport, file), link.peer.receive(len(DATA)))
                assert not link.transport.is_reading()

        run(main)

    def test_nobody_writes_in_between(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            name = "writelines" if PY312 else "write"
            async with link_of() as link:
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                await turns(2)
                with pytest.raises(RuntimeError, match="unable to write; sendfile is in progress"):
                    link.transport.write(b"data")
                with pytest.raises(RuntimeError, match=f"unable to {name}; sendfile is in prog"):
                    link.transport.writelines([b"data"])
                _, received = await both(sending, link.peer.receive(len(DATA)))
                assert received == DATA
                link.transport.write(b"data")
                assert await link.peer.receive(4) == b"data"

        run(main)

    def test_one_file_at_a_time(self, run: Run, backend: Backend, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                await turns(2)
                # asyncio's own way of saying that it is taken is an accident.
                error = KeyError if backend.is_oracle else RuntimeError
                with pytest.raises(error):
                    await loop.sendfile(link.transport, file)
                if backend.is_oracle:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                else:
                    _, received = await both(sending, link.peer.receive(len(DATA)))
                    assert received == DATA

        run(main)

    def test_an_empty_file_waits_its_turn(self, run: Run, tmp_path: pathlib.Path) -> None:
        (tmp_path / "empty").touch()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:
                link.transport.write(DATA)
                with (tmp_path / "empty").open("rb") as empty:
                    sending = asyncio.ensure_future(loop.sendfile(link.transport, empty))
                    await turns(3)
                    assert not sending.done()
                    assert await both(sending, link.peer.receive(len(DATA))) == (0, DATA)

        run(main)

    def test_a_closing_transport(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:
                link.transport.close()
                with pytest.raises(RuntimeError, match="Transport is closing"):
                    await loop.sendfile(link.transport, file)

        run(main)

    def test_a_transport_of_datagrams(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, (LOCALHOST, 0)
            )
            with pytest.raises(RuntimeError, match="sendfile is not supported for transport <"):
                await loop.sendfile(transport, file)
            transport.close()
            await turns(2)

        run(main)

    def test_a_pipe_transport(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            reader, writer = pipe_ends()
            with reader, writer:
                transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writer)
                with pytest.raises(RuntimeError, match="sendfile is not supported for transport <"):
                    await loop.sendfile(transport, file)
                transport.close()
                await turns(2)

        run(main)

    def test_what_a_transport_says_counts(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:
                link.transport._sendfile_compatible = constants._SendfileMode.UNSUPPORTED
                with pytest.raises(RuntimeError, match="sendfile is not supported"):
                    await loop.sendfile(link.transport, file)
                link.transport._sendfile_compatible = constants._SendfileMode.FALLBACK
                with pytest.raises(RuntimeError, match="fallback is disabled and native sendfile"):
                    await loop.sendfile(link.transport, file, fallback=False)

        run(main)

    def test_a_file_that_cannot_be_read(self, run: Run) -> None:
        """The protocol has its transport back."""

        class Broken(io.BytesIO):
            def readinto(self, buffer: Any) -> int:
                raise ZeroDivisionError

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:
                with pytest.raises(ZeroDivisionError):
                    await loop.sendfile(link.transport, Broken())
                assert link.transport.get_protocol() is link.protocol
                await link.peer.send(b"data")
                assert await link.protocol.received(4) == b"data"

        run(main)

    @WAYS
    def test_a_peer_that_resets_before_its_turn(
        self, run: Run, backend: Backend, file: Any, native: bool, reports: Reports
    ) -> None:
        """What was written before never went."""

        async def main() -> None:
            loop = running_loop(native)
            async with link_of() as link:
                link.transport.write(DATA)
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                await turns(2)
                link.peer.reset()
                with pytest.raises(ConnectionError):
                    await sending
                await link.protocol.lost()

        run(main)
        if backend.is_oracle and native:
            assert "invalid state" in str(reports.take_one()["exception"])

    @pytest.mark.parametrize("ending", ["close", "abort"])
    @pytest.mark.parametrize("waiting", [False, True], ids=["under way", "waiting"])
    def test_closing_in_the_middle(
        self, run: Run, backend: Backend, file: Any, ending: str, waiting: bool
    ) -> None:
        """asyncio would wait for ever, having stopped to watch the descriptor."""
        if backend.is_oracle:
            pytest.skip("does not end")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:
                if waiting:
                    link.transport.write(DATA)
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                await turns(3)
                getattr(link.transport, ending)()
                receiving = asyncio.ensure_future(link.peer.receive_to_eof())
                with pytest.raises(ConnectionError, match="Connection is closed by peer"):
                    await sending
                assert await link.protocol.lost() is None
                received = await receiving
                if waiting and ending == "close":
                    assert received == DATA
                else:
                    assert DATA.startswith(received)
                    assert file.tell() == (0 if waiting else len(received))

        run(main)

    def test_closing_in_the_middle_of_the_fallback(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop = running_loop(native=False)
            async with link_of() as link:
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                await link.peer.receive(1024)
                link.transport.abort()
                with pytest.raises(ConnectionError):
                    await sending
                assert await link.protocol.lost() is None

        run(main)

    @WAYS
    def test_cancelling(self, run: Run, backend: Backend, file: Any, native: bool) -> None:
        """The transport can be used again."""
        spoilt(backend, native)

        async def main() -> None:
            loop = running_loop(native)
            async with link_of() as link:
                sending = asyncio.ensure_future(loop.sendfile(link.transport, file))
                received = await link.peer.receive(20_000)
                await turns(2)
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
                assert link.transport.is_reading()
                assert link.transport.get_protocol() is link.protocol
                link.transport.write(b"END")
                link.transport.close()
                received += await link.peer.receive_to_eof()
                assert received.endswith(b"END")
                assert DATA.startswith(received[:-3])

        run(main)

    def test_the_protocol_is_told_of_pauses_in_pairs(self, run: Run, backend: Backend) -> None:
        """Those of the file are the file's; those that begin before it or end after it are not."""
        if backend.is_oracle:
            pytest.skip("resumes a protocol twice, and one that was not paused")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:
                transport, events = link.transport, link.protocol.events
                receiving = asyncio.ensure_future(link.peer.receive_to_eof())
                await loop.sendfile(transport, io.BytesIO(DATA))
                await link.protocol.until(lambda: events.count("pause") == events.count("resume"))
                transport.write(DATA)
                assert events[-1] == "pause"
                before = events.count("resume")
                await loop.sendfile(transport, io.BytesIO(DATA))
                await link.protocol.until(lambda: events.count("pause") == events.count("resume"))
                told = [event for event in events if event in ("pause", "resume")]
                assert told == ["pause", "resume"] * (len(told) // 2)
                assert events.count("resume") > before
                transport.close()
                assert await receiving == DATA * 3

        run(main)

    def test_by_streams(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            left, right = small_pair()
            reader, writer = await asyncio.open_connection(sock=left)
            peer = Peer(right)
            receiving = asyncio.ensure_future(peer.receive(len(DATA) + 10))
            writer.write(b"before")
            assert await loop.sendfile(writer.transport, file) == len(DATA)
            writer.write(b"last")
            await writer.drain()
            assert await receiving == b"before" + DATA + b"last"
            await peer.send(b"answer")
            assert await reader.readexactly(6) == b"answer"
            writer.close()
            await writer.wait_closed()
            peer.close()

        run(main)

    def test_a_tls_transport(self, run: Run, authority: Authority, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with client_of(authority) as (end, peer):
                with pytest.raises(RuntimeError, match="fallback is disabled and native"):
                    await loop.sendfile(end.transport, file, fallback=False)
                end.transport.write(b"before")
                sending = asyncio.ensure_future(loop.sendfile(end.transport, file, 100, 400_000))
                received = await peer.hear(400_006)
                assert received == b"before" + DATA[100:400_100]
                assert await sending == 400_000
                assert file.tell() == 400_100
                end.transport.write(b"after")
                assert await peer.hear(5) == b"after"
                await peer.say(b"answer")
                assert await end.protocol.received(6) == b"answer"

        run(main)

    def test_a_tls_server(self, run: Run, authority: Authority, file: Any) -> None:
        """TLS at both ends."""

        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            made: asyncio.Future[Any] = loop.create_future()

            def factory() -> Closing:
                made.set_result(Closing())
                return made.result()  # type: ignore[no-any-return]

            server = await loop.create_server(factory, LOCALHOST, 0, ssl=authority.server())
            address = server.sockets[0].getsockname()
            transport, client = await loop.create_connection(
                Closing, *address, ssl=authority.client(), server_hostname=NAME
            )
            protocol = await made
            await protocol.until_event("made")
            assert await loop.sendfile(protocol.transport, file) == len(DATA)
            assert await client.received(len(DATA)) == DATA
            protocol.transport.close()
            await client.lost()
            await protocol.lost()
            transport.close()
            server.close()
            await server.wait_closed()
            await turns(3)

        run(main)

    def test_a_transport_of_somebody_else(self, run: Run, file: Any) -> None:
        """One that follows asyncio's interface is written to."""

        class Written(asyncio.transports._FlowControlMixin):
            """Keeps what it is given, and asks to pause after each write."""

            _sendfile_compatible = constants._SendfileMode.FALLBACK

            def __init__(self, loop: Any, protocol: Any) -> None:
                super().__init__(loop=loop)
                self.protocol = protocol
                self.reading = True
                self.data: List[Any] = []
                self.calls: List[str] = []
                self.pauses = 0

            def is_closing(self) -> bool:
                return False

            def get_protocol(self) -> Any:
                return self.protocol

            def set_protocol(self, protocol: Any) -> None:
                self.protocol = protocol
                self.calls.append("set_protocol")

            def is_reading(self) -> bool:
                return self.reading

            def pause_reading(self) -> None:
                self.reading = False
                self.calls.append("pause_reading")

            def resume_reading(self) -> None:
                self.reading = True
                self.calls.append("resume_reading")

            def write(self, data: Any) -> None:
                assert not self.pauses, "the file does not wait"
                assert not self.reading
                self.data.append(data)
                self.pauses += 1
                self.protocol.pause_writing()
                loop = asyncio.get_running_loop()
                loop.call_soon(self._resume)

            def _resume(self) -> None:
                self.pauses -= 1
                self.protocol.resume_writing()

            def get_write_buffer_size(self) -> int:
                return 0

        async def main() -> None:
            loop: Any = asyncio.get_running_loop()
            protocol = Recorder()
            transport = Written(loop, protocol)
            assert await loop.sendfile(transport, file, 10, 200_000) == 200_000
            # asyncio gives views of one buffer, which it fills again; this one had to copy.
            assert sum(len(data) for data in transport.data) == 200_000
            assert transport.calls[:1] == ["pause_reading"]
            assert transport.calls[-2:] == ["set_protocol", "resume_reading"]
            assert transport.get_protocol() is protocol
            await turns(2)

        run(main)

    def test_nothing_is_left_behind(self, run: Run, file: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            async with link_of() as link:

                async def once() -> None:
                    sending = loop.sendfile(link.transport, file, 0, 30_000)
                    await both(sending, link.peer.receive(30_000))
                    sending = loop.sendfile(link.transport, io.BytesIO(DATA), 0, 3_000)
                    await both(sending, link.peer.receive(3_000))

                await assert_flat(once, 200)

        run(main)
