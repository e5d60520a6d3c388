"""Signals and Ctrl-C on Windows, where asyncio's loops have no `add_signal_handler()`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from typing import Any, Iterator

import pytest
from support.backends import Backend
from support.children import environment_of
from support.platforms import WINDOWS

pytestmark = pytest.mark.skipif(not WINDOWS, reason="for Windows")


@pytest.fixture
def dispositions(leaves_nothing: None) -> Iterator[None]:
    """Give the signals their dispositions back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.Signals["SIGBREAK"])
    before = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.usefixtures("dispositions")
@pytest.mark.parametrize("name", ["SIGINT", "SIGBREAK", "SIGTERM"])
class TestSignals:
    """The chapter: "add_signal_handler() and remove_signal_handler() are not supported"."""

    def test_a_handler(self, loop: Any, name: str) -> None:
        number, got = signal.Signals[name], []
        before = signal.getsignal(number)

        def handler(*args: Any) -> None:
            got.append((args, asyncio.get_running_loop()))
            loop.stop()

        loop.add_signal_handler(number, handler, 1, "two")
        loop.call_soon(signal.raise_signal, number)
        loop.run_forever()
        assert got == [((1, "two"), loop)]
        assert loop.remove_signal_handler(number) is True
        assert loop.remove_signal_handler(number) is False
        assert signal.getsignal(number) is before

    def test_it_wakes_a_loop_that_waits(self, loop: Any, name: str) -> None:
        number = signal.Signals[name]
        loop.add_signal_handler(number, loop.stop)
        waiting = threading.Event()

        def work() -> None:
            waiting.wait()
            signal.raise_signal(number)

        thread = threading.Thread(target=work)
        thread.start()
        loop.call_soon(waiting.set)
        loop.run_forever()
        thread.join()


@pytest.mark.usefixtures("dispositions")
def test_a_signal_that_windows_does_not_have(loop: Any) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        loop.add_signal_handler(10, print)


PRESSES_CTRL_C = """
import asyncio, ctypes, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
def press():
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    if not kernel.GenerateConsoleCtrlEvent(0, 0):
        print("cannot be pressed:", ctypes.get_last_error(), flush=True)
"""


def press_ctrl_c(backend: Backend, body: str) -> str:
    """What a program prints that has a console of its own and presses Ctrl-C there."""
    child = subprocess.run(
        [sys.executable, "-c", backend.source + PRESSES_CTRL_C + body],
        env=environment_of(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        creationflags=subprocess.CREATE_NO_WINDOW,  # type: ignore[attr-defined]
        text=True,
        timeout=25,
        check=False,
    )
    return child.stdout


def test_ctrl_c_ends_a_loop_that_waits(backend: Backend) -> None:
    if backend.name == "asyncio-selector":
        pytest.skip("asyncio's SelectorEventLoop finds out when something else wakes it")
    out = press_ctrl_c(
        backend,
        """
loop = new_loop()
loop.call_soon(threading.Thread(target=press).start)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
finally:
    loop.close()
""",
    )
    assert out == "interrupted\n"


def test_ctrl_c_in_a_runner(backend: Backend) -> None:
    if backend.name == "asyncio-selector":
        pytest.skip("asyncio's SelectorEventLoop finds out when something else wakes it")
    out = press_ctrl_c(
        backend,
        """
async def main():
    threading.Thread(target=press).start()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("cancelled")
        raise
try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
""",
    )
    assert out == "cancelled\ninterrupted\n"


def test_ctrl_c_of_a_handler(backend: Backend) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio has no add_signal_handler() on Windows")
    out = press_ctrl_c(
        backend,
        """
loop = new_loop()
loop.add_signal_handler(signal.SIGINT, lambda: (print("handled"), loop.stop()))
loop.call_soon(threading.Thread(target=press).start)
loop.run_forever()
loop.close()
""",
    )
    assert out == "handled\n"
