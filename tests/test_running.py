"""Running, stopping and closing a loop: run_forever, run_until_complete, stop, close, generators."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import threading
import weakref
from typing import Any, AsyncIterator, Callable, List, Type

import pytest
from support.backends import Backend
from support.children import run_python
from support.descriptors import no_more_descriptors
from support.reports import Reports
from support.running import NewLoop, Run, turns
from support.signals import USER
from support.threads import call_while_waiting
from support.user_selectors import UserSelector

# CPython 3.13.0's run_forever() marks the loop as not running when it refuses to run a running one.
RUN_FOREVER_FORGETS = sys.version_info[:3] == (3, 13, 0)


async def value(result: Any) -> Any:
    """A coroutine that is done after one turn."""
    await asyncio.sleep(0)
    return result


def test_run_until_complete_returns_the_result(loop: Any) -> None:
    assert loop.run_until_complete(value(42)) == 42


def test_run_until_complete_raises_the_exception(loop: Any) -> None:
    async def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        loop.run_until_complete(fail())


def test_run_until_complete_takes_a_future(loop: Any) -> None:
    future = loop.create_future()
    loop.call_soon(future.set_result, "done")
    assert loop.run_until_complete(future) == "done"


def test_run_until_complete_takes_a_task(loop: Any) -> None:
    task = loop.create_task(value("done"))
    assert loop.run_until_complete(task) == "done"


def test_run_until_complete_takes_a_future_that_is_already_done(loop: Any) -> None:
    future = loop.create_future()
    future.set_result("before")
    assert loop.run_until_complete(future) == "before"


def test_run_until_complete_takes_any_awaitable(loop: Any) -> None:
    class Awaitable:
        def __await__(self) -> Any:
            return value("awaited").__await__()

    assert loop.run_until_complete(Awaitable()) == "awaited"


def test_run_until_complete_refuses_what_is_not_awaitable(loop: Any) -> None:
    with pytest.raises(TypeError, match=r"a coroutine or an awaitable is required|An asyncio.Futu"):
        loop.run_until_complete("blah")


def test_run_until_complete_refuses_a_future_of_another_loop(new_loop: NewLoop) -> None:
    future = new_loop().create_future()
    with pytest.raises(ValueError, match="loop argument must agree|belongs to a different loop"):
        new_loop().run_until_complete(future)


def test_run_until_complete_raises_if_the_loop_is_stopped_before(loop: Any) -> None:
    async def stop_and_wait() -> None:
        loop.stop()
        await asyncio.sleep(3600)

    task = loop.create_task(stop_and_wait())
    with pytest.raises(RuntimeError, match=r"Event loop stopped before Future completed\."):
        loop.run_until_complete(task)


def test_run_until_complete_leaves_no_callback_on_its_future(loop: Any) -> None:
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(future)
    future.set_result(None)
    ran: List[str] = []
    loop.call_soon(ran.append, "first")
    loop.call_soon(lambda: loop.call_soon(lambda: (ran.append("second"), loop.stop())))
    loop.run_forever()
    assert ran == ["first", "second"]


def test_run_until_complete_can_be_called_again(loop: Any) -> None:
    assert [loop.run_until_complete(value(number)) for number in range(3)] == [0, 1, 2]


def test_run_until_complete_takes_a_cancelled_task(loop: Any) -> None:
    async def forever() -> None:
        await loop.create_future()

    task = loop.create_task(forever())
    loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_propagate_from_a_callback(loop: Any, error: Type[BaseException]) -> None:
    """Seen elsewhere: `KeyboardInterrupt` in a callback is swallowed."""

    def leave() -> None:
        raise error("now")

    loop.call_soon(leave)
    with pytest.raises(error, match="now"):
        loop.run_forever()
    assert not loop.is_running()
    assert loop.run_until_complete(value("usable again")) == "usable again"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_propagate_from_a_coroutine(loop: Any, error: Type[BaseException]) -> None:
    """Seen elsewhere: `sys.exit()` in a coroutine hangs."""

    async def leave() -> None:
        await asyncio.sleep(0)
        raise error("now")

    with pytest.raises(error, match="now"):
        loop.run_until_complete(leave())
    assert loop.run_until_complete(value("usable again")) == "usable again"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_propagate_from_another_task(loop: Any, error: Type[BaseException]) -> None:
    """Seen elsewhere: `sys.exit()` in a coroutine hangs."""

    async def leave() -> None:
        raise error("now")

    async def wait() -> None:
        await loop.create_future()

    waiting = loop.create_task(wait())
    leaving = loop.create_task(leave())
    with pytest.raises(error, match="now"):
        loop.run_until_complete(waiting)
    assert isinstance(leaving.exception(), error)
    assert not waiting.done()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["timer", "reader", "threadsafe"])
def test_exits_propagate_from_each_kind_of_callback(
    loop: Any, error: Type[BaseException], how: str
) -> None:
    """Seen elsewhere: `KeyboardInterrupt` in a callback is swallowed."""
    import socket

    def leave() -> None:
        raise error("now")

    left, right = socket.socketpair()
    with left, right:
        if how == "timer":
            loop.call_later(0, leave)
        elif how == "reader":
            right.send(b"x")
            loop.add_reader(left, leave)
        else:
            loop.call_soon_threadsafe(leave)
        with pytest.raises(error, match="now"):
            loop.run_forever()
        loop.remove_reader(left)


def test_callbacks_after_one_that_exits_run_in_the_next_run(loop: Any) -> None:
    ran: List[str] = []

    def leave() -> None:
        raise SystemExit

    loop.call_soon(ran.append, "before")
    loop.call_soon(leave)
    loop.call_soon(ran.append, "after")
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert ran == ["before"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == ["before", "after"]


def test_sys_exit_in_main_of_asyncio_run_leaves(backend: Backend) -> None:
    """Seen elsewhere: `sys.exit()` in a coroutine hangs."""

    async def main() -> None:
        sys.exit(3)

    loop = backend.new_loop()
    try:
        with pytest.raises(SystemExit) as caught:
            loop.run_until_complete(main())
    finally:
        loop.close()
    assert caught.value.code == 3


def test_stop_lets_the_current_pass_end(loop: Any) -> None:
    """One pass, `stop` after that pass."""
    ran: List[str] = []

    def first() -> None:
        ran.append("first")
        loop.stop()
        loop.call_soon(ran.append, "next pass")

    loop.call_soon(first)
    loop.call_soon(ran.append, "second")
    loop.run_forever()
    assert ran == ["first", "second"]
    loop.stop()
    loop.run_forever()
    assert ran == ["first", "second", "next pass"]


def test_stop_before_run_forever_makes_one_pass(loop: Any) -> None:
    """A turn runs what asyncio would have run in it."""
    ran: List[str] = []

    def first() -> None:
        ran.append("first")
        loop.call_soon(ran.append, "second")

    loop.call_soon(first)
    loop.stop()
    loop.run_forever()
    assert ran == ["first"]


def test_stop_before_run_forever_does_not_wait_for_timers(loop: Any) -> None:
    loop.call_later(3600, lambda: None)
    loop.stop()
    loop.run_forever()


def test_stop_before_run_forever_polls_once(loop: Any) -> None:
    """asyncio docs, loop.stop: "the loop will poll the I/O selector once with a timeout of zero"."""
    import socket

    left, right = socket.socketpair()
    with left, right:
        got: List[bytes] = []
        loop.add_reader(left, lambda: got.append(left.recv(10)))
        right.send(b"x")
        loop.stop()
        loop.run_forever()
        loop.remove_reader(left)
    assert got == [b"x"]


def test_stop_is_forgotten_after_the_run(loop: Any) -> None:
    loop.stop()
    loop.run_forever()
    assert loop.run_until_complete(value("runs on")) == "runs on"


def test_stop_may_be_called_several_times(loop: Any) -> None:
    loop.call_soon(loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not loop.is_running()


def test_stop_from_another_thread_by_call_soon_threadsafe(loop: Any) -> None:
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()


def test_is_running_and_is_closed(loop: Any) -> None:
    seen: List[bool] = []
    assert not loop.is_running()
    loop.call_soon(lambda: seen.append(loop.is_running()))
    loop.stop()
    loop.run_forever()
    assert seen == [True]
    assert not loop.is_running()
    assert not loop.is_closed()
    loop.close()
    assert loop.is_closed()
    assert not loop.is_running()


def test_the_running_loop_is_this_one(loop: Any) -> None:
    seen: List[Any] = []
    loop.call_soon(lambda: seen.append(asyncio.get_running_loop()))
    loop.stop()
    loop.run_forever()
    assert seen == [loop]
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_a_running_loop_cannot_be_run_again(loop: Any, backend: Backend) -> None:
    async def main() -> None:
        future = loop.create_future()
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(future)
        if not (backend.is_oracle and RUN_FOREVER_FORGETS):
            with pytest.raises(RuntimeError, match="This event loop is already running"):
                loop.run_forever()
        assert asyncio.get_running_loop() is loop

    loop.run_until_complete(main())


def test_another_loop_cannot_be_run_inside(new_loop: NewLoop, backend: Backend) -> None:
    outer, inner = new_loop(), new_loop()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="while another loop is running"):
            inner.run_until_complete(inner.create_future())
        if not (backend.is_oracle and RUN_FOREVER_FORGETS):
            with pytest.raises(RuntimeError, match="while another loop is running"):
                inner.run_forever()
        assert asyncio.get_running_loop() is outer

    outer.run_until_complete(main())


def test_nested_run_until_complete_warns_of_its_coroutine(loop: Any) -> None:
    """Nested `run_until_complete` warns: the coroutine it refused never ran."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(value(1))

    with pytest.warns(RuntimeWarning, match="coroutine 'value' was never awaited"):
        loop.run_until_complete(main())
        gc.collect()


def test_two_loops_run_in_turn(new_loop: NewLoop) -> None:
    first, second = new_loop(), new_loop()
    assert first.run_until_complete(value(1)) == 1
    assert second.run_until_complete(value(2)) == 2
    assert first.run_until_complete(value(3)) == 3


def test_loops_of_two_threads_run_at_the_same_time(new_loop: NewLoop) -> None:
    loops = [new_loop(), new_loop()]
    barrier = threading.Barrier(2)
    seen: List[bool] = []

    def work(loop: Any) -> None:
        async def main() -> None:
            await loop.run_in_executor(None, barrier.wait)
            seen.append(asyncio.get_running_loop() is loop)
            await loop.shutdown_default_executor()

        loop.run_until_complete(main())

    threads = [threading.Thread(target=work, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True, True]


def test_a_loop_made_in_one_thread_runs_in_another(loop: Any) -> None:
    results: List[Any] = []
    thread = threading.Thread(target=lambda: results.append(loop.run_until_complete(value(7))))
    thread.start()
    thread.join()
    assert results == [7]
    assert loop.run_until_complete(value(8)) == 8


def test_running_in_one_thread_keeps_another_thread_out(loop: Any) -> None:
    started, finished = threading.Event(), threading.Event()

    def work() -> None:
        loop.call_soon(started.set)
        loop.run_forever()
        finished.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    try:
        assert loop.is_running()
        with pytest.raises(RuntimeError, match="This event loop is already running"):
            loop.run_until_complete(loop.create_future())
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert finished.is_set()
    assert not loop.is_running()


def test_close_twice(loop: Any) -> None:
    loop.close()
    loop.close()
    assert loop.is_closed()


def test_close_while_running_is_refused(loop: Any) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()

    loop.run_until_complete(main())
    assert not loop.is_closed()


CLOSED_CALLS = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(loop.time() + 1, print),
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: loop.run_until_complete(asyncio.Future(loop=loop)),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_signal_handler": lambda loop: loop.add_signal_handler(signal.SIGTERM, print),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(1, print),
}


@pytest.mark.parametrize("name", CLOSED_CALLS)
def test_a_closed_loop_refuses(loop: Any, name: str) -> None:
    """Seen elsewhere: `call_soon` on a closed loop is accepted."""
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        CLOSED_CALLS[name](loop)


def test_a_closed_loop_refuses_a_task(loop: Any) -> None:
    loop.close()
    coroutine = value(1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coroutine)
    coroutine.close()


def test_a_closed_loop_has_nothing_to_remove(loop: Any) -> None:
    loop.close()
    assert loop.remove_reader(0) is False
    assert loop.remove_writer(1) is False


def test_a_closed_loop_still_tells_the_time(loop: Any) -> None:
    before = loop.time()
    loop.close()
    assert loop.time() >= before


def test_close_drops_what_is_scheduled(loop: Any) -> None:
    class Callback:
        def __call__(self) -> None:
            raise AssertionError("ran after close()")

    callbacks = [Callback() for _ in range(3)]
    gone = [weakref.ref(callback) for callback in callbacks]
    loop.call_soon(callbacks[0])
    loop.call_later(3600, callbacks[1])
    loop.call_soon_threadsafe(callbacks[2])
    loop.close()
    callbacks.clear()
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]


def test_an_unclosed_loop_warns(backend: Backend) -> None:
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        backend.new_loop()
        gc.collect()


def test_repr_tells_the_state(loop: Any) -> None:
    name = type(loop).__name__
    loop.set_debug(False)
    assert f"{name} running=False closed=False debug=False>" in repr(loop)
    loop.close()
    loop.set_debug(True)
    assert f"{name} running=False closed=True debug=True>" in repr(loop)


def test_a_loop_is_collected_when_it_is_dropped(backend: Backend) -> None:
    def use() -> Any:
        loop = backend.new_loop()
        loop.call_soon(lambda: loop.call_later(3600, lambda: loop))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        return weakref.ref(loop)

    gone = use()
    gc.collect()
    assert gone() is None


async def count_up(closed: List[str]) -> AsyncIterator[int]:
    """Count until closed, which takes a turn of the loop."""
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        await asyncio.sleep(0)
        closed.append("closed")


def test_shutdown_asyncgens_closes_generators(loop: Any) -> None:
    closed: List[str] = []

    async def main() -> Any:
        generator: Any = count_up(closed)
        assert await generator.__anext__() == 0
        return generator

    generator = loop.run_until_complete(main())
    assert closed == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == ["closed"]
    del generator


def test_a_dropped_generator_is_closed_by_its_loop(loop: Any) -> None:
    closed: List[str] = []

    async def main() -> None:
        generator: Any = count_up(closed)
        await generator.__anext__()
        del generator
        gc.collect()
        while not closed:
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_a_generator_started_after_shutdown_asyncgens_warns(loop: Any) -> None:
    async def main() -> None:
        generator: Any = count_up([])
        with pytest.warns(ResourceWarning, match="was scheduled after"):
            await generator.__anext__()
        await generator.aclose()

    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(main())


def test_shutdown_asyncgens_reports_a_generator_that_fails(loop: Any, reports: Reports) -> None:
    async def failing() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise ArithmeticError("in the generator")

    async def main() -> Any:
        generator: Any = failing()
        await generator.__anext__()
        return generator

    generator = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    context = reports.take_one()
    assert "an error occurred during closing of asynchronous generator" in context["message"]
    assert isinstance(context["exception"], ArithmeticError)
    assert context["asyncgen"] is generator


def test_generator_hooks_are_the_loops_only_while_it_runs(loop: Any) -> None:
    before = sys.get_asyncgen_hooks()
    inside: List[Any] = []
    loop.call_soon(lambda: inside.append(sys.get_asyncgen_hooks()))
    loop.stop()
    loop.run_forever()
    assert callable(inside[0].firstiter)
    assert callable(inside[0].finalizer)
    assert sys.get_asyncgen_hooks() == before


@pytest.mark.unix("/proc, which tells what a thread waits in")
def test_waiting_for_nothing_sleeps(run: Run) -> None:
    """A loop with nothing to do waits in the kernel, and does not look again and again."""

    async def main() -> None:
        assert await call_while_waiting(lambda: None) == []

    run(main)


def test_current_and_all_tasks_see_the_loop(run: Run) -> None:
    async def main() -> None:
        other = asyncio.ensure_future(turns(3))
        assert asyncio.all_tasks() == {asyncio.current_task(), other}
        await other

    run(main)


@pytest.mark.parametrize("attribute", ["time", "call_soon", "create_task", "stop"])
def test_a_method_is_bound_to_its_loop(loop: Any, attribute: str) -> None:
    method: Callable[..., Any] = getattr(loop, attribute)
    assert method.__self__ is loop  # type: ignore[attr-defined]


# What comes of a loop that was not made, or is not left, as it should be


def test_a_loop_whose_init_was_not_called_is_refused(backend: Backend) -> None:
    """A subclass forgot `super().__init__()`; it neither spins nor keeps the interpreter."""
    child = run_python(
        backend.source
        + f"""
class Loop({backend.package}.{backend.class_name}):
    def __init__(self):
        pass

loop = Loop()
try:
    loop.run_forever()
except (AttributeError, RuntimeError):
    print("refused")
"""
    )
    assert (child.stdout, child.returncode) == ("refused\n", 0), child.stderr


@pytest.mark.unix("a limit of descriptors")
def test_a_loop_runs_without_further_descriptors(loop: Any) -> None:
    """What a loop needs of the kernel it has since it was made."""
    with no_more_descriptors():
        assert loop.run_until_complete(value(42)) == 42
        assert loop.run_until_complete(asyncio.sleep(0.001, "slept")) == "slept"


def dropped(make: Callable[[], Any]) -> None:
    """The loop that `make` makes warns when it is dropped, and is collected then."""
    gone = weakref.ref(make())
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    gc.collect()
    assert gone() is None


def test_an_unclosed_loop_with_calls_from_threads_is_collected(backend: Backend) -> None:
    """What call_soon_threadsafe() has queued refers to its loop."""

    def make() -> Any:
        loop = backend.new_loop()
        loop.run_until_complete(turns(1))
        loop.call_soon_threadsafe(loop.stop)
        return loop

    dropped(make)


def test_an_unclosed_loop_with_timers_and_watches_is_collected(backend: Backend) -> None:
    reading, writing = socket.socketpair()

    def make() -> Any:
        loop = backend.new_loop()
        loop.call_soon(loop.stop)
        loop.call_later(60, loop.stop)
        loop.add_reader(reading, loop.stop)
        loop.set_exception_handler(lambda *args: loop.stop())
        loop.set_task_factory(lambda *args: loop.stop())
        return loop

    with reading, writing:
        dropped(make)


def test_a_loop_that_its_selector_refers_to_is_collected(backend: Backend) -> None:
    if backend.is_proactor:
        pytest.skip("it has no selector")

    def make() -> Any:
        selector: Any = UserSelector()
        loop = backend.module().SelectorEventLoop(selector)
        selector.loop = loop
        return loop

    dropped(make)


def test_a_loop_left_at_exit_with_signal_handlers(backend: Backend) -> None:
    """asyncio: at this stage signal handlers are not removed; nothing is printed but a warning."""
    child = run_python(
        backend.source
        + f"""
import signal

loop = new_loop()
loop.add_signal_handler(signal.{USER.name}, print)
"""
    )
    assert (child.stdout, child.stderr, child.returncode) == ("", "", 0)
