"""run_in_executor, set_default_executor and shutdown_default_executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import Any, List

import pytest
from support.backends import PY311, PY312, Backend
from support.platforms import WINDOWS
from support.running import Run, turns


def test_a_function_runs_in_another_thread(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        ident: int = await loop.run_in_executor(None, threading.get_ident)
        return ident

    assert run(main) != threading.get_ident()


def test_arguments_are_passed_and_the_result_comes_back(run: Run) -> None:
    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, divmod, 17, 5)

    assert run(main) == (3, 2)


def test_it_returns_a_future_at_once(run: Run) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().run_in_executor(None, int)
        assert isinstance(future, asyncio.Future)
        assert future.get_loop() is asyncio.get_running_loop()
        await future

    run(main)


def test_an_exception_comes_back(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            await asyncio.get_running_loop().run_in_executor(None, int, "x")

    run(main)


def test_an_executor_of_the_callers(run: Run) -> None:
    async def main() -> str:
        with concurrent.futures.ThreadPoolExecutor(thread_name_prefix="mine") as pool:
            thread = await asyncio.get_running_loop().run_in_executor(
                pool, threading.current_thread
            )
        return thread.name

    assert run(main).startswith("mine")


def test_the_default_executors_threads_are_named_after_asyncio(run: Run) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        thread = await loop.run_in_executor(None, threading.current_thread)
        return thread.name

    assert run(main).startswith("asyncio_")


def test_a_function_of_an_executor_that_waits_for_the_loop(run: Run) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()

        async def answer() -> str:
            await turns(1)
            return "answer"

        def ask() -> str:
            return asyncio.run_coroutine_threadsafe(answer(), loop).result()

        return await loop.run_in_executor(None, ask)

    assert run(main) == "answer"


def test_to_thread_keeps_the_context(run: Run) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def main() -> str:
        variable.set("mine")
        return await asyncio.to_thread(variable.get)

    assert run(main) == "mine"


def test_many_functions_at_the_same_time(run: Run) -> None:
    async def main() -> List[int]:
        loop = asyncio.get_running_loop()
        return list(
            await asyncio.gather(*(loop.run_in_executor(None, abs, -n) for n in range(200)))
        )

    assert run(main) == list(range(200))


def test_cancelling_the_future_cancels_a_function_that_has_not_started(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        release = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            busy = loop.run_in_executor(pool, release.wait)
            ran: List[int] = []
            queued = loop.run_in_executor(pool, ran.append, 1)
            queued.cancel()
            await turns(2)
            release.set()
            await busy
        assert ran == []
        assert queued.cancelled()

    run(main)


def test_set_default_executor(run: Run) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(
            concurrent.futures.ThreadPoolExecutor(thread_name_prefix="default")
        )
        thread = await loop.run_in_executor(None, threading.current_thread)
        return thread.name

    assert run(main).startswith("default")


@pytest.mark.skipif(not PY311, reason="a warning before Python 3.11")
def test_set_default_executor_refuses_other_executors(loop: Any) -> None:
    class Executor(concurrent.futures.Executor):
        pass

    for executor in (Executor(), None, "pool"):
        with pytest.raises(TypeError, match="executor must be ThreadPoolExecutor instance"):
            loop.set_default_executor(executor)


def test_shutdown_default_executor_waits_for_its_threads(loop: Any) -> None:
    async def main() -> None:
        done: List[int] = []
        started, release = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            release.wait()
            done.append(1)

        future = loop.run_in_executor(None, work)
        started.wait()
        shutdown = asyncio.ensure_future(loop.shutdown_default_executor())
        await turns(3)
        assert not shutdown.done()
        release.set()
        await shutdown
        assert done == [1]
        await future

    loop.run_until_complete(main())


def test_the_default_executor_is_refused_after_its_shutdown(loop: Any) -> None:
    async def main() -> None:
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
            loop.run_in_executor(None, int)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert await loop.run_in_executor(pool, int) == 0

    loop.run_until_complete(main())


def test_shutdown_default_executor_without_one(loop: Any) -> None:
    before = threading.active_count()
    loop.run_until_complete(loop.shutdown_default_executor())
    assert threading.active_count() == before


@pytest.mark.skipif(not PY312, reason="the timeout is new in Python 3.12")
def test_shutdown_default_executor_with_a_timeout(loop: Any) -> None:
    """asyncio docs: a RuntimeWarning, and the executor is left to finish by itself."""
    release = threading.Event()

    async def main() -> None:
        future = loop.run_in_executor(None, release.wait)
        with pytest.warns(
            RuntimeWarning,
            match=r"The executor did not finishing joining its threads within 0\.001 seconds\.",
        ):
            await loop.shutdown_default_executor(timeout=0.001)
        release.set()
        await future

    try:
        loop.run_until_complete(main())
    finally:
        release.set()


@pytest.mark.skipif(not PY312, reason="the timeout is new in Python 3.12")
def test_shutdown_default_executor_within_its_timeout(loop: Any) -> None:
    async def main() -> None:
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor(timeout=25)
        await loop.shutdown_default_executor(25)

    loop.run_until_complete(main())


def test_close_does_not_wait_for_the_executor(loop: Any) -> None:
    """asyncio docs, loop.close: "shuts down the executor, but does not wait for it to finish"."""
    release = threading.Event()
    threads: List[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        release.wait()

    async def main() -> None:
        loop.run_in_executor(None, work)
        while not threads:
            await turns(1)

    loop.run_until_complete(main())
    loop.close()
    assert threads[0].is_alive()
    release.set()
    threads[0].join()


def test_a_loop_starts_no_thread_by_itself(backend: Backend) -> None:
    """Seen elsewhere: extra threads per loop."""
    before = threading.enumerate()
    tasks_before = count_kernel_threads()
    loop = backend.new_loop()
    try:
        loop.run_until_complete(asyncio.sleep(0.001))
        assert threading.enumerate() == before
        # Threads of tests before this one may still be ending.
        assert count_kernel_threads() <= tasks_before
    finally:
        loop.close()


def count_kernel_threads() -> int:
    """The threads of this process by the kernel's count, which sees those of no Python too."""
    import os

    return 0 if WINDOWS else len(os.listdir("/proc/self/task"))
