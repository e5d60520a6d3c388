"""``oxloop.run``: asyncio.run's rules on every Python version, Ctrl-C included."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from typing import Any, AsyncIterator

import pytest
from support.backends import DEFAULT_LOOP
from support.signals import send_to_self


async def nothing() -> None:
    pass


def run_program(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=60
    )


class TestRun:
    def test_gives_the_result(self, oxloop: Any) -> None:
        async def main() -> tuple[str, Any]:
            return "result", asyncio.get_running_loop()

        result, loop = oxloop.run(main())
        assert result == "result"
        assert type(loop) is getattr(oxloop, DEFAULT_LOOP)
        assert loop.is_closed()

    def test_raises_what_main_raises(self, oxloop: Any) -> None:
        async def main() -> None:
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            oxloop.run(main())

    @pytest.mark.parametrize("debug", [True, False])
    def test_debug(self, oxloop: Any, debug: bool) -> None:
        async def main() -> bool:
            return asyncio.get_running_loop().get_debug()

        assert oxloop.run(main(), debug=debug) is debug

    def test_debug_of_none_leaves_it(self, oxloop: Any) -> None:
        def factory() -> Any:
            loop = oxloop.SelectorEventLoop()
            loop.set_debug(True)
            return loop

        async def main() -> bool:
            return asyncio.get_running_loop().get_debug()

        assert oxloop.run(main(), loop_factory=factory) is True

    def test_loop_factory(self, oxloop: Any) -> None:
        async def main() -> Any:
            return asyncio.get_running_loop()

        loop = oxloop.run(main(), loop_factory=asyncio.SelectorEventLoop)
        assert type(loop) is asyncio.SelectorEventLoop
        assert loop.is_closed()

    def test_default_follows_the_policy(self, oxloop: Any) -> None:
        class Loop(oxloop.SelectorEventLoop):  # type: ignore[name-defined, misc]
            pass

        class Policy(oxloop.DefaultEventLoopPolicy):  # type: ignore[name-defined, misc]
            _loop_factory = Loop

        async def main() -> Any:
            return asyncio.get_running_loop()

        oxloop.set_event_loop_policy(Policy())
        assert type(oxloop.run(main())) is Loop

    @pytest.mark.parametrize("wrong", [1, None, nothing])
    def test_wrong_argument(self, oxloop: Any, wrong: object) -> None:
        with pytest.raises((ValueError, TypeError)) as ours:
            oxloop.run(wrong)
        with pytest.raises(type(ours.value)) as asyncios:
            asyncio.run(wrong)  # type: ignore[arg-type]
        assert str(ours.value) == str(asyncios.value)

    def test_inside_a_running_loop(self, oxloop: Any) -> None:
        inner = nothing()

        async def main() -> None:
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                oxloop.run(inner)

        oxloop.run(main())
        inner.close()

    def test_the_threads_loop_is_not_touched(self, oxloop: Any) -> None:
        loop = oxloop.new_event_loop()
        oxloop.set_event_loop(loop)
        oxloop.run(nothing())
        assert oxloop.get_event_loop() is loop
        loop.close()

    def test_in_another_thread(self, oxloop: Any) -> None:
        results = []

        async def main() -> int:
            return threading.get_ident()

        thread = threading.Thread(target=lambda: results.append(oxloop.run(main())))
        thread.start()
        thread.join()
        assert results == [thread.ident]


class TestCleaningUp:
    def test_tasks_are_cancelled(self, oxloop: Any) -> None:
        ended = []

        async def forever() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(0)
                ended.append("cleaned up")

        async def main() -> Any:
            task = asyncio.ensure_future(forever())
            await asyncio.sleep(0)
            return task

        assert oxloop.run(main()).cancelled()
        assert ended == ["cleaned up"]

    def test_failing_task_is_reported(self, oxloop: Any) -> None:
        reports: list[dict[str, Any]] = []

        async def failing() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise LookupError("mine") from None

        async def main() -> Any:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _loop, context: reports.append(context))
            task = loop.create_task(failing())
            await asyncio.sleep(0)
            return task

        task = oxloop.run(main())
        assert reports == [
            {
                "message": "unhandled exception during asyncio.run() shutdown",
                "exception": task.exception(),
                "task": task,
            }
        ]

    def test_generators_are_closed(self, oxloop: Any) -> None:
        ended = []

        async def generator() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                ended.append("closed")

        kept = generator()

        async def main() -> None:
            await kept.__anext__()

        oxloop.run(main())
        assert ended == ["closed"]

    def test_executor_is_shut_down(self, oxloop: Any) -> None:
        async def main() -> Any:
            return await asyncio.get_running_loop().run_in_executor(None, threading.current_thread)

        assert not oxloop.run(main()).is_alive()


class TestInterrupt:
    def test_cancels_main_first(self, oxloop: Any) -> None:
        seen = []

        async def main() -> None:
            asyncio.get_running_loop().call_soon(send_to_self, signal.SIGINT)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                seen.append("cleaned up")
                raise

        with pytest.raises(KeyboardInterrupt):
            oxloop.run(main())
        assert seen == ["cleaned up"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_wakes_a_waiting_loop(self) -> None:
        result = run_program("""
import asyncio, os, signal, threading, oxloop
def send(number):
    signal.raise_signal(number) if os.name == "nt" else os.kill(os.getpid(), number)
async def main():
    # From a thread that starts once the loop is about to wait in the kernel.
    threading.Timer(0.05, send, (signal.SIGINT,)).start()
    await asyncio.sleep(3600)
try:
    oxloop.run(main())
except KeyboardInterrupt:
    print("interrupted")
""")
        assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted\n", "")

    def test_main_may_swallow_it(self, oxloop: Any) -> None:
        async def main() -> str:
            asyncio.get_running_loop().call_soon(send_to_self, signal.SIGINT)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                return "went on"
            return "not interrupted"

        assert oxloop.run(main()) == "went on"

    def test_second_one_raises_at_once(self, oxloop: Any) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon(send_to_self, signal.SIGINT)
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                loop.call_soon(send_to_self, signal.SIGINT)
                await loop.create_future()

        with pytest.raises(KeyboardInterrupt):
            oxloop.run(main())

    def test_own_handler_is_respected(self, oxloop: Any) -> None:
        seen = []
        before = signal.signal(signal.SIGINT, lambda *args: seen.append(args))
        try:

            async def main() -> None:
                send_to_self(signal.SIGINT)
                await asyncio.sleep(0)

            oxloop.run(main())
        finally:
            signal.signal(signal.SIGINT, before)
        assert len(seen) == 1
