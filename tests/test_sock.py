"""The sock_* methods: plain non-blocking sockets, awaited."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Tuple

import pytest
from support.backends import PY311, Backend
from support.children import run_python
from support.platforms import WINDOWS, says
from support.recorders import Recorder
from support.running import Run, turns
from support.sockets import (
    LOCALHOST,
    bound_udp,
    fill,
    listener,
    pair_at,
    refusing_address,
    reset,
    tcp_pair,
)

Pair = Tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected non-blocking TCP sockets."""
    left, right = tcp_pair()
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def datagrams() -> Iterator[Pair]:
    """Two bound non-blocking UDP sockets."""
    left, right = bound_udp(), bound_udp()
    yield left, right
    left.close()
    right.close()


Call = Callable[[Any, socket.socket], Awaitable[Any]]

# Calls that wait: nothing to read, or nobody to accept.
WAITING: Dict[str, Call] = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 10),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(10)),
}
CALLS: Dict[str, Call] = {
    **WAITING,
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"data"),
    "sock_connect": lambda loop, sock: loop.sock_connect(sock, (LOCALHOST, 9)),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock),
}
DATAGRAM_WAITING: Dict[str, Call] = {}
if PY311:
    DATAGRAM_WAITING = {
        "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 10),
        "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(10)),
    }
    CALLS.update(DATAGRAM_WAITING)
    CALLS["sock_sendto"] = lambda loop, sock: loop.sock_sendto(sock, b"x", (LOCALHOST, 9))
with_datagrams = pytest.mark.skipif(not PY311, reason="new in Python 3.11")


def test_sock_recv_returns_what_is_there(run: Run, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        right.send(b"data")
        assert await loop.sock_recv(left, 2) == b"da"
        assert await loop.sock_recv(left, 100) == b"ta"

    run(main)


def test_sock_recv_of_data_that_is_there_takes_no_turn(run: Run, pair: Pair) -> None:
    """asyncio tries to read first: no callback runs before it returns."""
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        right.send(b"data")
        order: List[str] = []
        loop.call_soon(order.append, "a turn")
        await loop.sock_recv(left, 10)
        await loop.sock_sendall(left, b"x")
        assert order == []

    run(main)


@pytest.mark.parametrize("name", WAITING)
def test_reading_waits_for_data(run: Run, pair: Pair, name: str) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(WAITING[name](loop, left))
        await turns(3)
        assert not task.done()
        right.send(b"later")
        assert await task in (b"later", 5)
        assert loop.remove_reader(left) is False, "the descriptor is no longer watched"

    run(main)


def test_sock_recv_at_eof(run: Run, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        right.close()
        assert await task == b""
        assert await loop.sock_recv(left, 10) == b""

    run(main)


def test_sock_recv_of_nothing(run: Run, pair: Pair) -> None:
    async def main() -> None:
        assert await asyncio.get_running_loop().sock_recv(pair[0], 0) == b""

    run(main)


@pytest.mark.parametrize("name", WAITING)
def test_reading_from_a_peer_that_resets(run: Run, pair: Pair, name: str) -> None:
    """A peer that resets gives asyncio's exception."""
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(WAITING[name](loop, left))
        await turns(2)
        reset(right)
        with pytest.raises(ConnectionResetError):
            await task

    run(main)


def test_sock_recv_into_fills_the_buffer(run: Run, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray(8)
        right.send(b"0123456789")
        assert await loop.sock_recv_into(left, memoryview(buffer)[2:6]) == 4
        assert bytes(buffer) == b"\0\x000123\0\0"
        assert await loop.sock_recv_into(left, buffer) == 6
        assert bytes(buffer) == b"456789\0\0"

    run(main)


def test_sock_recv_into_keeps_a_buffer_that_waits(run: Run, pair: Pair) -> None:
    """A bytearray that a read waits to fill cannot be freed; resizing it is refused or harmless."""
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray(8)
        task = asyncio.ensure_future(loop.sock_recv_into(left, buffer))
        await turns(2)
        with contextlib.suppress(BufferError):
            buffer.extend(b"x" * 100_000)
        right.send(b"data")
        assert await task == 4
        assert buffer[:4] == b"data"

    run(main)


def test_sock_recv_into_needs_a_writable_buffer(run: Run, pair: Pair) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for wrong in (b"read-only", "text", 10):
            with pytest.raises(TypeError):
                await loop.sock_recv_into(pair[0], wrong)

    run(main)


@pytest.mark.parametrize("wrong", ["ten", None, 1.5])
def test_sock_recv_needs_an_integer(run: Run, pair: Pair, wrong: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError):
            await asyncio.get_running_loop().sock_recv(pair[0], wrong)

    run(main)


def test_sock_recv_refuses_a_negative_size(run: Run, pair: Pair) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="negative buffersize in recv"):
            await asyncio.get_running_loop().sock_recv(pair[0], -1)

    run(main)


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_sock_sendall_sends_bytes_like_objects(run: Run, pair: Pair, convert: Any) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.sock_sendall(left, convert(b"data")) is None
        assert await loop.sock_recv(right, 10) == b"data"

    run(main)


def test_sock_sendall_of_nothing(run: Run, pair: Pair) -> None:
    async def main() -> None:
        assert await asyncio.get_running_loop().sock_sendall(pair[0], b"") is None

    run(main)


def test_sock_sendall_waits_for_room(run: Run, pair: Pair) -> None:
    left, right = pair
    payload = bytes(range(256)) * 8192

    async def main() -> None:
        loop = asyncio.get_running_loop()
        filled = fill(left)
        task = asyncio.ensure_future(loop.sock_sendall(left, payload))
        await turns(3)
        assert not task.done()
        got = bytearray()
        while len(got) < filled + len(payload):
            got += await loop.sock_recv(right, 1 << 20)
        await task
        assert got[filled:] == payload
        assert loop.remove_writer(left) is False, "the descriptor is no longer watched"

    run(main)


def test_sock_sendall_of_a_memoryview_of_words(run: Run, pair: Pair) -> None:
    import array

    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        words = memoryview(array.array("I", range(4)))
        with contextlib.suppress(BufferError):
            await loop.sock_sendall(left, words.cast("B"))
        assert await loop.sock_recv(right, 100) == words.tobytes()

    run(main)


@pytest.mark.parametrize("wrong", ["text", None, 10])
def test_sock_sendall_needs_bytes(run: Run, pair: Pair, wrong: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError):
            await asyncio.get_running_loop().sock_sendall(pair[0], wrong)

    run(main)


def test_sock_sendall_to_a_peer_that_resets(run: Run, pair: Pair) -> None:
    """A peer that resets gives asyncio's exception."""
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # More than any buffer takes, also when the kernel finds room a little later.
        task = asyncio.ensure_future(loop.sock_sendall(left, bytes(1 << 24)))
        await turns(3)
        assert not task.done()
        reset(right)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await task

    run(main)


def test_sock_connect_and_sock_accept(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, socket.socket() as sock:
            sock.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listening))
            await turns(2)
            assert not accepting.done()
            assert await loop.sock_connect(sock, listening.getsockname()) is None
            connection, address = await accepting
            with connection:
                assert type(connection) is socket.socket
                assert connection.gettimeout() == 0
                assert not connection.get_inheritable()
                assert address == sock.getsockname()
                await loop.sock_sendall(connection, b"hello")
                assert await loop.sock_recv(sock, 10) == b"hello"

    run(main)


def test_sock_accept_takes_who_waits_already(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, socket.create_connection(listening.getsockname()) as client:
            connection, address = await loop.sock_accept(listening)
            connection.close()
            assert address == client.getsockname()

    run(main)


def test_sock_accept_needs_a_listening_socket(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(OSError, match="Invalid argument"):
                await asyncio.get_running_loop().sock_accept(sock)

    run(main)


def test_sock_accept_on_ipv6(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6) as listening, socket.socket(socket.AF_INET6) as sock:
            sock.setblocking(False)
            listening.setblocking(False)
            listening.bind(("::1", 0))
            listening.listen()
            await loop.sock_connect(sock, listening.getsockname())
            connection, address = await loop.sock_accept(listening)
            connection.close()
            assert address == sock.getsockname()

    run(main)


@pytest.mark.unix("AF_UNIX")
def test_sock_accept_on_unix_sockets(run: Run, tmp_path: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            listening.setblocking(False)
            listening.bind(path)
            listening.listen()
            await loop.sock_connect(sock, path)
            connection, address = await loop.sock_accept(listening)
            connection.close()
            assert address == ""
            assert sock.getpeername() == path

    run(main)


def test_sock_connect_connects_in_its_first_step(run: Run) -> None:
    """`sock_connect` has called connect() in its first step."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, socket.socket() as sock:
            sock.setblocking(False)
            task = asyncio.ensure_future(loop.sock_connect(sock, listening.getsockname()))
            await turns(1)
            connection, _ = listening.accept()
            connection.close()
            await task

    run(main)


def test_sock_connect_to_a_port_that_refuses(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as address, socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.sock_connect(sock, address)
            assert (
                str(caught.value) == f"[Errno {errno.ECONNREFUSED}] Connect call failed {address}"
            )
            assert loop.remove_writer(sock) is False

    run(main)


def test_sock_connect_resolves_names(run: Run) -> None:
    """asyncio docs, loop.sock_connect: "address no longer needs to be resolved"."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening, socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("localhost", listening.getsockname()[1]))
            assert sock.getpeername() == listening.getsockname()

    run(main)


def test_sock_connect_to_an_unknown_name(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(socket.gaierror):
                await asyncio.get_running_loop().sock_connect(sock, ("bad\x01name", 80))

    run(main)


def test_sock_connect_of_a_connected_socket(run: Run, pair: Pair) -> None:
    async def main() -> None:
        with listener() as listening, pytest.raises(OSError, match=says(errno.EISCONN)):
            await asyncio.get_running_loop().sock_connect(pair[0], listening.getsockname())

    run(main)


@pytest.mark.parametrize("address", [(LOCALHOST,), LOCALHOST, None, 80, (LOCALHOST, "no service")])
def test_sock_connect_with_a_wrong_address(run: Run, backend: Backend, address: Any) -> None:
    """Wrong arguments raise asyncio's exception with its text."""

    async def attempt(loop: Any) -> Exception:
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(Exception) as caught:  # noqa: PT011
                await loop.sock_connect(sock, address)
        return caught.value

    oracle = asyncio.SelectorEventLoop()
    try:
        expected = oracle.run_until_complete(attempt(oracle))
        oracle.run_until_complete(oracle.shutdown_default_executor())
    finally:
        oracle.close()

    async def main() -> Exception:
        return await attempt(asyncio.get_running_loop())

    got = run(main)
    assert (type(got), str(got)) == (type(expected), str(expected))


@pytest.mark.parametrize("name", CALLS)
def test_a_blocking_socket_is_refused_in_debug_mode(run: Run, name: str) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await CALLS[name](asyncio.get_running_loop(), sock)

    run(main, debug=True)


@pytest.mark.parametrize("name", CALLS)
def test_a_closed_socket_is_refused(run: Run, name: str) -> None:
    async def main() -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        with pytest.raises(
            OSError, match=says(errno.EBADF) if not WINDOWS else says(errno.ENOTSOCK)
        ):
            await CALLS[name](asyncio.get_running_loop(), sock)

    run(main)


@pytest.mark.parametrize("name", CALLS)
def test_a_tls_socket_is_refused(run: Run, name: str) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket()) as sock:
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                await CALLS[name](asyncio.get_running_loop(), sock)

    run(main)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_socket_is_refused(run: Run, name: str) -> None:
    async def main() -> None:
        with pytest.raises((AttributeError, TypeError)):
            await CALLS[name](asyncio.get_running_loop(), "socket")  # type: ignore[arg-type]

    run(main)


@pytest.mark.parametrize("name", [*WAITING, "sock_accept"])
def test_cancelling_stops_watching(run: Run, pair: Pair, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            sock = listening if name == "sock_accept" else pair[0]
            task = asyncio.ensure_future(CALLS[name](loop, sock))
            await turns(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert loop.remove_reader(sock) is False

    run(main)


def test_cancelling_a_read_loses_no_data(run: Run, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        right.send(b"data")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await loop.sock_recv(left, 10) == b"data"

    run(main)


def test_the_peer_sees_a_close_after_a_cancelled_read_at_once(run: Run, pair: Pair) -> None:
    """The kernel has let go of the descriptor when the task has been cancelled."""
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left.close()
        assert right.recv(10) == b""

    run(main)


def test_cancelling_an_accept_loses_no_connection(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            for _ in range(3):
                task = asyncio.ensure_future(loop.sock_accept(listening))
                await turns(3)
                with socket.create_connection(listening.getsockname()) as client:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    accepted, address = await loop.sock_accept(listening)
                    with accepted:
                        assert address == client.getsockname()
                        accepted.send(b"x")
                        assert client.recv(10) == b"x"

    run(main)


def test_cancelling_a_write_stops_watching(run: Run, pair: Pair) -> None:
    left, _ = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        fill(left)
        task = asyncio.ensure_future(loop.sock_sendall(left, b"data"))
        await turns(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_writer(left) is False

    run(main)


def test_cancelling_a_connect_stops_watching(run: Run) -> None:
    """A full backlog keeps the connect waiting."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener(backlog=0) as listening, contextlib.ExitStack() as stack:
            tasks = []
            for _ in range(8):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                connecting = loop.sock_connect(sock, listening.getsockname())
                tasks.append((sock, asyncio.ensure_future(connecting)))
            await turns(3)
            waiting = [(sock, task) for sock, task in tasks if not task.done()]
            assert waiting
            for sock, task in waiting:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert loop.remove_writer(sock) is False
            await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)

    run(main)


def test_wait_for_cancels_a_read(run: Run, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.sock_recv(left, 10), 0.005)
        right.send(b"data")
        assert await asyncio.wait_for(loop.sock_recv(left, 10), 30) == b"data"

    run(main)


def test_reading_and_writing_one_socket_at_the_same_time(run: Run, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        fill(left)
        reading = asyncio.ensure_future(loop.sock_recv(left, 10))
        writing = asyncio.ensure_future(loop.sock_sendall(left, b"END"))
        await turns(2)
        assert not reading.done()
        assert not writing.done()
        right.send(b"data")
        assert await reading == b"data"
        assert not writing.done()
        got = b""
        while not got.endswith(b"END"):
            got = got[-3:] + await loop.sock_recv(right, 1 << 20)
        await writing

    run(main)


def test_a_later_read_of_one_socket_takes_the_place_of_the_earlier(run: Run, pair: Pair) -> None:
    """asyncio: a second sock_recv() replaces the first one's reader; the later one gets the data."""
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        second = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        right.send(b"data")
        assert await second == b"data"
        assert not first.done()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main)


def test_the_cancellation_of_a_replaced_read_leaves_the_later_one_alone(
    run: Run, pair: Pair
) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        second = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        first.cancel()
        await turns(3)
        right.send(b"data")
        assert await second == b"data"
        assert first.cancelled()

    run(main)


def test_a_socket_closed_while_a_read_waits_neither_hangs_nor_touches_another(
    run: Run, backend: Backend
) -> None:
    """A socket closed while `sock_recv` waits on it touches no other fd.

    As with asyncio the waiting call is left to be cancelled; the new owner of the number reads.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        first = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        number = left.fileno()
        left.close()
        right.close()
        await turns(2)
        if first.done():
            assert isinstance(first.exception(), OSError)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        new, peer = pair_at(number) if WINDOWS else socket.socketpair()
        with new, peer:
            new.setblocking(False)
            assert new.fileno() <= number
            reading = asyncio.ensure_future(loop.sock_recv(new, 10))
            await turns(2)
            peer.send(b"data")
            assert await reading == b"data"

    if backend.name in ("select", "user"):
        pytest.skip("select() fails as a whole with EBADF for a descriptor that is closed")
    run(main)


def test_a_number_reused_while_an_old_read_waits(run: Run, backend: Backend) -> None:
    """A socket closed while `sock_recv` waits on it touches no other fd."""
    if backend.is_oracle:
        pytest.skip("asyncio believes that the descriptor is still registered")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        old = asyncio.ensure_future(loop.sock_recv(left, 10))
        await turns(2)
        left.close()
        right.close()
        new, peer = tcp_pair()
        with new, peer:
            peer.send(b"for the new one")
            reading = asyncio.ensure_future(loop.sock_recv(new, 100))
            assert await reading == b"for the new one"
            await turns(3)
            if old.done() and not old.cancelled():
                assert isinstance(old.exception(), OSError)
        old.cancel()
        await asyncio.gather(old, return_exceptions=True)

    run(main)


@pytest.mark.parametrize("name", ["sock_recv", "sock_recv_into", "sock_accept"])
def test_the_socket_of_a_transport_is_refused(run: Run, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        if name != "sock_accept":
            with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport"):
                await CALLS[name](loop, left)
        transport.close()
        await protocol.lost()
        right.close()

    run(main)


@with_datagrams
def test_sock_sendto_and_sock_recvfrom(run: Run, datagrams: Pair) -> None:
    left, right = datagrams

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(loop.sock_recvfrom(right, 100))
        await turns(2)
        assert not task.done()
        assert await loop.sock_sendto(left, b"data", right.getsockname()) == 4
        assert await task == (b"data", left.getsockname())
        assert loop.remove_reader(right) is False

    run(main)


@with_datagrams
def test_empty_datagrams_arrive(run: Run, datagrams: Pair) -> None:
    """Seen elsewhere: empty datagrams dropped."""
    left, right = datagrams

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.sock_sendto(left, b"", right.getsockname()) == 0
        assert await loop.sock_recvfrom(right, 10) == (b"", left.getsockname())

    run(main)


@with_datagrams
def test_sock_recvfrom_into(run: Run, datagrams: Pair) -> None:
    left, right = datagrams

    async def main() -> None:
        loop = asyncio.get_running_loop()
        buffer = bytearray(8)
        left.sendto(b"datagram", right.getsockname())
        assert await loop.sock_recvfrom_into(right, buffer) == (8, left.getsockname())
        assert bytes(buffer) == b"datagram"
        left.sendto(b"DATAGRAM", right.getsockname())
        assert await loop.sock_recvfrom_into(right, buffer, 4) == (4, left.getsockname())
        assert bytes(buffer) == b"DATAgram"
        task = asyncio.ensure_future(loop.sock_recvfrom_into(right, buffer))
        await turns(2)
        left.sendto(b"late", right.getsockname())
        assert await task == (4, left.getsockname())

    run(main)


@with_datagrams
def test_ipv6_datagram_addresses(run: Run) -> None:
    """Seen elsewhere: IPv6 datagram addresses mangled."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as left,
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as right,
        ):
            for sock in (left, right):
                sock.setblocking(False)
                sock.bind(("::1", 0))
            await loop.sock_sendto(left, b"data", right.getsockname())
            assert await loop.sock_recvfrom(right, 10) == (b"data", left.getsockname())

    run(main)


@with_datagrams
@pytest.mark.parametrize("name", DATAGRAM_WAITING)
def test_cancelling_a_datagram_read_stops_watching(run: Run, datagrams: Pair, name: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(DATAGRAM_WAITING[name](loop, datagrams[0]))
        await turns(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.remove_reader(datagrams[0]) is False

    run(main)


@with_datagrams
def test_sock_sendto_a_wrong_address(run: Run, datagrams: Pair) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for wrong in ((LOCALHOST,), "text", None):
            with pytest.raises(TypeError):
                await loop.sock_sendto(datagrams[0], b"x", wrong)
        with pytest.raises(TypeError):
            await loop.sock_sendto(datagrams[0], "text", datagrams[1].getsockname())

    run(main)


@with_datagrams
def test_econnrefused_of_a_datagram_socket(run: Run, datagrams: Pair) -> None:
    left, right = datagrams

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(left, right.getsockname())
        right.close()
        await loop.sock_sendall(left, b"x")
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_recv(left, 10)

    run(main)


def test_an_echo_of_many_messages(run: Run, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def echo() -> None:
            while True:
                data = await loop.sock_recv(right, 4096)
                if not data:
                    return
                await loop.sock_sendall(right, data)

        task = asyncio.ensure_future(echo())
        for number in range(500):
            message = b"%08d" % number
            await loop.sock_sendall(left, message)
            got = b""
            while len(got) < 8:
                got += await loop.sock_recv(left, 8 - len(got))
            assert got == message
        left.shutdown(socket.SHUT_WR)
        await task

    run(main)


def test_the_methods_return_awaitables_that_a_task_takes(run: Run, pair: Pair) -> None:
    """Python sees a `collections.abc.Coroutine`, as create_task() needs."""
    from collections.abc import Coroutine

    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        coroutine = loop.sock_recv(left, 10)
        assert isinstance(coroutine, Coroutine)
        assert asyncio.iscoroutine(coroutine)
        task = loop.create_task(coroutine)
        await turns(2)
        right.send(b"data")
        assert await task == b"data"

    run(main)


def test_a_call_that_is_never_awaited_does_nothing(run: Run, pair: Pair) -> None:
    """An `async def` does nothing before it is awaited."""
    left, right = pair

    async def main() -> None:
        loop = asyncio.get_running_loop()
        right.send(b"data")
        loop.sock_recv(left, 10).close()
        assert await loop.sock_recv(left, 10) == b"data"

    run(main)


@pytest.mark.parametrize("call", ["sock_recv(left, 10)", "sock_recv_into(left, bytearray(10))"])
def test_a_blocking_socket_does_not_stop_other_threads(backend: Backend, call: str) -> None:
    """asyncio's recv() of a blocking socket blocks the loop, but lets go of the interpreter."""
    child = run_python(
        backend.source
        + f"""
import socket, threading

loop = new_loop()
left, right = socket.socketpair()
asked = threading.Event()
thread = threading.Thread(target=lambda: (asked.wait(), right.send(b"hello")))
thread.start()
loop.call_soon(asked.set)

async def main():
    return await loop.{call}

print(loop.run_until_complete(main()))
thread.join()
loop.close()
left.close()
right.close()
"""
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout == ("b'hello'\n" if "into" not in call else "5\n")


def test_a_blocking_socket_without_room_does_not_stop_other_threads(backend: Backend) -> None:
    """asyncio's send() of a blocking socket blocks the loop, but lets go of the interpreter."""
    child = run_python(
        backend.source
        + """
import socket, threading

SIZE = 10_000_000
loop = new_loop()
left, right = socket.socketpair()
got = []

def read():
    while sum(got) < SIZE:
        got.append(len(right.recv(1 << 20)))

thread = threading.Thread(target=read)
thread.start()
loop.run_until_complete(loop.sock_sendall(left, bytes(SIZE)))
thread.join()
print(sum(got))
loop.close()
left.close()
right.close()
"""
    )
    assert (child.stdout, child.returncode) == ("10000000\n", 0), child.stderr
