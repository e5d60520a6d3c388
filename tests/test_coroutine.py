"""The coroutines that the loop's and a server's methods return: they are Python's in all that shows."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import types
import unittest.mock
import warnings
import weakref
from typing import Any, Callable, Dict, Iterator, List

import pytest
from support.backends import PY312, Backend
from support.children import run_python
from support.recorders import Recorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, listener, tcp_pair


def one_turn(loop: Any) -> None:
    """Make one turn of `loop`."""
    loop.stop()
    loop.run_forever()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A connected socket that has nothing to read."""
    left, right = tcp_pair()
    yield left
    left.close()
    right.close()


@pytest.fixture
def waiting(loop: Any, sock: socket.socket) -> Iterator[Any]:
    """A coroutine that waits: it was started by hand, and is closed after the test."""
    coroutine = loop.sock_recv(sock, 1)
    coroutine.send(None)
    yield coroutine
    coroutine.close()
    loop.remove_reader(sock)


# Driven by hand


def test_it_is_a_coroutine(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 1)
    assert asyncio.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert coroutine.__name__ == "sock_recv"
    coroutine.close()


def test_its_qualified_name_has_the_class(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 1)
    assert coroutine.__qualname__.endswith(".sock_recv")
    coroutine.close()


def test_what_it_waits_for_can_be_seen(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 1)
    assert coroutine.cr_await is None
    coroutine.send(None)
    assert coroutine.cr_await is not None
    assert not coroutine.cr_running
    coroutine.close()
    assert coroutine.cr_await is None
    loop.remove_reader(sock)


def test_it_tells_no_origin_unless_these_are_tracked(waiting: Any) -> None:
    assert waiting.cr_origin is None


def test_a_value_cannot_be_sent_before_it_has_started(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 1)
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        coroutine.send(1)
    coroutine.close()


def test_it_yields_a_future_of_the_loop(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 1)
    future = coroutine.send(None)
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    assert future._asyncio_future_blocking is True
    coroutine.close()
    loop.remove_reader(sock)


def test_closing_it_before_it_has_started_is_no_neglect(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 1)
    assert coroutine.close() is None
    assert coroutine.close() is None
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)


def test_one_that_was_closed_is_over(waiting: Any) -> None:
    waiting.close()
    for resume in (lambda: waiting.send(None), lambda: waiting.throw(KeyError("late"))):
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            resume()


def test_one_that_has_ended_is_over(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 0)
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    assert caught.value.value == b""
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)


def test_an_exception_thrown_in_comes_out(waiting: Any) -> None:
    error = KeyError("thrown in")
    with pytest.raises(KeyError) as caught:
        waiting.throw(error)
    assert caught.value is error
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        waiting.send(None)


def test_an_exception_thrown_in_before_it_has_started(loop: Any, sock: socket.socket) -> None:
    coroutine = loop.sock_recv(sock, 1)
    with pytest.raises(KeyError, match="thrown in"):
        coroutine.throw(KeyError("thrown in"))
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)


def test_what_is_no_exception_cannot_be_thrown_in(waiting: Any) -> None:
    with pytest.raises(TypeError, match="exceptions must be classes"):
        waiting.throw(1)


def test_it_cannot_be_resumed_from_within(loop: Any) -> None:
    """Its step calls Python code that tries to drive it: CPython's "coroutine already executing"."""
    refused: List[Any] = []

    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        assert coroutine.cr_running
        for resume in (lambda: coroutine.send(None), coroutine.close):
            with pytest.raises(ValueError, match="coroutine already executing"):
                resume()
            refused.append(resume)
        raise LookupError("no such name")

    loop.getaddrinfo = getaddrinfo
    with socket.socket() as sock:
        sock.setblocking(False)
        coroutine = loop.sock_connect(sock, ("name.invalid", 80))
        with pytest.raises(LookupError, match="no such name"):
            coroutine.send(None)
    assert len(refused) == 2


def test_it_cannot_be_awaited_twice_at_the_same_time(loop: Any, sock: socket.socket) -> None:
    async def wait() -> None:
        await coroutine

    async def main() -> None:
        first = asyncio.ensure_future(wait())
        await turns(1)
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await coroutine
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    coroutine = loop.sock_recv(sock, 1)
    loop.run_until_complete(main())


# What it waits for


def test_it_waits_for_an_awaitable_from_a_generator(run: Run) -> None:
    """`types.coroutine` makes awaitables without `__await__`; `await` knows them."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        @types.coroutine
        def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            yield
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", server.sockets[0].getsockname())]

        server = await loop.create_server(Recorder, LOCALHOST, 0)
        loop.getaddrinfo = getaddrinfo
        transport, protocol = await loop.create_connection(Recorder, "name.invalid", 80)
        transport.close()
        await protocol.lost()
        server.close()
        await turns(5)

    run(main)


@pytest.mark.parametrize("wrong", [1, None, (i for i in ())], ids=["int", "None", "generator"])
def test_what_cannot_be_awaited_is_refused(run: Run, wrong: Any) -> None:
    """The interpreter's own words for `await 1`."""

    async def awaited() -> None:
        await wrong

    with pytest.raises(TypeError) as plain:
        awaited().send(None)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.getaddrinfo = lambda *args, **kwargs: wrong
        with pytest.raises(TypeError) as caught:
            await loop.create_connection(Recorder, "name.invalid", 80)
        assert str(caught.value) == str(plain.value)

    run(main)


METHODS = ["create_connection", "create_server", "getaddrinfo", "start_tls", "subprocess_exec"]


@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated")
@pytest.mark.parametrize("name", METHODS)
def test_the_methods_are_coroutine_functions(loop: Any, name: str) -> None:
    assert asyncio.iscoroutinefunction(getattr(loop, name))
    if PY312:
        assert inspect.iscoroutinefunction(getattr(loop, name))
    assert getattr(loop, name).__name__ == name


@pytest.mark.differs("native methods have no mark of a coroutine function")
@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated")
def test_the_methods_of_sockets_are_coroutine_functions(loop: Any) -> None:
    assert asyncio.iscoroutinefunction(loop.sock_recv)


@pytest.mark.differs("native methods have no frame")
def test_a_task_of_a_method_has_a_frame(run: Run, sock: socket.socket) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.sock_recv(sock, 1))
        await turns(2)
        frames = task.get_stack()
        task.cancel()
        assert [frame.f_code.co_name for frame in frames] == ["sock_recv"]

    run(main)


def test_a_mocked_method_can_be_awaited(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with unittest.mock.patch.object(loop, "create_server", autospec=True, return_value=7):
            assert await loop.create_server(Recorder, "name.invalid") == 7  # type: ignore[comparison-overlap]

    run(main)


def test_the_collector_ends_a_coroutine_before_it_breaks_the_cycle_up(backend: Backend) -> None:
    """PEP 442: what the coroutine calls when it is closed is still whole."""
    seen: List[str] = []

    class Awaitable:
        def __await__(self) -> Any:
            try:
                yield
            finally:
                seen.append(self.name)

    def use() -> None:
        loop = backend.new_loop()
        awaitable: Any = Awaitable()
        awaitable.name = "whole"
        loop.getaddrinfo = lambda *args, **kwargs: awaitable
        coroutine = loop.create_connection(Recorder, "name.invalid", 80)
        coroutine.send(None)
        awaitable.coroutine = coroutine
        loop.close()

    use()
    gc.collect()
    assert seen == ["whole"]


# Dropped


@pytest.mark.parametrize("options", [[], ["-W", "error"]], ids=["warning", "error"])
def test_one_that_was_never_awaited_leaves_an_exception_alone(
    backend: Backend, options: List[str]
) -> None:
    """It is dropped while an exception propagates; it warns, and the exception stays what it is."""
    child = run_python(
        backend.source
        + """
import socket

def take(*args):
    pass

loop = new_loop()
left, right = socket.socketpair()
left.setblocking(False)
for number in range(10):
    try:
        take(loop.sock_recv(left, 1), loop.sock_recv(left, 1), number / 0)
    except ZeroDivisionError:
        print("caught")
loop.close()
left.close()
right.close()
""",
        options=options,
    )
    assert (child.stdout, child.returncode) == ("caught\n" * 10, 0), child.stderr
    assert "sock_recv' was never awaited" in child.stderr


def test_one_that_waits_leaves_an_exception_alone(backend: Backend) -> None:
    """It is dropped while an exception propagates, and its loop has a selector in Python."""
    if backend.is_proactor:
        pytest.skip("it has no selector")
    child = run_python(
        backend.source
        + f"""
import socket
from support.user_selectors import UserSelector

def take(*args):
    pass

def started():
    coroutine = loop.sock_recv(left, 1)
    coroutine.send(None)
    return coroutine

loop = {backend.package}.SelectorEventLoop(UserSelector())
left, right = socket.socketpair()
left.setblocking(False)
for number in range(10):
    try:
        take(started(), number / 0)
    except ZeroDivisionError:
        print("caught")
loop.close()
left.close()
right.close()
"""
    )
    assert (child.stdout, child.returncode) == ("caught\n" * 10, 0), child.stderr


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_leaving_one_that_waits_runs_it_to_its_end(run: Run, leave: str) -> None:
    """It gets GeneratorExit, as Python's coroutines do: a server's is no longer serving then."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCALHOST, 0)
        for _ in range(3):
            coroutine = server.serve_forever()
            coroutine.send(None)
            if leave == "close":
                coroutine.close()
            del coroutine
        server.close()
        await turns(2)

    run(main)


def test_closing_one_whose_inner_one_is_closed(loop: Any, sock: socket.socket) -> None:
    """GeneratorExit closes what is awaited, PEP 380, and does not throw into it."""
    inner = loop.sock_recv(sock, 1)
    loop.sock_connect = lambda *args: inner
    outer = loop.create_connection(Recorder, LOCALHOST, 1)
    outer.send(None)
    inner.close()
    outer.close()


# What only waits, for a task whose loop is left

WAITS: Dict[str, Callable[[Any, socket.socket], Any]] = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
    "create_connection": lambda loop, sock: loop.create_connection(Recorder, "name.invalid", 80),
    "sock_connect": lambda loop, sock: loop.sock_connect(socket.socket(), ("name.invalid", 80)),
}


def referring_to(loop: Any) -> Callable[[], Any]:
    """A protocol factory that refers to the loop."""
    return lambda: (loop, Recorder())[1]


async def connect_after_a_refusal(loop: Any) -> None:
    """The first address refuses; its error's traceback leads to the task."""

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        if address == (LOCALHOST, 1):
            raise ConnectionRefusedError
        await loop.create_future()

    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (LOCALHOST, port)) for port in (1, 2)]

    loop.sock_connect, loop.getaddrinfo = sock_connect, getaddrinfo
    await loop.create_connection(Recorder, "name.invalid", 80)


WAITS["create_connection's factory"] = lambda loop, sock: loop.create_connection(
    referring_to(loop), "name.invalid", 80
)
WAITS["create_connection's errors"] = lambda loop, sock: connect_after_a_refusal(loop)
WAITS["create_server's factory"] = lambda loop, sock: loop.create_server(
    referring_to(loop), "name.invalid", 80
)
WAITS["create_datagram_endpoint's factory"] = lambda loop, sock: loop.create_datagram_endpoint(
    referring_to(loop), ("name.invalid", 80)
)


async def serve(loop: Any, method: str) -> None:
    """Wait in a method of a server."""
    server = await loop.create_server(Recorder, sock=listener())
    await getattr(server, method)()


WAITS["serve_forever"] = lambda loop, sock: serve(loop, "serve_forever")
WAITS["wait_closed"] = lambda loop, sock: serve(loop, "wait_closed")


@pytest.mark.parametrize("name", WAITS)
@pytest.mark.parametrize("closes", [True, False], ids=["closed", "abandoned"])
def test_a_task_that_waits_goes_with_its_loop(
    backend: Backend, reports: Reports, sock: socket.socket, name: str, closes: bool
) -> None:
    """The collector sees through what waits: the task's `finally` runs, everything is freed."""
    events: List[str] = []

    async def main(loop: Any) -> None:
        try:
            await WAITS[name](loop, sock)
        finally:
            events.append("finally")

    def start_and_leave() -> weakref.ref[Any]:
        loop = backend.new_loop()
        loop.set_exception_handler(reports)

        async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            await loop.create_future()

        loop.getaddrinfo = getaddrinfo
        task = loop.create_task(main(loop))
        for _ in range(3):
            one_turn(loop)
        assert not task.done()
        if closes:
            loop.close()
        return weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gone = start_and_leave()
        gc.collect()
    assert events == ["finally"]
    assert reports.take_one()["message"] == "Task was destroyed but it is pending!"
    gc.collect()
    assert gone() is None
