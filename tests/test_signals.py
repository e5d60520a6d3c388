"""Signal handlers of the loop, Python's own, and Ctrl-C."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import socket
import subprocess
import sys
import threading
from typing import Any, Iterator, List

import pytest
from support.backends import PY311, Backend
from support.children import environment_of, run_python
from support.platforms import WINDOWS
from support.reports import Reports
from support.signals import OTHER, USER, send_to_main_thread, send_to_self


@pytest.fixture(autouse=True)
def dispositions(leaves_nothing: None) -> Iterator[None]:
    """Give the signals that tests use their dispositions back."""
    numbers = {USER, OTHER, signal.SIGINT, signal.SIGTERM}
    if not WINDOWS:
        numbers.add(signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def one_turn(loop: Any) -> None:
    """Make one turn of `loop`."""
    loop.stop()
    loop.run_forever()


@contextlib.contextmanager
def signalled_while_waiting(loop: Any, number: signal.Signals) -> Iterator[None]:
    """Send `number` to this thread, whose `loop` waits, until the block is left.

    Once does not suffice: between its last look at signals and the wait in the kernel CPython
    without a wake-up fd overlooks one.
    """
    waiting, left = threading.Event(), threading.Event()

    def work() -> None:
        waiting.wait()
        while not left.is_set():
            send_to_main_thread(number)
            left.wait(1)

    thread = threading.Thread(target=work)
    thread.start()
    loop.call_soon(waiting.set)
    try:
        yield
    finally:
        left.set()
        thread.join()


def nothing(*args: Any) -> None:
    """A callback that does nothing."""


async def coroutine_function() -> None:
    """What add_signal_handler() refuses."""


def test_a_handler_runs_in_the_loop_with_its_arguments(loop: Any) -> None:
    got: List[Any] = []

    def handler(*args: Any) -> None:
        got.append((args, asyncio.get_running_loop()))
        loop.stop()

    assert loop.add_signal_handler(USER, handler, 1, "two") is None
    loop.call_soon(send_to_self, USER)
    loop.run_forever()
    assert got == [((1, "two"), loop)]
    assert loop.remove_signal_handler(USER) is True


def test_a_signal_wakes_a_loop_that_waits(loop: Any) -> None:
    loop.add_signal_handler(USER, loop.stop)
    waiting = threading.Event()

    def work() -> None:
        waiting.wait()
        send_to_self(USER)

    thread = threading.Thread(target=work)
    thread.start()
    loop.call_soon(waiting.set)
    loop.run_forever()
    thread.join()


def test_a_handler_runs_once_per_signal(loop: Any) -> None:
    got: List[str] = []
    loop.add_signal_handler(USER, got.append, "signal")

    async def main() -> None:
        for count in range(1, 6):
            signal.raise_signal(USER)
            while len(got) < count:
                await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert got == ["signal"] * 5


def test_two_signals_have_two_handlers(loop: Any) -> None:
    got: List[str] = []
    loop.add_signal_handler(USER, got.append, "one")
    loop.add_signal_handler(OTHER, got.append, "two")

    async def main() -> None:
        for number in (OTHER, USER):
            before = len(got)
            signal.raise_signal(number)
            while len(got) == before:
                await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert got == ["two", "one"]


def test_adding_again_replaces_the_handler(loop: Any) -> None:
    got: List[str] = []
    loop.add_signal_handler(USER, got.append, "old")
    loop.add_signal_handler(USER, lambda: (got.append("new"), loop.stop()))
    loop.call_soon(signal.raise_signal, USER)
    loop.run_forever()
    assert got == ["new"]


def test_a_signal_that_arrives_while_the_loop_is_not_running_is_kept(loop: Any) -> None:
    """A signal that arrives while the loop is not running is not lost."""
    got: List[str] = []
    loop.add_signal_handler(USER, lambda: (got.append("kept"), loop.stop()))
    signal.raise_signal(USER)
    assert got == []
    loop.run_forever()
    assert got == ["kept"]


def test_a_signal_between_two_runs_is_kept(loop: Any) -> None:
    """A signal that arrives while the loop is not running is not lost."""
    got: List[str] = []
    one_turn(loop)
    loop.add_signal_handler(USER, got.append, "kept")
    one_turn(loop)
    signal.raise_signal(USER)

    async def main() -> None:
        while not got:
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_removing_restores_the_default(loop: Any) -> None:
    loop.add_signal_handler(USER, nothing)
    assert signal.getsignal(USER) not in (signal.SIG_DFL, signal.SIG_IGN, None)
    assert loop.remove_signal_handler(USER) is True
    assert signal.getsignal(USER) is signal.SIG_DFL
    assert loop.remove_signal_handler(USER) is False
    assert signal.set_wakeup_fd(-1) == -1


def test_removing_the_handler_of_sigint_restores_keyboard_interrupt(loop: Any) -> None:
    loop.add_signal_handler(signal.SIGINT, nothing)
    assert loop.remove_signal_handler(signal.SIGINT) is True
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_closing_the_loop_removes_its_handlers(loop: Any) -> None:
    loop.add_signal_handler(USER, nothing)
    loop.add_signal_handler(signal.SIGINT, nothing)
    loop.close()
    assert signal.getsignal(USER) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", ["USR1", 1.5, None])
@pytest.mark.parametrize("method", ["add_signal_handler", "remove_signal_handler"])
def test_a_signal_is_an_integer(loop: Any, method: str, number: Any) -> None:
    arguments = (number, nothing) if method.startswith("add") else (number,)
    with pytest.raises(TypeError, match="sig must be an int, not "):
        getattr(loop, method)(*arguments)


@pytest.mark.parametrize("number", [0, -1, 1000, 1 << 40])
@pytest.mark.parametrize("method", ["add_signal_handler", "remove_signal_handler"])
def test_a_signal_number_is_valid(loop: Any, method: str, number: int) -> None:
    arguments = (number, nothing) if method.startswith("add") else (number,)
    with pytest.raises(ValueError, match=f"invalid signal number {number}"):
        getattr(loop, method)(*arguments)


@pytest.mark.unix("signals that cannot be caught")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_signals_that_cannot_be_caught(loop: Any, name: str) -> None:
    number = signal.Signals[name]
    with pytest.raises(RuntimeError, match=r"sig .* cannot be caught"):
        loop.add_signal_handler(number, nothing)
    assert signal.set_wakeup_fd(-1) == -1
    assert loop.remove_signal_handler(number) is False


def test_coroutines_are_refused(loop: Any) -> None:
    coroutine = coroutine_function()
    for callback in (coroutine, coroutine_function):
        with pytest.raises(TypeError, match=r"coroutines cannot be used with add_signal_handler\("):
            loop.add_signal_handler(USER, callback)
    coroutine.close()
    assert signal.getsignal(USER) is signal.SIG_DFL


def test_only_the_main_thread_adds_handlers(loop: Any) -> None:
    errors: List[Exception] = []

    def work() -> None:
        try:
            loop.add_signal_handler(USER, nothing)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert "set_wakeup_fd only works in main thread" in str(errors[0])
    assert signal.getsignal(USER) is signal.SIG_DFL


@pytest.mark.unix("SIGCHLD")
def test_sigchld_is_allowed(loop: Any) -> None:
    """`add_signal_handler(SIGCHLD)` is allowed."""
    loop.add_signal_handler(signal.SIGCHLD, loop.stop)
    child = subprocess.Popen([sys.executable, "-c", ""])
    loop.run_forever()
    child.wait()
    assert loop.remove_signal_handler(signal.SIGCHLD) is True


def test_a_handler_runs_in_the_context_of_its_adding(loop: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    got: List[str] = []

    def add() -> None:
        variable.set("adder's")
        loop.add_signal_handler(USER, lambda: (got.append(variable.get()), loop.stop()))

    contextvars.copy_context().run(add)
    loop.call_soon(signal.raise_signal, USER)
    loop.run_forever()
    assert got == ["adder's"]


def test_a_handler_that_raises_is_reported(loop: Any, reports: Reports) -> None:
    def fail() -> None:
        loop.stop()
        raise ZeroDivisionError

    loop.add_signal_handler(USER, fail)
    loop.call_soon(signal.raise_signal, USER)
    loop.run_forever()
    assert isinstance(reports.take_one()["exception"], ZeroDivisionError)


def test_sigint_is_a_keyboard_interrupt(loop: Any) -> None:
    """Seen elsewhere: `SIGINT` lost."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loop.call_soon(signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not loop.is_running()


def test_sigint_interrupts_a_loop_that_waits(loop: Any) -> None:
    """Seen elsewhere: `SIGINT` lost."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with signalled_while_waiting(loop, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_handler_of_the_signal_module_runs_while_the_loop_waits(loop: Any) -> None:
    """signal.signal() works beside the loop: the wait is interrupted and Python's handler runs."""
    got: List[int] = []

    def handle(number: int, frame: Any) -> None:
        got.append(number)
        loop.call_soon_threadsafe(loop.stop)

    signal.signal(USER, handle)
    with signalled_while_waiting(loop, USER):
        loop.run_forever()
    assert set(got) == {USER}


def test_a_handler_of_the_signal_module_that_raises_leaves_the_loop(loop: Any) -> None:
    class Alarm(SystemExit):  # wherever the signal lands, a callback of the loop included
        pass

    def handle(number: int, frame: Any) -> None:
        raise Alarm

    signal.signal(USER, handle)
    with signalled_while_waiting(loop, USER), pytest.raises(Alarm):
        loop.run_forever()


def start_child(backend: Backend, body: str, *options: str) -> Any:
    """A child process that runs `body` after the definition of ``new_loop``."""
    return subprocess.Popen(
        [sys.executable, *options, "-c", "import asyncio, signal, sys\n" + backend.source + body],
        env=environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(child: Any, number: signal.Signals = signal.SIGINT) -> Any:
    """Wait until `child` says that it is ready, send it `number` until it ends."""
    line = child.stdout.readline()
    assert line == "ready\n", child.communicate()[1]
    while True:
        child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=5)


@pytest.mark.unix("signals from one process to another")
def test_ctrl_c_in_a_program_that_waits(backend: Backend) -> None:
    """Seen elsewhere: `SIGINT` lost."""
    child = start_child(
        backend,
        "loop = new_loop()\n"
        "loop.call_soon(print, 'ready'); loop.call_soon(sys.stdout.flush)\n"
        "try:\n    loop.run_forever()\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
        "finally:\n    loop.close()\n",
    )
    out, err = interrupt(child)
    assert (out, err, child.returncode) == ("interrupted\n", "", 0)


@pytest.mark.unix("signals from one process to another")
def test_ctrl_c_in_a_busy_program(backend: Backend) -> None:
    """Seen elsewhere: `SIGINT` lost."""
    child = start_child(
        backend,
        "loop = new_loop()\n"
        "def again():\n    loop.call_soon(again)\n"
        "loop.call_soon(print, 'ready'); loop.call_soon(sys.stdout.flush); loop.call_soon(again)\n"
        "try:\n    loop.run_forever()\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
        "finally:\n    loop.close()\n",
    )
    out, err = interrupt(child)
    assert (out, err, child.returncode) == ("interrupted\n", "", 0)


@pytest.mark.unix("signals from one process to another")
@pytest.mark.skipif(not PY311, reason="asyncio.Runner is new in Python 3.11")
def test_ctrl_c_in_a_runner_cancels_the_main_task(backend: Backend) -> None:
    """asyncio docs, "Handling Keyboard Interruption": the main task is cancelled, then raised."""
    child = start_child(
        backend,
        "async def main():\n"
        "    try:\n        print('ready', flush=True)\n        await asyncio.sleep(3600)\n"
        "    except asyncio.CancelledError:\n        print('cancelled'); raise\n"
        "    finally:\n        await asyncio.sleep(0)\n        print('cleaned up')\n"
        "try:\n"
        "    with asyncio.Runner(loop_factory=new_loop) as runner:\n        runner.run(main())\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n",
    )
    out, err = interrupt(child)
    assert (out.split("\n"), err) == (["cancelled", "cleaned up", "interrupted", ""], "")
    assert child.returncode == 0


@pytest.mark.unix("signals from one process to another")
def test_ctrl_c_in_asyncio_run(backend: Backend) -> None:
    """Seen elsewhere: `SIGINT` lost."""
    child = start_child(
        backend,
        "class Policy(asyncio.DefaultEventLoopPolicy):\n"
        "    def new_event_loop(self):\n        return new_loop()\n"
        "asyncio.set_event_loop_policy(Policy())\n"
        "async def main():\n"
        "    try:\n        print('ready', flush=True)\n        await asyncio.sleep(3600)\n"
        "    finally:\n        print('cleaned up')\n"
        "asyncio.run(main())\n",
    )
    out, err = interrupt(child)
    assert out == "cleaned up\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    # By the signal, from an interpreter that runs its main program by Py_RunMain().
    assert child.returncode == run_python("raise KeyboardInterrupt").returncode


@pytest.mark.unix("signals from one process to another")
def test_sigterm_ends_a_program_without_a_handler(backend: Backend) -> None:
    child = start_child(
        backend,
        "loop = new_loop()\n"
        "loop.call_soon(print, 'ready'); loop.call_soon(sys.stdout.flush)\n"
        "loop.run_forever()\n",
    )
    interrupt(child, signal.SIGTERM)
    assert child.returncode == -signal.SIGTERM


@pytest.mark.unix("signals from one process to another")
def test_sigterm_with_a_handler_shuts_a_program_down(backend: Backend) -> None:
    child = start_child(
        backend,
        "loop = new_loop()\n"
        "loop.add_signal_handler(signal.SIGTERM, loop.stop)\n"
        "loop.call_soon(print, 'ready'); loop.call_soon(sys.stdout.flush)\n"
        "loop.run_forever()\n"
        "loop.close()\nprint('shut down')\n",
    )
    out, err = interrupt(child, signal.SIGTERM)
    assert (out, err, child.returncode) == ("shut down\n", "", 0)


def test_an_exit_in_a_signal_handler_leaves_the_loop(loop: Any) -> None:
    """Seen elsewhere: `sys.exit()` hangs."""
    loop.add_signal_handler(USER, sys.exit, 4)
    loop.call_soon(signal.raise_signal, USER)
    with pytest.raises(SystemExit):
        loop.run_forever()


def test_a_wake_up_fd_of_the_users_stays(loop: Any) -> None:
    """A loop without signal handlers leaves signal.set_wakeup_fd() to the program."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    async def main() -> None:
        signal.set_wakeup_fd(writing.fileno())

    loop.run_until_complete(main())
    assert signal.set_wakeup_fd(-1) == writing.fileno()
    reading.close()
    writing.close()


def test_a_wake_up_fd_set_before_the_run_is_there_after_it(loop: Any) -> None:
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    one_turn(loop)
    assert signal.set_wakeup_fd(-1) == writing.fileno()
    reading.close()
    writing.close()


@pytest.mark.parametrize("where", ["in another run", "in the same run", "between runs"])
def test_no_wake_up_fd_is_left_after_the_last_handler(loop: Any, where: str) -> None:
    """Its number would be the next file's, and the numbers of signals be written there."""
    if where != "in the same run":
        loop.add_signal_handler(USER, nothing)
        one_turn(loop)

    async def main() -> None:
        loop.add_signal_handler(USER, nothing)
        assert loop.remove_signal_handler(USER) is True

    if where == "between runs":
        assert loop.remove_signal_handler(USER) is True
    else:
        loop.run_until_complete(main())
    assert signal.set_wakeup_fd(-1) == -1


def test_a_wake_up_fd_of_the_users_is_replaced_and_not_left(loop: Any) -> None:
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)

    async def main() -> None:
        loop.add_signal_handler(USER, nothing)
        loop.remove_signal_handler(USER)

    loop.run_until_complete(main())
    assert signal.set_wakeup_fd(-1) == -1
    reading.close()
    writing.close()


@pytest.mark.parametrize("becomes", ["closed", "blocking"])
def test_a_wake_up_fd_that_cannot_be_set_again(loop: Any, becomes: str) -> None:
    """The loop runs all the same."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno())
    if becomes == "closed":
        writing.close()
    else:
        writing.setblocking(True)
    one_turn(loop)
    with contextlib.suppress(OSError):  # asyncio has left it as it was
        signal.set_wakeup_fd(-1)
    reading.close()
    writing.close()


def test_closing_outside_of_the_main_thread_closes_all_the_same(loop: Any) -> None:
    """The handlers cannot be removed there, which is told, but only after the loop is closed."""
    errors: List[BaseException] = []
    loop.add_signal_handler(USER, nothing)

    def close() -> None:
        try:
            loop.close()
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    signal.set_wakeup_fd(-1)
    assert loop.is_closed()
    assert len(errors) == 1
    assert "main thread" in str(errors[0])
