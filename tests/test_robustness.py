"""What programs do that no documentation shows: odd protocols, dropped coroutines, sockets closed under
a transport, calls after the end. asyncio survives each; what might kill the process runs in a child.
"""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import os
import signal
import socket
import threading
import types
import weakref
from fractions import Fraction
from typing import Any, Callable, Generator, Iterator, List, Optional

import pytest
from support.backends import PY312, Backend
from support.children import PEAK, run_python
from support.recorders import Recorder
from support.releases import ONE_CONTEXT
from support.reports import Reports
from support.running import Run, turns
from support.signals import USER
from support.sockets import LOCALHOST, listener, pair_at, tcp_pair
from support.threads import call_while_waiting
from support.user_selectors import CountingSelectSelector, UserSelector

#: True where there is such a thing.
REUSE_PORT = "yes" if hasattr(socket, "SO_REUSEPORT") else ""
NUMBER: contextvars.ContextVar[int] = contextvars.ContextVar("NUMBER", default=0)
left_unclosed = pytest.mark.filterwarnings("ignore:unclosed (<socket|transport):ResourceWarning")


def one_turn(loop: Any) -> None:
    """Make one turn of `loop`."""
    loop.stop()
    loop.run_forever()


def child_of(backend: Backend, body: str, *options: str) -> Any:
    """What a child process that runs `body` with a fresh `loop` ends with."""
    head = "import asyncio, gc, socket, threading, warnings\n"
    child = run_python(head + backend.source + "loop = new_loop()\n" + body, options=options)
    assert child.returncode == 0, (child.returncode, child.stderr[-2000:])
    return child


async def connect(address: Any) -> socket.socket:
    """A plain socket connected to `address`."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    return sock


# Protocols


@left_unclosed
def test_a_factory_that_makes_no_protocol_does_not_stop_the_server(
    run: Run, reports: Reports
) -> None:
    made: List[Any] = []

    def factory() -> Any:
        made.append(Recorder() if made else None)
        return made[-1]

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(factory, LOCALHOST, 0)
        address = server.sockets[0].getsockname()
        with await connect(address), await connect(address):
            while len(made) < 2:
                await turns(1)
            await made[1].until_event("made")
        await made[1].lost()
        server.close()
        await turns(2)

    run(main)
    assert reports.contexts == []


@left_unclosed
def test_a_factory_that_makes_no_protocol_fails_create_connection(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with left, right, pytest.raises(AttributeError, match="connection_made"):
            await loop.create_connection(lambda: None, sock=left)

    run(main)


def test_a_factorys_context_is_its_own_for_each_connection(run: Run) -> None:
    seen: List[int] = []
    protocols: List[Recorder] = []

    def factory() -> Recorder:
        seen.append(NUMBER.get())
        NUMBER.set(NUMBER.get() + 1)
        protocols.append(Recorder())
        return protocols[-1]

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(factory, LOCALHOST, 0)
        for count in range(1, 4):
            with await connect(server.sockets[0].getsockname()):
                while len(protocols) < count:
                    await turns(1)
                await protocols[-1].until_event("made")
            await protocols[-1].lost()
        server.close()
        await turns(2)

    run(main)
    assert seen == [0, 0, 0]


def test_callbacks_run_in_copies_of_the_contexts_that_caused_them(run: Run) -> None:
    """asyncio copies the context at call_soon() and at add_reader(), or once from Python 3.15 on."""

    class Contextual(Recorder):
        seen: List[int]

        def connection_made(self, transport: Any) -> None:
            self.seen = [NUMBER.get()]
            NUMBER.set(100)
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            self.seen.append(NUMBER.get())
            super().data_received(data)

        def connection_lost(self, exc: Optional[BaseException]) -> None:
            self.seen.append(NUMBER.get())
            super().connection_lost(exc)

    async def main() -> None:
        NUMBER.set(1)
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Contextual, sock=left
        )
        right.send(b"x")
        await protocol.received(1)
        NUMBER.set(2)
        transport.pause_reading()
        transport.resume_reading()
        right.send(b"x")
        await protocol.received(2)
        NUMBER.set(3)
        transport.close()
        await protocol.lost()
        right.close()
        assert protocol.seen == ([1, 100, 100, 100] if ONE_CONTEXT else [1, 1, 2, 3])

    run(main)


def test_the_protocol_is_still_there_in_connection_lost(run: Run) -> None:
    class Looking(Recorder):
        found: Any = None

        def connection_lost(self, exc: Optional[BaseException]) -> None:
            self.found = self.transport.get_protocol()
            super().connection_lost(exc)

    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(Looking, sock=left)
        transport.close()
        await protocol.lost()
        right.close()
        assert protocol.found is protocol

    run(main)


@pytest.mark.parametrize("callback", ["connection_made", "connection_lost"])
def test_the_context_of_a_failing_callback_has_its_handle(
    run: Run, reports: Reports, callback: str
) -> None:
    class Failing(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if callback == "connection_made":
                raise ZeroDivisionError

        def connection_lost(self, exc: Optional[BaseException]) -> None:
            super().connection_lost(exc)
            if callback == "connection_lost":
                raise ZeroDivisionError

    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(Failing, sock=left)
        transport.close()
        await protocol.lost()
        await turns(1)
        right.close()

    run(main)
    context = reports.take_one()
    assert isinstance(context["handle"], asyncio.Handle)
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"].startswith("Exception in callback ")


def test_connection_lost_that_raises_with_a_reason_that_has_no_repr(
    run: Run, reports: Reports
) -> None:
    class Unspeakable(Exception):
        def __repr__(self) -> str:
            raise ArithmeticError("no repr")

    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise Unspeakable

        def connection_lost(self, exc: Optional[BaseException]) -> None:
            super().connection_lost(exc)
            raise ZeroDivisionError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        caught: List[BaseException] = []
        loop.set_exception_handler(lambda loop, context: caught.append(context["exception"]))
        left, right = tcp_pair()
        _, protocol = await loop.create_connection(Failing, sock=left)
        right.send(b"x")
        assert isinstance(await protocol.lost(), Unspeakable)
        await turns(2)
        right.close()
        assert isinstance(caught[0], Unspeakable)

    run(main)
    reports.take_log()  # of formatting the reason
    reports.take()


# Sockets under transports


class StubbornSocket(socket.socket):
    """A user's socket whose first close() raises after it has closed."""

    closed = False

    def close(self) -> None:
        """Close, and complain once."""
        super().close()
        if not self.closed:
            self.closed = True
            raise ValueError("in close()")


@left_unclosed
def test_a_socket_whose_close_raises_does_not_stop_the_loop(run: Run, reports: Reports) -> None:
    async def main() -> None:
        left, right = tcp_pair()
        stubborn = StubbornSocket(fileno=left.detach())
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=stubborn
        )
        transport.close()
        await protocol.lost()
        await turns(3)
        right.close()

    run(main)
    assert isinstance(reports.take_one()["exception"], ValueError)


@left_unclosed
def test_a_socket_closed_under_its_transport_is_not_written_to(run: Run) -> None:
    """Seen elsewhere: an fd closed behind the loop's back and reused: nobody else gets the bytes."""

    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=left
        )
        number = left.fileno()
        left.close()
        new, peer = pair_at(number)
        transport.write(b"secret")
        await turns(3)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
        if "lost" not in protocol.events:
            transport.abort()
        assert isinstance(await protocol.lost(), (OSError, type(None)))
        new.send(b"alive")
        assert peer.recv(10) == b"alive"
        for sock in (new, peer, right):
            sock.close()

    run(main)


def test_a_closed_transport_does_not_close_the_next_owner_of_its_number(run: Run) -> None:
    """Seen elsewhere: double close of an fd."""

    async def main() -> None:
        left, right = tcp_pair()
        transport, protocol = await asyncio.get_running_loop().create_connection(
            Recorder, sock=left
        )
        info = transport.get_extra_info("socket")
        transport.close()
        await protocol.lost()
        await turns(1)
        new, peer = socket.socketpair()
        transport.abort()
        transport.close()
        del transport, protocol, info, left
        gc.collect()
        await turns(2)
        new.send(b"alive")
        assert peer.recv(10) == b"alive"
        for sock in (new, peer, right):
            sock.close()

    run(main)


# Wrong and odd arguments


def test_write_takes_one_argument(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        with pytest.raises(TypeError):
            transport.write(b"a", b"b")
        with pytest.raises(TypeError):
            transport.write(b"a", context=1)
        with pytest.raises(TypeError):
            transport.write()
        transport.write(data=b"by name")
        assert await loop.sock_recv(right, 100) == b"by name"
        transport.close()
        await protocol.lost()
        right.close()

    run(main)


def test_flags_are_anything_with_a_truth_value(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        server = await loop.create_server(
            Recorder, LOCALHOST, 0, reuse_address=1, reuse_port=REUSE_PORT, start_serving=1
        )
        assert server.is_serving()
        server.close()
        server = await loop.create_server(Recorder, LOCALHOST, 0, reuse_port=[], start_serving=0)
        assert not server.is_serving()
        if PY312:
            address = server.sockets[0].getsockname()
            with pytest.raises(ExceptionGroup):  # noqa: F821
                await loop.create_connection(Recorder, *address, all_errors=1)
        server.close()
        await turns(2)

    run(main)


def test_call_at_takes_a_fraction(loop: Any) -> None:
    got: List[str] = []
    loop.call_at(Fraction(loop.time()) + Fraction(1, 1000), lambda: (got.append("x"), loop.stop()))
    loop.run_forever()
    assert got == ["x"]


@pytest.mark.parametrize("number", [2**31 - 1, 50_000_000, 2**31, 2**40])
def test_a_large_number_that_is_no_descriptor_is_refused(backend: Backend, number: int) -> None:
    """The process must not make room for every number below."""
    child = child_of(
        backend,
        PEAK + "try:\n"
        f"    loop.add_reader({number}, print)\n"
        "except (OSError, ValueError, OverflowError) as error:\n"
        "    print('refused')\n"
        "else:\n"
        f"    loop.remove_reader({number})\n"
        "print(peak() < 200_000)\n"
        "loop.close()\n",
    )
    assert child.stdout.split()[-1] == "True"
    if backend.name in ("asyncio", "epoll", "proactor"):
        assert child.stdout.split()[0] == "refused"


@pytest.mark.parametrize("kind", ["generator", "object"])
def test_getaddrinfo_may_return_any_awaitable(run: Run, kind: str) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOCALHOST, 0))]

    @types.coroutine
    def generator(*args: Any, **kwargs: Any) -> Generator[None, None, Any]:
        yield
        return answer

    class Answer:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

        def __await__(self) -> Any:
            yield
            return answer

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.getaddrinfo = generator if kind == "generator" else Answer
        server = await loop.create_server(Recorder, "name", 0)
        server.close()
        await turns(2)

    run(main)


def test_a_getaddrinfo_that_is_not_awaitable(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.getaddrinfo = lambda *args, **kwargs: 7
        with pytest.raises(TypeError, match="int.* can't be (awaited|used in 'await' expression)"):
            await loop.create_connection(Recorder, "name", 80)

    run(main)


# Subclasses and replaced methods


def test_call_later_goes_through_an_overridden_call_at(backend: Backend) -> None:
    calls: List[float] = []

    class Loop(backend.loop_class()):  # type: ignore[misc]
        def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
            calls.append(when)
            return super().call_at(when, callback, *args, context=context)

    loop = Loop()
    try:
        loop.call_later(1000, print).cancel()
        assert len(calls) == 1
    finally:
        loop.close()


def test_a_call_soon_replaced_on_the_class_gets_handles(backend: Backend) -> None:
    """As instrumentation does: it wraps the method of the class and looks at what it returns."""

    class Loop(backend.loop_class()):  # type: ignore[misc]
        pass

    loop = Loop()
    original = Loop.call_soon
    results: List[Any] = []

    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        results.append(original(self, *args, **kwargs))
        return results[-1]

    try:
        loop.run_until_complete(turns(1))
        Loop.call_soon = wrapper
        loop.run_until_complete(turns(3))
        assert len(results) >= 4
        assert all(isinstance(handle, asyncio.Handle) for handle in results)
    finally:
        loop.close()


def test_a_subclass_that_forgets_to_initialise_does_not_spin(backend: Backend) -> None:
    child_of(
        backend,
        "class Loop(type(loop)):\n"
        "    def __init__(self):\n        pass\n"
        "    def __del__(self):\n        pass\n"
        "loop.close()\n"
        "forgetful = Loop()\n"
        "try:\n"
        "    forgetful.run_forever()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
        "else:\n    raise SystemExit('ran')\n",
    )


# Threads and blocking sockets


@pytest.mark.parametrize("what", ["recv", "sendall"])
def test_a_blocking_socket_lets_other_threads_run(backend: Backend, what: str) -> None:
    """Outside of debug mode nobody looks whether a socket blocks; other threads have to go on."""
    call = "loop.sock_recv(a, 10)" if what == "recv" else "loop.sock_sendall(a, bytes(10_000_000))"
    other = "b.send(b'hello')" if what == "recv" else "drain()"
    child = child_of(
        backend,
        "a, b = socket.socketpair()\n"
        "def drain():\n"
        "    left = 10_000_000\n"
        "    while left:\n        left -= len(b.recv(left))\n"
        f"timer = threading.Timer(0.1, lambda: {other})\n"
        "timer.start()\n"
        f"print(loop.run_until_complete({call}))\n"
        "timer.join(); a.close(); b.close(); loop.close()\n",
    )
    assert child.stdout == ("b'hello'\n" if what == "recv" else "None\n")


def test_a_reader_removed_from_another_thread_does_not_make_the_loop_spin(loop: Any) -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        loop.add_reader(left, left.recv, 10)
        await call_while_waiting(lambda: loop.remove_reader(left))
        right.send(b"x")
        # Never, if it were woken up for nobody, again and again.
        await call_while_waiting(lambda: None)
        loop.remove_reader(left)
        left.close()
        right.close()

    loop.run_until_complete(main())


# Signals


def test_a_wakeup_fd_set_while_the_loop_runs_is_kept(loop: Any) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)

    async def main() -> None:
        signal.set_wakeup_fd(left.fileno(), warn_on_full_buffer=False)

    with left, right:
        try:
            loop.run_until_complete(main())
        finally:
            kept = signal.set_wakeup_fd(-1)
        assert kept == left.fileno()


def test_a_loop_with_handlers_closed_in_another_thread_is_closed(loop: Any) -> None:
    """The signal module refuses there; the loop is closed all the same."""
    loop.add_signal_handler(USER, print)
    errors: List[BaseException] = []

    def work() -> None:
        try:
            loop.close()
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    signal.signal(USER, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    assert len(errors) == 1
    assert loop.is_closed()


def test_an_unclosed_loop_with_handlers_at_exit(backend: Backend) -> None:
    child = child_of(
        backend,
        f"import signal\nloop.add_signal_handler(signal.{USER.name}, print)\n",
        "-W",
        "ignore",
    )
    assert child.stderr == ""


# Descriptors that run out


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """The process can open nothing meanwhile."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.unix("a limit of descriptors")
def test_a_loop_runs_when_no_descriptor_is_left(loop: Any) -> None:
    """All that a loop needs it opens when it is made."""
    with no_descriptor_left():
        loop.run_until_complete(asyncio.sleep(0.001))


@pytest.mark.unix("a limit of descriptors")
def test_the_socket_of_a_lost_connection_when_no_descriptor_is_left(run: Run) -> None:
    async def main() -> None:
        with listener() as listening:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                Recorder, *listening.getsockname()
            )
            transport.abort()
            await protocol.lost()
            await turns(1)
            with no_descriptor_left():
                sock = transport.get_extra_info("socket")
            assert sock is None or sock.fileno() == -1

    run(main)


# Coroutines of the loop that are dropped


@pytest.mark.parametrize("started", [False, True])
def test_a_coroutine_dropped_while_an_exception_is_on_its_way(
    backend: Backend, started: bool
) -> None:
    child = child_of(
        backend,
        "warnings.simplefilter('ignore')\n"
        "a, b = socket.socketpair(); a.setblocking(False)\n"
        "def make():\n"
        "    coroutine = loop.sock_recv(a, 1)\n"
        f"    {'asyncio._set_running_loop(loop); coroutine.send(None)' if started else 'pass'}\n"
        "    asyncio._set_running_loop(None)\n"
        "    return coroutine\n"
        "def take(*args):\n    pass\n"
        "try:\n    take(make(), 1 / 0)\n"
        "except ZeroDivisionError:\n    print('as it should be')\n"
        "gc.collect()\n"
        "a.close(); b.close(); loop.close()\n",
    )
    assert child.stdout == "as it should be\n"


def test_a_coroutine_that_is_never_awaited_warns(loop: Any) -> None:
    left, right = tcp_pair()
    with left, right, pytest.warns(RuntimeWarning, match=r"coroutine '.*sock_recv' was never awai"):
        loop.sock_recv(left, 1)
        gc.collect()


@pytest.mark.differs("inspect takes a native coroutine, which has no frame, for a closed one")
def test_the_state_of_a_coroutine(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with left, right:
            coroutine = loop.sock_recv(left, 1)
            try:
                states = [inspect.getcoroutinestate(coroutine)]
                coroutine.send(None)
                states.append(inspect.getcoroutinestate(coroutine))
            finally:
                coroutine.close()
            states.append(inspect.getcoroutinestate(coroutine))
            assert states == [inspect.CORO_CREATED, inspect.CORO_SUSPENDED, inspect.CORO_CLOSED]

    run(main)


def test_a_suspended_coroutine_that_is_dropped_is_closed(run: Run) -> None:
    """Python closes a coroutine that is dropped: serve_forever() is over then."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCALHOST, 0)
        coroutine = server.serve_forever()
        coroutine.send(None)
        del coroutine
        gc.collect()
        again = server.serve_forever()
        again.send(None)
        again.close()
        server.close()
        await turns(2)

    run(main)


# What the collector has to find


@pytest.mark.parametrize("what", ["sock_recv", "sock_accept", "getaddrinfo", "serve_forever"])
def test_a_task_that_waits_when_its_loop_is_closed_is_collected(
    backend: Backend, reports: Reports, what: str
) -> None:
    """Its `finally` runs then, and the loop's handler hears of it."""
    ended: List[str] = []

    def use() -> Any:
        loop = backend.new_loop()
        loop.set_exception_handler(reports)
        left, right = tcp_pair()
        listening = socket.socket()
        listening.setblocking(False)
        listening.bind((LOCALHOST, 0))
        listening.listen()

        async def never() -> None:
            await loop.create_future()

        async def main() -> None:
            try:
                if what == "sock_recv":
                    await loop.sock_recv(left, 10)
                elif what == "sock_accept":
                    await loop.sock_accept(listening)
                elif what == "getaddrinfo":
                    loop.getaddrinfo = lambda *args, **kwargs: never()
                    await loop.create_connection(Recorder, "name", 80)
                else:
                    server = await loop.create_server(Recorder, sock=listening)
                    await server.serve_forever()
            finally:
                ended.append("finally")

        task = loop.create_task(main())
        for _ in range(4):
            one_turn(loop)
        loop.close()
        for sock in (left, right, listening):
            sock.close()
        return weakref.ref(task)

    gone = use()
    gc.collect()
    assert ended == ["finally"]
    messages = {context["message"] for context in reports.take()}
    assert "Task was destroyed but it is pending!" in messages
    reports.take_log()
    # Since Python 3.15 a weak reference outlives the finalizer, whose report has revived the task.
    gc.collect()
    assert gone() is None


def test_an_abandoned_loop_is_collected(backend: Backend) -> None:
    def use() -> Any:
        loop = backend.new_loop()
        loop.call_soon_threadsafe(print, loop)
        loop.call_soon(print, loop)
        loop.call_later(3600, print, loop)
        return weakref.ref(loop)

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gone = use()
        gc.collect()
    assert gone() is None


@pytest.mark.unix("a limit of descriptors")
def test_watching_more_descriptors_one_after_the_other_than_may_be_open(backend: Backend) -> None:
    """poll(2) takes no longer list than RLIMIT_NOFILE allows."""
    child = run_python(
        backend.source
        + """
import asyncio, resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
loop = new_loop()
for _ in range(60):
    left, right = socket.socketpair()
    seen = loop.create_future()
    loop.add_reader(left, seen.set_result, None)
    right.send(b"x")
    loop.run_until_complete(seen)
    loop.remove_reader(left)
    left.close()
    right.close()
loop.close()
print("done")
"""
    )
    assert (child.stdout, child.returncode) == ("done\n", 0), child.stderr


@pytest.mark.parametrize("when", ["before it runs", "while it runs"])
@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe", "call_later"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_abandoned_loop_that_refers_to_a_queued_handle(
    backend: Backend, schedule: str, when: str
) -> None:
    """Queued handles are hidden from the collector while the loop runs, and no longer."""

    def queue(loop: Any) -> None:
        delay = (3600,) if schedule == "call_later" else ()
        loop.handle = getattr(loop, schedule)(*delay, print, loop)
        loop.stop()

    def use() -> Any:
        loop = backend.new_loop()
        if when == "while it runs":
            loop.call_soon(queue, loop)
            loop.run_forever()
        else:
            queue(loop)
        return loop.handle, weakref.ref(loop)

    handle, gone = use()
    gc.collect()
    assert gone() is handle._loop
    del handle
    gc.collect()
    try:
        assert gone() is None
    finally:
        if gone() is not None:
            gone().close()


@pytest.mark.parametrize("how", ["report", "weak reference"])
def test_a_loop_that_refers_to_a_handle_that_has_run(backend: Backend, how: str) -> None:
    """The handle was referred to by nobody before it ran."""

    def fail() -> None:
        raise ZeroDivisionError

    def queue(loop: Any) -> None:
        if how == "report":
            loop.set_exception_handler(lambda _, context: loop.kept.append(context["handle"]))
            loop.call_soon(fail)
        else:
            handle = weakref.ref(loop.call_soon(lambda: loop.kept.append(handle())))

    def use() -> Any:
        loop = backend.new_loop()
        loop.kept = []
        loop.call_soon(queue, loop)
        loop.run_until_complete(turns(2))
        loop.close()
        assert len(loop.kept) == 1
        return weakref.ref(loop)

    gone = use()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("make", [UserSelector, CountingSelectSelector])
def test_a_loop_is_collected_with_a_selector_that_refers_to_it(
    backend: Backend, make: Callable[[], Any]
) -> None:
    if backend.is_proactor:
        pytest.skip("it has no selector")

    def use() -> Any:
        selector = make()
        loop = backend.module().SelectorEventLoop(selector)
        selector.loop = loop
        return weakref.ref(loop)

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gone = use()
        gc.collect()
    assert gone() is None


def test_a_transport_that_the_collector_finds_says_one_thing(backend: Backend) -> None:
    """A ResourceWarning, and no exception of what was torn down before it."""
    child = child_of(
        backend,
        "class Protocol(asyncio.Protocol):\n    pass\n"
        "async def main():\n"
        "    a, b = socket.socketpair()\n"
        "    transport, protocol = await loop.create_connection(Protocol, sock=a)\n"
        "    protocol.transport = transport\n"
        "    b.close()\n"
        "loop.run_until_complete(main())\n"
        "loop.close()\n"
        "gc.collect()\n",
        "-W",
        "always::ResourceWarning",
    )
    assert "unclosed transport" in child.stderr
    assert "Exception ignored" not in child.stderr


def test_a_long_chain_of_handles_is_freed(backend: Backend) -> None:
    child_of(
        backend,
        "handle = None\n"
        "for _ in range(300_000):\n    handle = loop.call_soon(print, handle)\n"
        "loop.close()\ndel handle\ngc.collect()\n",
    )


# After the end


def test_a_transport_after_its_loop_is_closed(backend: Backend) -> None:
    """asyncio: closing it then needs call_soon(), which a closed loop refuses."""
    child = child_of(
        backend,
        "a, b = socket.socketpair()\n"
        "made = loop.create_connection(asyncio.Protocol, sock=a)\n"
        "transport, protocol = loop.run_until_complete(made)\n"
        "transport.pause_reading()\n"
        "loop.close()\n"
        "for method in (transport.resume_reading, transport.abort):\n"
        "    try:\n        method()\n"
        "    except RuntimeError as error:\n        print(error)\n",
    )
    assert child.stdout == "Event loop is closed\n" * 2


def test_a_closed_server_cannot_start_again(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, LOCALHOST, 0, start_serving=False)
        server.close()
        with pytest.raises((TypeError, RuntimeError)):
            await server.start_serving()

    run(main)


def test_the_default_handler_tells_where_the_handle_was_made(loop: Any, reports: Reports) -> None:
    """Debug mode keeps source tracebacks: also of the callback that reports."""
    loop.set_exception_handler(None)
    loop.set_debug(True)
    loop.call_soon(lambda: loop.call_exception_handler({"message": "told by a callback"}))
    one_turn(loop)
    (message,) = reports.take_log()
    assert message.startswith(
        "told by a callback\nhandle_traceback: Handle created at (most recent"
    )
    assert __file__ in message


@pytest.mark.skipif(PY312, reason="in the failing handle's context since Python 3.12")
def test_the_handler_runs_in_the_loops_own_context_before_312(loop: Any) -> None:
    got: List[int] = []
    loop.set_exception_handler(lambda loop, context: got.append(NUMBER.get()))

    def fail() -> None:
        NUMBER.set(33)
        raise ZeroDivisionError

    loop.call_soon(fail)
    one_turn(loop)
    assert got == [0]
