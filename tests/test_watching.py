"""add_reader, add_writer and their removal: descriptors, file objects, wrong ones, reused ones."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from typing import Any, Callable, Iterator, List, Tuple, Type

import pytest
from support.backends import Backend
from support.children import PEAK, run_python
from support.platforms import WINDOWS, says
from support.recorders import Recorder
from support.running import turns
from support.sockets import fill, pair_at, tcp_pair
from support.threads import call_while_waiting

Pair = Tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected non-blocking sockets."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


def one_turn(loop: Any) -> None:
    """Make one turn of `loop`."""
    loop.stop()
    loop.run_forever()


def nothing(*args: Any) -> None:
    """A callback that does nothing."""


def outcome(call: Callable[[], Any]) -> Any:
    """The result of `call`, or the type and errno of what it raised."""
    try:
        return call()
    except Exception as error:
        return type(error), getattr(error, "errno", None)


@pytest.mark.parametrize("as_object", [False, True], ids=["fd", "object"])
def test_a_reader_is_called_when_there_is_data(loop: Any, pair: Pair, as_object: bool) -> None:
    left, right = pair
    got: List[Any] = []
    watched = left if as_object else left.fileno()
    assert loop.add_reader(watched, lambda *args: got.append((args, left.recv(10))), 1, 2) is None
    one_turn(loop)
    assert got == []
    right.send(b"data")
    one_turn(loop)
    assert got == [((1, 2), b"data")]
    assert loop.remove_reader(watched) is True


@pytest.mark.parametrize("as_object", [False, True], ids=["fd", "object"])
def test_a_writer_is_called_when_there_is_room(loop: Any, pair: Pair, as_object: bool) -> None:
    left, right = pair
    got: List[Any] = []
    watched = left if as_object else left.fileno()
    sent = fill(left)
    assert loop.add_writer(watched, got.append, "room") is None
    one_turn(loop)
    assert got == []
    while sent:
        sent -= len(right.recv(sent))
    one_turn(loop)
    assert got == ["room"]
    assert loop.remove_writer(watched) is True


def test_a_peer_that_sends_no_more_makes_no_room(loop: Any, pair: Pair) -> None:
    """And when there is room, that is a level nevertheless."""
    left, right = pair
    sent = fill(left)
    right.shutdown(socket.SHUT_WR)
    right.setblocking(True)
    calls: List[str] = []

    async def main() -> None:
        room = asyncio.Event()
        loop.add_writer(left, lambda: (calls.append("room"), room.set()))
        await turns(20)
        assert calls == []
        # Not by MSG_WAITALL, of which Wine knows nothing: what it leaves unread makes no room either.
        with right.makefile("rb") as received:
            await loop.run_in_executor(None, received.read, sent)
        await room.wait()
        for _ in range(3):
            seen = len(calls)
            await turns(2)
            assert len(calls) > seen
        assert loop.remove_writer(left) is True

    loop.run_until_complete(main())


def test_a_reader_is_called_again_while_there_is_data(loop: Any, pair: Pair) -> None:
    """Watching is level-triggered."""
    left, right = pair
    calls: List[str] = []
    loop.add_reader(left, calls.append, "call")
    right.send(b"data")
    for _ in range(3):
        one_turn(loop)
    assert calls == ["call"] * 3
    left.recv(10)
    one_turn(loop)
    assert calls == ["call"] * 3
    loop.remove_reader(left)


@pytest.mark.parametrize("change", ["remove", "replace", "close"])
def test_a_reader_is_called_once_a_turn(loop: Any, pair: Pair, change: str) -> None:
    """Also where the watch of another descriptor ends in the step in which this one has data.

    Who sets a future in the callback, and removes it when the future's own run, relies on that.
    """
    left, right = pair
    calls: List[str] = []

    async def one_round() -> None:
        other, peer = socket.socketpair()
        with other, peer:
            loop.add_reader(other, nothing)
            await turns(3)
            right.send(b"x")
            if change == "replace":
                loop.add_writer(other, nothing)
            else:
                loop.remove_reader(other)
            if change == "close":
                other.close()
            right.send(b"y")
            for _ in range(4):
                calls.clear()
                await turns(1)
                assert len(calls) <= 1
            assert calls, "it is still ready"
            left.recv(10)
            if change == "replace":
                loop.remove_reader(other)
                loop.remove_writer(other)

    async def main() -> None:
        loop.add_reader(left, calls.append, "called")
        for _ in range(3):
            await one_round()
        loop.remove_reader(left)

    loop.run_until_complete(main())


def test_reader_and_writer_of_one_descriptor(loop: Any, pair: Pair) -> None:
    left, right = pair
    calls: List[str] = []
    loop.add_reader(left, calls.append, "read")
    loop.add_writer(left, calls.append, "write")
    one_turn(loop)
    assert calls == ["write"]
    right.send(b"data")
    one_turn(loop)
    assert calls == ["write", "read", "write"]
    assert loop.remove_writer(left) is True
    one_turn(loop)
    assert calls == ["write", "read", "write", "read"]
    assert loop.remove_reader(left) is True
    one_turn(loop)
    assert calls == ["write", "read", "write", "read"]


def test_readers_run_in_the_turn_that_found_them_ready(loop: Any, pair: Pair) -> None:
    """A turn runs what asyncio would have run in it: callbacks first, then I/O."""
    left, right = pair
    calls: List[str] = []
    loop.add_reader(left, calls.append, "reader")
    right.send(b"x")
    loop.call_soon(calls.append, "soon")
    loop.call_later(-1, calls.append, "timer")
    one_turn(loop)
    assert calls == ["soon", "reader", "timer"]
    loop.remove_reader(left)


def test_adding_again_replaces_the_callback(loop: Any, pair: Pair) -> None:
    left, right = pair
    calls: List[str] = []
    loop.add_reader(left, calls.append, "old")
    loop.add_writer(left, calls.append, "old")
    loop.add_reader(left, calls.append, "new reader")
    loop.add_writer(left, calls.append, "new writer")
    right.send(b"x")
    one_turn(loop)
    assert calls == ["new reader", "new writer"]
    assert loop.remove_reader(left) is True
    assert loop.remove_reader(left) is False
    assert loop.remove_writer(left) is True
    assert loop.remove_writer(left) is False


def test_removing_what_was_never_added(loop: Any, pair: Pair) -> None:
    left, _ = pair
    assert loop.remove_reader(left) is False
    assert loop.remove_writer(left) is False
    loop.add_reader(left, nothing)
    assert loop.remove_writer(left) is False
    assert loop.remove_reader(left) is True


def test_a_callback_that_removes_itself(loop: Any, pair: Pair) -> None:
    left, right = pair
    calls: List[Any] = []
    loop.add_reader(left, lambda: calls.append(loop.remove_reader(left)))
    right.send(b"x")
    one_turn(loop)
    one_turn(loop)
    assert calls == [True]


def test_a_callback_that_removes_another_of_the_same_turn(loop: Any) -> None:
    """asyncio: removing a reader cancels its handle, also when it was found ready already."""
    pairs = [socket.socketpair() for _ in range(2)]
    calls: List[int] = []

    def read(which: int) -> None:
        calls.append(which)
        for left, _ in pairs:
            loop.remove_reader(left)

    for which, (left, right) in enumerate(pairs):
        loop.add_reader(left, read, which)
        right.send(b"x")
    one_turn(loop)
    one_turn(loop)
    for left, right in pairs:
        left.close()
        right.close()
    assert len(calls) == 1


def test_a_callback_that_replaces_itself(loop: Any, pair: Pair) -> None:
    left, right = pair
    calls: List[str] = []

    def first() -> None:
        calls.append("first")
        loop.add_reader(left, calls.append, "second")

    loop.add_reader(left, first)
    right.send(b"x")
    one_turn(loop)
    one_turn(loop)
    assert calls == ["first", "second"]
    loop.remove_reader(left)


def test_callbacks_run_in_the_context_of_their_adding(loop: Any, pair: Pair) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    left, _ = pair
    got: List[str] = []

    def add() -> None:
        variable.set("adder's")
        loop.add_writer(left, lambda: got.append(variable.get()))

    contextvars.copy_context().run(add)
    one_turn(loop)
    loop.remove_writer(left)
    assert got == ["adder's"]


def test_eof_and_hang_up_make_a_reader_ready(loop: Any, pair: Pair) -> None:
    left, right = pair
    got: List[bytes] = []
    loop.add_reader(left, lambda: got.append(left.recv(10)))
    right.close()
    one_turn(loop)
    assert got == [b""]
    loop.remove_reader(left)


def test_hang_up_makes_a_writer_ready(loop: Any, pair: Pair) -> None:
    left, right = pair
    fill(left)
    got: List[str] = []
    loop.add_writer(left, got.append, "ready")
    right.close()
    one_turn(loop)
    assert got == ["ready"]
    loop.remove_writer(left)


@pytest.mark.unix("descriptors that are no sockets")
def test_pipes_can_be_watched(loop: Any) -> None:
    reading, writing = os.pipe()
    try:
        got: List[bytes] = []
        loop.add_reader(reading, lambda: got.append(os.read(reading, 10)))
        loop.add_writer(writing, lambda: (os.write(writing, b"x"), loop.remove_writer(writing)))
        one_turn(loop)
        one_turn(loop)
        assert got == [b"x"]
        assert loop.remove_reader(reading) is True
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.unix("descriptors that are no sockets")
def test_the_reading_end_of_a_pipe_sees_the_hang_up(loop: Any) -> None:
    reading, writing = os.pipe()
    try:
        got: List[bytes] = []
        loop.add_reader(reading, lambda: got.append(os.read(reading, 10)))
        os.close(writing)
        one_turn(loop)
        assert got == [b""]
        loop.remove_reader(reading)
    finally:
        os.close(reading)


@pytest.mark.unix("pseudo terminals")
def test_a_pseudo_terminal_can_be_watched(loop: Any) -> None:
    controller, terminal = os.openpty()
    try:
        got: List[bytes] = []
        loop.add_reader(controller, lambda: (got.append(os.read(controller, 10)), loop.stop()))
        os.write(terminal, b"x")
        loop.run_forever()  # the kernel hands the byte over later
        assert got == [b"x"]
        loop.remove_reader(controller)
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.unix("descriptors that are no sockets")
def test_a_regular_file_is_as_with_asyncio(loop: Any, backend: Backend, tmp_path: Any) -> None:
    """A regular file for `add_reader` gives asyncio's exception: EPERM from epoll."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    oracle = backend.oracle_loop()
    try:
        with path.open("rb") as file:
            expected = outcome(lambda: oracle.add_reader(file, nothing))
            assert outcome(lambda: loop.add_reader(file, nothing)) == expected
            assert loop.remove_reader(file) is oracle.remove_reader(file)
            if backend.name in ("asyncio", "epoll", "proactor"):
                assert expected[0] is PermissionError
    finally:
        oracle.close()


WRONG = ["spam", None, -1, 1.5, []]


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_what_is_no_descriptor_is_refused(loop: Any, method: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match="Invalid file (object|descriptor): "):
        getattr(loop, method)(wrong, nothing)


@pytest.mark.parametrize("method", ["remove_reader", "remove_writer"])
@pytest.mark.parametrize("wrong", ["spam", None, []], ids=repr)
def test_what_is_no_descriptor_is_refused_by_removal(loop: Any, method: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match="Invalid file object: "):
        getattr(loop, method)(wrong)


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_an_error_of_fileno_is_the_callers(
    loop: Any, method: str, error: Type[BaseException]
) -> None:
    class File:
        def fileno(self) -> int:
            raise error("its own")

    arguments = (nothing,) if method.startswith("add") else ()
    with pytest.raises(error, match="^its own$"):
        getattr(loop, method)(File(), *arguments)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_the_callback_is_required(loop: Any, pair: Pair, method: str) -> None:
    with pytest.raises(TypeError):
        getattr(loop, method)(pair[0])
    assert loop.remove_reader(pair[0]) is False


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_closed_socket_object_is_refused(loop: Any, pair: Pair, method: str) -> None:
    """Bad input (a closed fd) gives asyncio's exception."""
    pair[0].close()
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        getattr(loop, method)(pair[0], nothing)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_closed_descriptor_is_refused(loop: Any, backend: Backend, method: str) -> None:
    """Bad input (a closed fd) gives asyncio's exception: EBADF from epoll_ctl(2)."""
    if backend.name not in ("asyncio", "epoll", "proactor"):
        pytest.skip("poll() and select() do not look at a descriptor before they wait")
    closed = os.dup(0)
    os.close(closed)
    text = says(errno.ENOTSOCK) if WINDOWS else says(errno.EBADF)
    with pytest.raises(OSError, match=text):
        getattr(loop, method)(closed, nothing)
    one_turn(loop)


def test_a_descriptor_is_watched_by_number_and_by_object_alike(loop: Any, pair: Pair) -> None:
    left, _ = pair
    loop.add_reader(left, nothing)
    assert loop.remove_reader(left.fileno()) is True
    loop.add_reader(left.fileno(), nothing)
    assert loop.remove_reader(left) is True


def test_a_socket_closed_before_its_removal(loop: Any, pair: Pair) -> None:
    """The object is still known after its descriptor is gone."""
    left, _ = pair
    loop.add_reader(left, nothing)
    left.close()
    assert loop.remove_reader(left) is True
    one_turn(loop)


@pytest.mark.parametrize("which", ["reader", "writer"])
def test_a_descriptor_closed_before_its_removal(loop: Any, pair: Pair, which: str) -> None:
    left, _ = pair
    add, remove = getattr(loop, f"add_{which}"), getattr(loop, f"remove_{which}")
    fd = left.fileno()
    add(fd, nothing)
    left.close()
    assert remove(fd) is True
    assert remove(fd) is False
    one_turn(loop)


def test_a_number_reused_by_a_file_before_its_removal(loop: Any, tmp_path: Any) -> None:
    """epoll_ctl(2) refuses regular files, also to forget them."""
    sock, peer = socket.socketpair()
    with peer, (tmp_path / "file").open("wb") as file:
        number = sock.fileno()
        loop.add_reader(number, int)
        sock.close()
        os.dup2(file.fileno(), number)
        try:
            assert loop.remove_reader(number) is True
            assert loop.remove_reader(number) is False
        finally:
            os.close(number)


def test_a_number_reused_after_its_removal(loop: Any) -> None:
    """Seen elsewhere: an fd closed behind the loop's back and reused."""
    left, right = socket.socketpair()
    fd = left.fileno()
    loop.add_reader(fd, nothing)
    left.close()
    right.close()
    loop.remove_reader(fd)
    new, peer = pair_at(fd)
    with new, peer:
        got: List[bytes] = []
        loop.add_reader(new, lambda: got.append(new.recv(10)))
        peer.send(b"new")
        one_turn(loop)
        assert got == [b"new"]
        loop.remove_reader(new)


def test_a_number_closed_and_reused_behind_the_loops_back(loop: Any, backend: Backend) -> None:
    """Seen elsewhere: an fd closed behind the loop's back and reused gets a stale registration."""
    if backend.is_oracle:
        pytest.skip("asyncio believes that the descriptor is still registered")
    left, right = socket.socketpair()
    fd = left.fileno()
    calls: List[str] = []
    loop.add_reader(fd, calls.append, "stale")
    left.close()
    right.close()
    new, peer = pair_at(fd)
    with new, peer:
        loop.add_reader(new, lambda: calls.append(new.recv(10).decode()))
        peer.send(b"new")
        one_turn(loop)
        assert calls == ["new"]
        assert loop.remove_reader(new) is True


def test_a_number_reused_with_the_other_interest(loop: Any) -> None:
    """Seen elsewhere: an fd closed behind the loop's back and reused gets a stale registration."""
    left, right = socket.socketpair()
    fd = left.fileno()
    loop.add_reader(fd, nothing)
    left.close()
    right.close()
    assert loop.remove_reader(fd) is True
    new, peer = pair_at(fd)
    with new, peer:
        calls: List[str] = []
        loop.add_writer(new, calls.append, "writable")
        one_turn(loop)
        assert calls == ["writable"]
        assert loop.remove_reader(new) is False
        assert loop.remove_writer(new) is True


@pytest.mark.parametrize("running", [True, False], ids=["running", "between runs"])
@pytest.mark.parametrize("which", ["reader", "writer", "both"])
def test_the_peer_sees_a_close_after_the_removal_at_once(
    loop: Any, pair: Pair, which: str, running: bool
) -> None:
    """The kernel has let go of the descriptor when the removal returns, with no turn in between."""
    left, right = pair

    def leave() -> None:
        loop.remove_reader(left)
        loop.remove_writer(left)
        left.close()
        sent = len(right.recv(1 << 24))
        while sent < filled:
            sent += len(right.recv(1 << 24))
        assert right.recv(10) == b""
        loop.stop()

    filled = 0 if which == "reader" else fill(left)
    if which != "writer":
        loop.add_reader(left, nothing)
    if which != "reader":
        loop.add_writer(left, nothing)
    for _ in range(3):
        one_turn(loop)
    if running:
        loop.call_soon(leave)
        loop.run_forever()
    else:
        leave()


def test_the_peer_sees_a_close_after_the_loops_at_once(loop: Any, pair: Pair) -> None:
    left, right = pair
    loop.add_reader(left, nothing)
    for _ in range(3):
        one_turn(loop)
    loop.close()
    left.close()
    assert right.recv(10) == b""


@pytest.mark.unix("descriptors that are no sockets")
def test_a_character_device_that_cannot_be_waited_for(loop: Any, backend: Backend) -> None:
    calls: List[str] = []
    with open(os.devnull, "rb") as device:
        if backend.name in ("asyncio", "epoll"):
            with pytest.raises(PermissionError):
                loop.add_reader(device, calls.append, "ready")
        else:
            loop.add_reader(device, calls.append, "ready")
            one_turn(loop)
            one_turn(loop)
            assert len(calls) >= 1
            loop.remove_reader(device)


@pytest.mark.unix("io_uring")
def test_data_that_has_been_taken_before_the_loop_looks(
    loop: Any, pair: Pair, backend: Backend
) -> None:
    """Where the kernel notes that it came, the reader is called once, and finds nothing."""
    left, right = pair
    calls: List[str] = []

    async def main() -> None:
        loop.add_reader(left, calls.append, "call")
        await turns(20)
        right.send(b"data")
        assert left.recv(10) == b"data"
        await turns(20)
        assert calls == (["call"] if backend.name == "proactor" else [])
        loop.remove_reader(left)

    loop.run_until_complete(main())


def test_a_close_without_a_removal(loop: Any, pair: Pair, backend: Backend) -> None:
    """Where the kernel keeps what it watches open, the peer sees the end when the watch ends."""
    left, right = pair
    number = left.fileno()

    async def main() -> None:
        loop.add_reader(number, nothing)
        await asyncio.sleep(0.001)
        left.close()
        if backend.is_proactor and not WINDOWS:
            with pytest.raises(BlockingIOError):
                right.recv(10)
        else:
            assert right.recv(10) == b""
        assert loop.remove_reader(number) is True
        assert right.recv(10) == b""

    loop.run_until_complete(main())


def test_a_close_without_a_removal_and_a_loop_that_stops(loop: Any, pair: Pair) -> None:
    """A loop that does not run holds nothing of its user's open."""
    left, right = pair
    number = left.fileno()
    loop.add_reader(number, nothing)
    loop.call_later(0.001, left.close)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert right.recv(10) == b""
    assert loop.remove_reader(number) is True


@pytest.mark.parametrize("ran", [False, True], ids=["before the first run", "between runs"])
def test_a_number_closed_and_used_again_while_the_loop_does_not_run(
    loop: Any, backend: Backend, ran: bool
) -> None:
    """What has the number then is nobody's business."""
    if backend.name in ("poll", "select", "user"):
        pytest.skip("poll(2) and select(2) know numbers only, on asyncio too")
    left, right = socket.socketpair()
    number = left.fileno()
    calls: List[str] = []
    if ran:
        loop.run_until_complete(asyncio.sleep(0.001))
    loop.add_reader(number, calls.append, "stale")
    if ran:
        loop.run_until_complete(asyncio.sleep(0.001))
    left.close()
    new, peer = pair_at(number)
    with right, new, peer:
        peer.send(b"new")
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.run_until_complete(asyncio.sleep(0.001))
        assert calls == []
        assert loop.remove_reader(number) is True
        loop.add_reader(number, calls.append, "new")
        one_turn(loop)
        assert calls == ["new"]
        loop.remove_reader(number)


def test_a_number_closed_and_used_again_in_a_run(loop: Any, backend: Backend) -> None:
    """The next run does not watch what has the number by then."""
    if backend.name in ("poll", "select", "user"):
        pytest.skip("poll(2) and select(2) know numbers only, on asyncio too")
    left, right = socket.socketpair()
    number = left.fileno()
    calls: List[str] = []
    others: List[Any] = []

    def use_again() -> None:
        left.close()
        others.extend(pair_at(number))
        loop.stop()

    loop.add_reader(number, calls.append, "stale")
    loop.call_soon(use_again)
    loop.run_forever()
    with right, others[0], others[1]:
        others[1].send(b"new")
        loop.run_until_complete(asyncio.sleep(0.001))
        assert calls == []
        assert loop.remove_reader(number) is True


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="eventfd is Linux's, new in Python 3.10")
def test_an_eventfd_closed_and_made_again_while_the_loop_does_not_run(
    loop: Any, backend: Backend
) -> None:
    """The files without a name of the kernel's have one inode, by which nobody tells them apart."""
    if backend.name in ("poll", "select", "user"):
        pytest.skip("poll(2) and select(2) know numbers only, on asyncio too")
    calls: List[str] = []
    number = os.eventfd(0, os.EFD_NONBLOCK)
    loop.add_reader(number, calls.append, "called")
    one_turn(loop)
    os.close(number)
    again = os.eventfd(1, os.EFD_NONBLOCK)
    try:
        assert again == number
        one_turn(loop)
        assert calls == (["called"] if backend.is_proactor else [])
        assert loop.remove_reader(number) is True
    finally:
        os.close(again)


def test_closing_the_loop_closes_no_descriptor_of_the_users(loop: Any, pair: Pair) -> None:
    """Seen elsewhere: double close of an fd."""
    left, right = pair
    loop.add_reader(left, nothing)
    loop.add_writer(right, nothing)
    loop.close()
    left.send(b"alive")
    assert right.recv(10) == b"alive"


def test_a_loop_of_many_descriptors_that_runs_again(loop: Any, pair: Pair) -> None:
    """A descriptor that became ready in the last turn of a run is told of once in the next run."""
    left, right = pair
    pairs = [socket.socketpair() for _ in range(300)]
    calls: List[bytes] = []

    async def first() -> None:
        await asyncio.sleep(0.001)
        right.send(b"x")

    loop.add_reader(left, lambda: calls.append(left.recv(10)))
    for watched, _ in pairs:
        loop.add_reader(watched, nothing)
    try:
        loop.run_until_complete(first())
        loop.run_until_complete(asyncio.sleep(0.001))
        assert calls == [b"x"]
    finally:
        loop.remove_reader(left)
        for watched, other in pairs:
            loop.remove_reader(watched)
            watched.close()
            other.close()


def test_watching_many_descriptors(loop: Any) -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    got: List[int] = []

    def read(which: int) -> None:
        pairs[which][0].recv(10)
        got.append(which)

    try:
        for which, (left, right) in enumerate(pairs):
            loop.add_reader(left, read, which)
            if which % 2:
                right.send(b"x")
        one_turn(loop)
        one_turn(loop)
        assert sorted(got) == list(range(1, 200, 2))
    finally:
        for left, right in pairs:
            loop.remove_reader(left)
            left.close()
            right.close()


@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_the_descriptor_of_a_transport_is_refused(loop: Any, method: str) -> None:
    """asyncio: `File descriptor ... is used by transport ...`."""

    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        fd = left.fileno()
        arguments = (nothing,) if method.startswith("add") else ()
        for watched in (fd, transport.get_extra_info("socket"), left):
            text = re.escape(f"File descriptor {watched!r} is used by transport <")
            with pytest.raises(RuntimeError, match=text):
                getattr(loop, method)(watched, *arguments)
        transport.close()
        await protocol.lost()
        right.close()

    loop.run_until_complete(main())


def test_the_descriptor_of_a_closed_transport_is_free_again(loop: Any) -> None:
    async def main() -> None:
        left, right = tcp_pair()
        fd = left.fileno()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        transport.close()
        await protocol.lost()
        new, peer = pair_at(fd)
        called = asyncio.Event()
        loop.add_writer(new, called.set)
        await called.wait()
        assert loop.remove_writer(new) is True
        for sock in (new, peer, right):
            sock.close()
        await turns(1)

    loop.run_until_complete(main())


def test_a_reader_that_never_reads_does_not_starve_the_rest(loop: Any, pair: Pair) -> None:
    left, right = pair
    right.send(b"x")
    loop.add_reader(left, nothing)
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    loop.remove_reader(left)


@pytest.mark.parametrize("number", [50_000_000, 2**31 - 1])
def test_numbers_beyond_all_limits_cost_nothing(backend: Backend, number: int) -> None:
    """No table is made for a number that no descriptor has; what is raised depends on the selector."""
    child = run_python(
        backend.source
        + PEAK
        + f"""
loop = new_loop()
before = peak()
for add in (loop.add_reader, loop.add_writer):
    try:
        add({number}, print)
    except (OSError, ValueError, OverflowError):
        pass
assert peak() - before < 50_000, "KiB"
loop.remove_reader({number})
loop.remove_writer({number})
loop.close()
print("alive")
"""
    )
    assert (child.stdout, child.returncode) == ("alive\n", 0), child.stderr


def test_a_removal_from_another_thread_while_the_loop_waits(loop: Any, pair: Pair) -> None:
    """It is done, or it is refused and nothing has changed: the callback still runs."""
    left, right = pair
    calls: List[int] = []

    async def main() -> None:
        loop.add_reader(left, calls.append, 1)
        refused = await call_while_waiting(lambda: loop.remove_reader(left))
        right.send(b"x")
        for _ in range(5):
            await turns(1)
        assert bool(calls) is bool(refused)
        assert loop.remove_reader(left) is bool(refused)
        calls.clear()
        for _ in range(5):
            await turns(1)
        assert calls == []

    loop.run_until_complete(main())


def test_a_watch_from_another_thread_while_the_loop_waits(
    loop: Any, pair: Pair, backend: Backend
) -> None:
    """asyncio does it, though it promises nothing; ours may say no, in debug mode or not."""
    left, right = pair
    calls: List[int] = []

    async def main() -> None:
        refused = await call_while_waiting(lambda: loop.add_reader(left, calls.append, 1))
        assert not (refused and backend.is_oracle)
        if refused:
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                raise refused[0]
            assert not loop.remove_reader(left)
            loop.add_reader(left, calls.append, 1)
        right.send(b"x")
        for _ in range(5):
            await turns(1)
        assert calls
        assert loop.remove_reader(left)

    loop.run_until_complete(main())
