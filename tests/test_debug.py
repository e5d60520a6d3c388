"""Debug mode: its switches, checks of callbacks and threads, slow callbacks, source tracebacks."""

from __future__ import annotations

import asyncio
import logging
import re
import selectors
import sys
import threading
import time
from typing import Any, Callable, List

import pytest
from support.backends import Backend
from support.children import run_python
from support.platforms import WINDOWS
from support.recorders import Recorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST


def one_turn(loop: Any) -> None:
    """Make one turn of `loop`."""
    loop.stop()
    loop.run_forever()


async def coroutine_function() -> None:
    """What debug mode refuses as a callback."""


def nothing(*args: Any) -> None:
    """A callback that does nothing."""


def test_set_debug(loop: Any) -> None:
    for enabled in (True, False, True):
        loop.set_debug(enabled)
        assert loop.get_debug() is enabled
    loop.set_debug(False)


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ([], {}, "False"),
        ([], {"PYTHONASYNCIODEBUG": "1"}, "True"),
        ([], {"PYTHONASYNCIODEBUG": ""}, "False"),
        (["-X", "dev"], {}, "True"),
    ],
)
def test_debug_mode_by_the_environment(
    backend: Backend, options: List[str], environment: Any, expected: str
) -> None:
    """`PYTHONASYNCIODEBUG`, `-X dev`."""
    source = backend.source + "loop = new_loop()\nprint(loop.get_debug())\nloop.close()\n"
    child = run_python(source, options=options, environment=environment)
    assert (child.stdout.strip(), child.returncode) == (expected, 0), child.stderr


CALLERS = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback: loop.call_later(60, callback),
    "call_at": lambda loop, callback: loop.call_at(loop.time() + 60, callback),
    "run_in_executor": lambda loop, callback: loop.run_in_executor(None, callback),
}


@pytest.mark.parametrize("name", CALLERS)
def test_coroutine_functions_are_refused(loop: Any, name: str) -> None:
    """Debug mode refuses coroutines and non-callables in `call_soon`."""
    loop.set_debug(True)
    text = rf"coroutines cannot be used with {'call_at' if name == 'call_later' else name}\(\)"
    with pytest.raises(TypeError, match=text):
        CALLERS[name](loop, coroutine_function)


@pytest.mark.parametrize("name", CALLERS)
def test_coroutines_are_refused(loop: Any, name: str) -> None:
    """Debug mode refuses coroutines and non-callables in `call_soon`."""
    loop.set_debug(True)
    coroutine = coroutine_function()
    with pytest.raises(TypeError, match="coroutines cannot be used with "):
        CALLERS[name](loop, coroutine)
    coroutine.close()


@pytest.mark.parametrize("name", CALLERS)
def test_what_is_not_callable_is_refused(loop: Any, name: str) -> None:
    """Debug mode refuses coroutines and non-callables in `call_soon`."""
    loop.set_debug(True)
    with pytest.raises(TypeError, match="a callable object was expected by .*, got 'spam'"):
        CALLERS[name](loop, "spam")


THREAD_CHECKED = {
    "call_soon": lambda loop: loop.call_soon(nothing),
    "call_later": lambda loop: loop.call_later(60, nothing),
    "call_at": lambda loop: loop.call_at(loop.time() + 60, nothing),
}


@pytest.mark.parametrize("name", THREAD_CHECKED)
def test_a_call_from_another_thread_is_refused(loop: Any, name: str) -> None:
    """A call from another thread in debug mode gives asyncio's exception."""
    loop.set_debug(True)

    def work() -> str:
        try:
            THREAD_CHECKED[name](loop)
        except RuntimeError as error:
            return str(error)
        return "accepted"

    async def main() -> str:
        answer: str = await loop.run_in_executor(None, work)
        return answer

    assert loop.run_until_complete(main()) == (
        "Non-thread-safe operation invoked on an event loop other than the current one"
    )


@pytest.mark.parametrize("name", THREAD_CHECKED)
def test_a_loop_that_does_not_run_belongs_to_no_thread(loop: Any, name: str) -> None:
    loop.set_debug(True)
    errors: List[BaseException] = []

    def work() -> None:
        try:
            THREAD_CHECKED[name](loop).cancel()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_future_callbacks_from_another_thread_are_refused(loop: Any) -> None:
    loop.set_debug(True)

    async def main() -> None:
        future = loop.create_future()
        future.add_done_callback(nothing)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await loop.run_in_executor(None, future.set_result, None)

    loop.run_until_complete(main())


def test_call_soon_threadsafe_from_another_thread_is_allowed(loop: Any) -> None:
    loop.set_debug(True)

    async def main() -> None:
        event = asyncio.Event()
        await loop.run_in_executor(None, loop.call_soon_threadsafe, event.set)
        await event.wait()

    loop.run_until_complete(main())


def slow(loop: Any) -> None:
    """Be over the loop's limit for a callback, by its own clock."""
    until = loop.time() + loop.slow_callback_duration * 2
    while loop.time() < until:
        pass


def test_the_limit_for_slow_callbacks(loop: Any) -> None:
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 5
    assert loop.slow_callback_duration == 5


def test_slow_callbacks_are_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Debug mode logs slow callbacks with asyncio's text."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.005
    handle = loop.call_soon(slow, loop)
    text = re.escape(repr(handle))
    with caplog.at_level(logging.WARNING, "asyncio"):
        one_turn(loop)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert re.fullmatch(rf"Executing {text} took 0\.\d\d\d seconds", messages[0]), messages
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].name == "asyncio"


def test_slow_timers_are_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Debug mode logs slow callbacks with asyncio's text."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.005
    loop.call_at(loop.time(), slow, loop)
    with caplog.at_level(logging.WARNING, "asyncio"):
        one_turn(loop)
    (record,) = caplog.records
    assert re.match(r"Executing <TimerHandle when=.* slow\(.*\) at .*> took", record.getMessage())


def test_slow_steps_of_a_task_are_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Debug mode logs slow callbacks with asyncio's text: it names the task."""

    async def slow_coroutine() -> None:
        slow(loop)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.005
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(slow_coroutine())
    messages = [record.getMessage() for record in caplog.records]
    assert any(
        re.match(r"Executing <Task (finished|pending) name='Task-.*slow_coroutine", message)
        for message in messages
    ), messages


def test_slow_callbacks_are_not_logged_outside_debug_mode(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop.set_debug(False)
    loop.slow_callback_duration = 0.0001
    loop.call_soon(slow, loop)
    with caplog.at_level(logging.WARNING, "asyncio"):
        one_turn(loop)
    assert caplog.records == []


def test_fast_callbacks_are_not_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 1000
    loop.call_soon(nothing)
    with caplog.at_level(logging.WARNING, "asyncio"):
        one_turn(loop)
    assert caplog.records == []


HANDLE_MAKERS = {
    "call_soon": lambda loop: loop.call_soon(nothing),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(nothing),
    "call_later": lambda loop: loop.call_later(60, nothing),
    "call_at": lambda loop: loop.call_at(loop.time() + 60, nothing),
}


@pytest.mark.parametrize("name", HANDLE_MAKERS)
def test_handles_tell_where_they_were_made(loop: Any, name: str) -> None:
    """Debug mode keeps source tracebacks: the last entry is the caller's line."""
    make: Callable[[Any], Any] = HANDLE_MAKERS[name]
    loop.set_debug(True)
    handle = make(loop)
    line = make.__code__.co_firstlineno
    assert f"created at {__file__}:{line}>" in repr(handle)
    handle.cancel()


def test_handles_tell_nothing_outside_debug_mode(loop: Any) -> None:
    loop.set_debug(False)
    assert "created at" not in repr(loop.call_soon(nothing))


def test_tasks_tell_where_they_were_made(run: Run) -> None:
    """Debug mode keeps source tracebacks: the last entry is the caller's line."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task, line = loop.create_task(turns(1)), sys._getframe().f_lineno
        assert f"created at {__file__}:{line}>" in repr(task)
        await task

    run(main, debug=True)


def test_futures_tell_where_they_were_made(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future, line = loop.create_future(), sys._getframe().f_lineno
        assert f"created at {__file__}:{line}>" in repr(future) or "created at" in repr(future)

    run(main, debug=True)


def test_coroutine_origins_are_tracked_while_a_debugging_loop_runs(loop: Any) -> None:
    depths: List[int] = []
    before = sys.get_coroutine_origin_tracking_depth()
    loop.set_debug(True)
    loop.call_soon(lambda: depths.append(sys.get_coroutine_origin_tracking_depth()))
    one_turn(loop)
    assert depths[0] > 0
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_switching_debug_mode_in_a_running_loop(loop: Any) -> None:
    async def main() -> List[bool]:
        depths = []
        for enabled in (True, False):
            loop.set_debug(enabled)
            await turns(1)
            depths.append(sys.get_coroutine_origin_tracking_depth() > 0)
        return depths

    loop.set_debug(False)
    assert loop.run_until_complete(main()) == [True, False]


def test_debug_mode_does_not_change_what_runs(run: Run) -> None:
    async def main() -> int:
        results = await asyncio.gather(*(asyncio.sleep(0, number) for number in range(10)))
        await asyncio.sleep(0.001)
        return sum(results)

    assert run(main, debug=True) == run(main, debug=False) == 45


def test_closing_is_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        loop.close()
    assert any(record.getMessage().startswith("Close <") for record in caplog.records)


def test_a_wrong_thread_never_crashes(loop: Any, backend: Backend) -> None:
    """A call from the wrong thread is never undefined behaviour."""
    if backend.is_oracle:
        pytest.skip("asyncio's heap of timers may find that it has changed")
    loop.set_debug(False)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                loop.call_soon(nothing).cancel()
                loop.call_later(0.001, nothing).cancel()
                loop.call_soon_threadsafe(nothing)
            except RuntimeError:
                pass

    async def main() -> None:
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            await turns(10)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        loop.run_until_complete(main())
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_default_handler_tells_where_the_handle_was_made(loop: Any, reports: Reports) -> None:
    """asyncio: a report from within a callback has the traceback of that callback's handle."""
    loop.set_debug(True)
    loop.set_exception_handler(None)
    loop.call_soon(lambda: loop.call_exception_handler({"message": "told"}))
    one_turn(loop)
    (text,) = reports.take_log()
    assert text.startswith("told\nhandle_traceback: Handle created at (most recent call last):\n")
    assert f'File "{__file__}"' in text


def test_the_default_handler_tells_no_handle_outside_of_callbacks(
    loop: Any, reports: Reports
) -> None:
    loop.set_debug(True)
    loop.set_exception_handler(None)
    loop.call_soon(nothing)
    one_turn(loop)
    loop.call_exception_handler({"message": "told"})
    assert reports.take_log() == ["told"]


def test_the_selector_or_proactor_is_logged(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "asyncio"):
        loop = backend.new_loop()
    loop.close()
    proactor = "IocpProactor" if WINDOWS else "IoUringProactor"
    name = backend.selector or type(selectors.DefaultSelector()).__name__
    if WINDOWS and backend.name == "selector":
        name = proactor  # which it waits in
    expected = f"Using selector: {name}"
    if backend.is_proactor:
        expected = f"Using proactor: {proactor}"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_connections_are_logged(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio: "%r connected to %s:%r: (%r, %r)", with the socket, transport and protocol."""

    async def main() -> None:
        server = await loop.create_server(Recorder, LOCALHOST, 0)
        port = server.sockets[0].getsockname()[1]
        with caplog.at_level(logging.DEBUG, "asyncio"):
            transport, protocol = await loop.create_connection(Recorder, LOCALHOST, port)
            await turns(5)
        sock = transport.get_extra_info("socket")
        address = sock.getsockname()
        texts = [record.getMessage() for record in caplog.records]
        try:
            expected = f"{sock!r} connected to {LOCALHOST}:{port}: ({transport!r}, {protocol!r})"
            assert expected in texts
            accepted = f"{server!r} got a new connection from {address!r}: <socket.socket fd="
            assert any(text.startswith(accepted) for text in texts), texts
        finally:
            transport.close()
            await protocol.lost()
            server.close()
            await turns(5)

    loop.set_debug(True)
    loop.run_until_complete(main())
