"""Child watchers, on every Python version, with real children."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Any

import pytest

unix = pytest.mark.unix("child watchers")


@pytest.fixture(params=["PidfdChildWatcher", "ThreadedChildWatcher"])
def watcher(request: pytest.FixtureRequest, oxloop: Any) -> Any:
    watchers = sys.modules["oxloop._watchers"]
    if request.param == "PidfdChildWatcher" and not watchers._has_pidfd():
        pytest.skip("no pidfds here")
    return getattr(watchers, request.param)()


def start_child(source: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", source], os.environ)


async def result_of(watcher: Any, pid: int, *extra: Any) -> tuple[Any, ...]:
    ended = asyncio.get_running_loop().create_future()

    def report(*args: Any) -> None:
        assert asyncio.get_running_loop() is ended.get_loop()
        ended.set_result(args)

    with watcher as entered:
        assert entered is watcher
        assert watcher.is_active()
        watcher.add_child_handler(pid, report, *extra)
    return await ended  # type: ignore[no-any-return]


@unix
class TestReports:
    def test_exit_code_and_arguments(self, oxloop: Any, watcher: Any) -> None:
        async def main() -> Any:
            pid = start_child("raise SystemExit(7)")
            return pid, await result_of(watcher, pid, "one", 2)

        pid, args = oxloop.run(main())
        assert args == (pid, 7, "one", 2)

    def test_the_loop_takes_the_exit_code(self, oxloop: Any, watcher: Any) -> None:
        """gh-127049: until then the number is nobody else's, also where a thread waits."""

        async def main() -> Any:
            pid = start_child("raise SystemExit(7)")
            reporting = asyncio.ensure_future(result_of(watcher, pid))
            await asyncio.sleep(0)
            for thread in threading.enumerate():
                if thread.name == f"waitpid-{pid}":
                    thread.join()
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return pid, await reporting

        pid, args = oxloop.run(main())
        assert args == (pid, 7)

    def test_signal(self, oxloop: Any, watcher: Any) -> None:
        async def main() -> Any:
            pid = start_child("import signal; signal.pause()")
            os.kill(pid, signal.SIGKILL)
            return await result_of(watcher, pid)

        assert oxloop.run(main())[1] == -signal.SIGKILL

    def test_child_that_has_ended(self, oxloop: Any, watcher: Any) -> None:
        async def main() -> Any:
            pid = start_child("raise SystemExit(3)")
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return await result_of(watcher, pid)

        assert oxloop.run(main())[1] == 3

    def test_many(self, oxloop: Any, watcher: Any) -> None:
        async def main() -> Any:
            waits = [result_of(watcher, start_child(f"raise SystemExit({n})")) for n in range(8)]
            return [code for _, code in await asyncio.gather(*waits)]

        assert oxloop.run(main()) == list(range(8))

    def test_somebody_else_reaped_it(self, oxloop: Any, caplog: pytest.LogCaptureFixture) -> None:
        watchers = sys.modules["oxloop._watchers"]
        if not watchers._has_pidfd():
            pytest.skip("no pidfds here")

        async def main() -> Any:
            pid = start_child("raise SystemExit(3)")
            result = asyncio.ensure_future(result_of(watchers.PidfdChildWatcher(), pid))
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            await asyncio.sleep(0)
            os.waitpid(pid, 0)
            return await result

        assert oxloop.run(main())[1] == 255
        assert "waited for elsewhere" in caplog.text

    def test_needs_a_running_loop(self, watcher: Any) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            watcher.add_child_handler(1, print)


@unix
class TestHandlers:
    @pytest.fixture
    def watcher(self, oxloop: Any) -> Any:
        watchers = sys.modules["oxloop._watchers"]
        if not watchers._has_pidfd():
            pytest.skip("no pidfds here")
        return watchers.PidfdChildWatcher()

    def test_removed(self, oxloop: Any, watcher: Any) -> None:
        called = []

        async def main() -> None:
            pid = start_child("raise SystemExit(3)")
            watcher.add_child_handler(pid, lambda *args: called.append(args))
            assert watcher.remove_child_handler(pid)
            assert not watcher.remove_child_handler(pid)
            assert (await result_of(watcher, pid))[1] == 3

        oxloop.run(main())
        assert called == []

    def test_replaced(self, oxloop: Any, watcher: Any) -> None:
        called = []

        async def main() -> None:
            pid = start_child("raise SystemExit(3)")
            watcher.add_child_handler(pid, lambda *args: called.append(args))
            assert (await result_of(watcher, pid))[1] == 3

        oxloop.run(main())
        assert called == []

    def test_outlives_the_choice_of_another_watcher(self, oxloop: Any) -> None:
        async def main() -> Any:
            pid = start_child("import signal; signal.pause()")
            result = asyncio.ensure_future(result_of(oxloop.get_child_watcher(), pid))
            await asyncio.sleep(0)
            oxloop.set_child_watcher(sys.modules["oxloop._watchers"].ThreadedChildWatcher())
            os.kill(pid, signal.SIGTERM)
            return await result

        assert oxloop.run(main())[1] == -signal.SIGTERM


@unix
class TestThreadedReportsToClosedLoop:
    def test_is_logged(self, oxloop: Any, caplog: pytest.LogCaptureFixture) -> None:
        watcher = sys.modules["oxloop._watchers"].ThreadedChildWatcher()
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)

        async def main() -> int:
            pid = start_child(f"import os; os.read({reader}, 1)")
            watcher.add_child_handler(pid, print)
            return pid

        pid = oxloop.run(main())
        (thread,) = (t for t in threading.enumerate() if t.name == f"waitpid-{pid}")
        os.close(reader)
        os.close(writer)
        thread.join()
        assert f"that handles pid {pid} is closed" in caplog.text


@unix
class TestPolicyMethods:
    def test_default_is_by_pidfd(self, oxloop: Any) -> None:
        watcher = oxloop.get_child_watcher()
        assert isinstance(watcher, oxloop.AbstractChildWatcher)
        assert oxloop.get_child_watcher() is watcher
        assert oxloop.get_event_loop_policy().get_child_watcher() is watcher
        watchers = sys.modules["oxloop._watchers"]
        expected = "PidfdChildWatcher" if watchers._has_pidfd() else "ThreadedChildWatcher"
        assert type(watcher).__name__ == expected

    def test_without_pidfds(self, oxloop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(pid: int) -> int:
            raise PermissionError(f"no pidfd of {pid}")

        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
        assert type(oxloop.get_child_watcher()).__name__ == "ThreadedChildWatcher"

    @pytest.mark.parametrize("wrong", [1, object(), "watcher"])
    def test_wrong_type_is_refused(self, oxloop: Any, wrong: object) -> None:
        before = oxloop.get_child_watcher()
        with pytest.raises(TypeError, match="instance of AbstractChildWatcher or None"):
            oxloop.set_child_watcher(wrong)
        assert oxloop.get_child_watcher() is before

    def test_set_closes_the_one_before(self, oxloop: Any) -> None:
        class Watcher(type(oxloop.get_child_watcher())):  # type: ignore[misc]
            closed = 0

            def close(self) -> None:
                self.closed += 1

        first, second = Watcher(), Watcher()
        oxloop.set_child_watcher(first)
        oxloop.set_child_watcher(first)
        assert oxloop.get_child_watcher() is first
        assert first.closed == 0
        oxloop.set_child_watcher(second)
        assert oxloop.get_child_watcher() is second
        oxloop.set_child_watcher(None)
        assert oxloop.get_child_watcher() not in (first, second)
        assert (first.closed, second.closed) == (1, 1)

    def test_main_threads_loop_is_attached(self, oxloop: Any) -> None:
        attached = []

        class Watcher(type(oxloop.get_child_watcher())):  # type: ignore[misc]
            def attach_loop(self, loop: Any) -> None:
                attached.append(loop)

        oxloop.set_child_watcher(Watcher())
        loop = oxloop.get_event_loop()
        oxloop.set_event_loop(None)
        loop.close()
        assert attached == [loop, None]


@unix
class TestAbstract:
    def test_is_asyncios_where_it_has_one(self, oxloop: Any) -> None:
        asyncios = sys.modules["oxloop._compat"].AsyncioChildWatcher
        if asyncios is not None:
            assert oxloop.AbstractChildWatcher is asyncios
        else:
            assert oxloop.AbstractChildWatcher.__name__ == "AbstractChildWatcher"

    def test_every_method_is_abstract(self, oxloop: Any) -> None:
        watcher = oxloop.AbstractChildWatcher()
        for call in (
            lambda: watcher.add_child_handler(1, print),
            lambda: watcher.remove_child_handler(1),
            lambda: watcher.attach_loop(None),
            watcher.close,
            watcher.is_active,
            watcher.__enter__,
            lambda: watcher.__exit__(None, None, None),
        ):
            with pytest.raises(NotImplementedError):
                call()


@pytest.mark.parametrize("name", ["get_child_watcher", "set_child_watcher"])
def test_windows_has_none(oxloop: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = () if name.startswith("get") else (None,)
    policy = oxloop.get_event_loop_policy()
    monkeypatch.setattr(sys, "platform", "win32")
    for owner in (oxloop, policy):
        with pytest.raises(NotImplementedError, match="Windows"):
            getattr(owner, name)(*arguments)
