"""Event loop policies: one set of rules on every Python version, in and out of asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator

import pytest
from support.backends import DEFAULT_LOOP


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Close, after the test, the loops that it was handed."""
    loops = []

    def remember(loop: Any) -> Any:
        loops.append(loop)
        return loop

    yield remember
    for loop in loops:
        loop.close()


@pytest.fixture
def in_thread() -> Callable[[Callable[[], Any]], Any]:
    """Call a function in a new thread, named 'other', and give back what it returns or raises."""

    def call(function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1, thread_name_prefix="other") as pool:
            return pool.submit(function).result()

    return call


@pytest.fixture
def asyncio_policy(oxloop: Any) -> Callable[[], Any]:
    """Read asyncio's policy without the warning that 3.14 attaches to the public name."""
    compat = sys.modules["oxloop._compat"]
    if not compat.HAS_POLICIES:
        pytest.skip("this Python's asyncio has no policies")
    return compat.asyncio_policy


def set_asyncio_policy(policy: Any) -> None:
    sys.modules["oxloop._compat"].set_asyncio_policy(policy)


def run_python(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=60
    )


class TestDefault:
    def test_policy_is_the_default_one(self, oxloop: Any) -> None:
        policy = oxloop.get_event_loop_policy()
        assert type(policy) is oxloop.DefaultEventLoopPolicy
        assert oxloop.get_event_loop_policy() is policy

    def test_alias(self, oxloop: Any) -> None:
        assert oxloop.EventLoopPolicy is oxloop.DefaultEventLoopPolicy

    def test_main_thread_loop_is_made_on_demand(self, oxloop: Any, closing: Any) -> None:
        loop = closing(oxloop.get_event_loop())
        assert type(loop) is getattr(oxloop, DEFAULT_LOOP)
        assert oxloop.get_event_loop() is loop
        assert oxloop.get_event_loop_policy().get_event_loop() is loop

    def test_other_threads_have_none(self, oxloop: Any, in_thread: Any) -> None:
        with pytest.raises(RuntimeError, match=r"There is no current event loop in thread 'other_"):
            in_thread(oxloop.get_event_loop)
        with pytest.raises(RuntimeError, match=r"There is no current event loop in thread 'other_"):
            in_thread(oxloop.get_event_loop_policy().get_event_loop)

    def test_one_loop_a_thread(self, oxloop: Any, closing: Any, in_thread: Any) -> None:
        main = closing(oxloop.get_event_loop())

        def other() -> bool:
            loop = closing(oxloop.new_event_loop())
            oxloop.set_event_loop(loop)
            return oxloop.get_event_loop() is loop

        assert in_thread(other)
        assert oxloop.get_event_loop() is main

    def test_none_is_set(self, oxloop: Any) -> None:
        oxloop.set_event_loop(None)
        with pytest.raises(RuntimeError, match="There is no current event loop in thread"):
            oxloop.get_event_loop()

    def test_set_loop_is_given_back(self, oxloop: Any, closing: Any) -> None:
        loop = closing(oxloop.new_event_loop())
        oxloop.set_event_loop(loop)
        assert oxloop.get_event_loop() is loop

    def test_foreign_loop_may_be_set(self, oxloop: Any, closing: Any) -> None:
        loop = closing(asyncio.SelectorEventLoop())
        oxloop.set_event_loop(loop)
        assert oxloop.get_event_loop() is loop

    def test_new_loop_is_nobodys(self, oxloop: Any, closing: Any) -> None:
        first, second = closing(oxloop.new_event_loop()), closing(oxloop.new_event_loop())
        assert type(first) is getattr(oxloop, DEFAULT_LOOP)
        assert first is not second
        assert closing(oxloop.get_event_loop()) not in (first, second)

    def test_wrong_type_is_refused(self, oxloop: Any, closing: Any) -> None:
        with pytest.raises(TypeError, match="instance of AbstractEventLoop or None, not 'int'"):
            oxloop.set_event_loop(1)
        closing(oxloop.get_event_loop())

    @pytest.mark.unix("fork")
    def test_forked_child_makes_its_own(self) -> None:
        result = run_python("""
import os, oxloop
loop = oxloop.get_event_loop()
pid = os.fork()
if pid == 0:
    os._exit(7 if oxloop.get_event_loop() is not loop else 8)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert oxloop.get_event_loop() is loop
loop.close()
""")
        assert (result.returncode, result.stderr) == (0, "")


class TestRunning:
    def test_coroutine_gets_the_running_loop(self, oxloop: Any, closing: Any) -> None:
        other = closing(oxloop.new_event_loop())
        oxloop.set_event_loop(other)
        running = closing(oxloop.new_event_loop())
        policy = oxloop.get_event_loop_policy()

        async def main() -> list[Any]:
            return [oxloop.get_running_loop(), oxloop.get_event_loop(), policy.get_event_loop()]

        assert running.run_until_complete(main()) == [running] * 3
        assert oxloop.get_event_loop() is other

    def test_callback_gets_the_running_loop(self, oxloop: Any, closing: Any) -> None:
        oxloop.set_event_loop(None)
        running = closing(oxloop.new_event_loop())
        seen = []

        def callback() -> None:
            seen.extend([oxloop.get_event_loop(), oxloop.get_event_loop_policy().get_event_loop()])
            running.stop()

        running.call_soon(callback)
        running.run_forever()
        assert seen == [running] * 2

    def test_same_running_loop_as_asyncio(self, oxloop: Any, closing: Any) -> None:
        async def main() -> tuple[Any, Any]:
            return oxloop.get_running_loop(), asyncio.get_running_loop()

        for make in (oxloop.new_event_loop, asyncio.SelectorEventLoop):
            loop = closing(make())
            assert loop.run_until_complete(main()) == (loop, loop)

    def test_no_running_loop(self, oxloop: Any) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            oxloop.get_running_loop()


class TestSettingPolicy:
    def test_is_asyncios_too(self, oxloop: Any, asyncio_policy: Any) -> None:
        policy = oxloop.DefaultEventLoopPolicy()
        oxloop.set_event_loop_policy(policy)
        assert oxloop.get_event_loop_policy() is policy
        assert asyncio_policy() is policy

    def test_asyncio_run_follows(self, oxloop: Any, asyncio_policy: Any) -> None:
        async def main() -> Any:
            return asyncio.get_running_loop()

        oxloop.set_event_loop_policy(oxloop.DefaultEventLoopPolicy())
        assert type(asyncio.run(main())) is getattr(oxloop, DEFAULT_LOOP)

    def test_asyncio_functions_share_the_loop(
        self, oxloop: Any, asyncio_policy: Any, closing: Any
    ) -> None:
        oxloop.set_event_loop_policy(oxloop.DefaultEventLoopPolicy())
        loop = closing(asyncio.new_event_loop())
        asyncio.set_event_loop(loop)
        assert oxloop.get_event_loop() is loop
        assert asyncio_policy().get_event_loop() is loop

    def test_none_gives_each_its_default_back(self, oxloop: Any, asyncio_policy: Any) -> None:
        kind = type(asyncio_policy())
        oxloop.set_event_loop_policy(oxloop.DefaultEventLoopPolicy())
        oxloop.set_event_loop_policy(None)
        assert type(asyncio_policy()) is kind
        assert not isinstance(asyncio_policy(), oxloop.AbstractEventLoopPolicy)
        assert type(oxloop.get_event_loop_policy()) is oxloop.DefaultEventLoopPolicy

    def test_none_forgets_the_loops(self, oxloop: Any, closing: Any) -> None:
        loop = closing(oxloop.get_event_loop())
        oxloop.set_event_loop_policy(None)
        assert closing(oxloop.get_event_loop()) is not loop

    @pytest.mark.parametrize("wrong", [1, object(), "policy"])
    def test_wrong_type_changes_nothing(self, oxloop: Any, wrong: object) -> None:
        before = oxloop.get_event_loop_policy()
        expected = (
            "policy must be an instance of AbstractEventLoopPolicy or None, "
            f"not '{type(wrong).__name__}'"
        )
        with pytest.raises(TypeError) as caught:
            oxloop.set_event_loop_policy(wrong)
        assert str(caught.value) == expected
        assert oxloop.get_event_loop_policy() is before

    def test_class_instead_of_instance(self, oxloop: Any) -> None:
        with pytest.raises(TypeError, match="not 'type'"):
            oxloop.set_event_loop_policy(oxloop.DefaultEventLoopPolicy)

    def test_set_through_asyncio_is_seen(self, oxloop: Any, asyncio_policy: Any) -> None:
        default = oxloop.get_event_loop_policy()
        policy = oxloop.DefaultEventLoopPolicy()
        set_asyncio_policy(policy)
        assert oxloop.get_event_loop_policy() is policy
        set_asyncio_policy(None)
        assert oxloop.get_event_loop_policy() is default

    def test_replaced_through_asyncio(self, oxloop: Any, asyncio_policy: Any) -> None:
        foreign = type(asyncio_policy())()
        oxloop.set_event_loop_policy(oxloop.DefaultEventLoopPolicy())
        set_asyncio_policy(foreign)
        assert type(oxloop.get_event_loop_policy()) is oxloop.DefaultEventLoopPolicy
        assert asyncio_policy() is foreign

    def test_asyncios_own_kind_is_accepted(self, oxloop: Any, asyncio_policy: Any) -> None:
        foreign = type(asyncio_policy())()
        oxloop.set_event_loop_policy(foreign)
        assert oxloop.get_event_loop_policy() is foreign
        assert asyncio_policy() is foreign
        loop = oxloop.new_event_loop()
        loop.close()
        assert not isinstance(loop, oxloop.SelectorEventLoop)


class TestSubclassing:
    def test_last_example_of_the_chapter(
        self, oxloop: Any, asyncio_policy: Any, closing: Any
    ) -> None:
        class MyEventLoopPolicy(oxloop.DefaultEventLoopPolicy):  # type: ignore[name-defined, misc]
            def get_event_loop(self) -> Any:
                loop = super().get_event_loop()
                loop.mine = True
                return loop

        oxloop.set_event_loop_policy(MyEventLoopPolicy())
        loop = closing(oxloop.get_event_loop())
        assert loop.mine
        assert asyncio_policy().get_event_loop() is loop

    def test_new_event_loop_is_used_on_demand(self, oxloop: Any, closing: Any) -> None:
        class Loop(oxloop.SelectorEventLoop):  # type: ignore[name-defined, misc]
            pass

        class Policy(oxloop.DefaultEventLoopPolicy):  # type: ignore[name-defined, misc]
            def new_event_loop(self) -> Any:
                return Loop()

        oxloop.set_event_loop_policy(Policy())
        assert type(closing(oxloop.get_event_loop())) is Loop

    def test_new_event_loop_of_none(self, oxloop: Any) -> None:
        class Policy(oxloop.DefaultEventLoopPolicy):  # type: ignore[name-defined, misc]
            def new_event_loop(self) -> Any:
                return None

        oxloop.set_event_loop_policy(Policy())
        with pytest.raises(RuntimeError, match="There is no current event loop"):
            oxloop.get_event_loop()

    def test_loop_factory_as_in_asyncio(self, oxloop: Any, closing: Any) -> None:
        class Policy(oxloop.DefaultEventLoopPolicy):  # type: ignore[name-defined, misc]
            _loop_factory = asyncio.SelectorEventLoop

        assert type(closing(Policy().new_event_loop())) is asyncio.SelectorEventLoop

    def test_is_asyncios_kind(self, oxloop: Any, asyncio_policy: Any) -> None:
        abstract = sys.modules["oxloop._compat"].AsyncioPolicy
        assert issubclass(oxloop.AbstractEventLoopPolicy, abstract)
        assert isinstance(asyncio_policy(), abstract)

    @pytest.mark.parametrize(
        ("method", "arguments"),
        [
            ("get_event_loop", ()),
            ("set_event_loop", (None,)),
            ("new_event_loop", ()),
            ("get_child_watcher", ()),
            ("set_child_watcher", (None,)),
        ],
    )
    def test_interface_is_abstract(self, oxloop: Any, method: str, arguments: Any) -> None:
        with pytest.raises(NotImplementedError):
            getattr(oxloop.AbstractEventLoopPolicy(), method)(*arguments)


class TestImport:
    def test_changes_nothing_in_asyncio(self) -> None:
        source = """
import asyncio, sys, signal, threading
import asyncio.events

def state():
    modules = [m for n, m in sys.modules.items() if n.split(".")[0] in ("asyncio", "_asyncio")]
    names = {(m.__name__, k): id(v) for m in modules for k, v in vars(m).items()}
    hooks = (signal.getsignal(signal.SIGINT), sys.excepthook, sys.get_asyncgen_hooks(),
             threading.active_count())
    return names, hooks

def filtered(state):
    return {k: v for k, v in state[0].items() if k[1] != "__warningregistry__"}, state[1]

before = filtered(state())
import oxloop
after = filtered(state())
assert before == after, set(before[0].items()) ^ set(after[0].items())
"""
        result = run_python(source)
        assert (result.returncode, result.stderr) == (0, "")


class TestWithoutPoliciesInAsyncio:
    """Python 3.16's asyncio, as far as oxloop looks at it, made of this one's."""

    PRELUDE = """
import asyncio
from asyncio import events
for module in (asyncio, events):
    for name in ("AbstractEventLoopPolicy", "get_event_loop_policy", "set_event_loop_policy"):
        vars(module).pop(name, None)
        vars(module).pop("_" + name, None)
events.new_event_loop = asyncio.new_event_loop = asyncio.SelectorEventLoop
events.set_event_loop = asyncio.set_event_loop = lambda loop: None
import oxloop
assert not oxloop._compat.HAS_POLICIES
async def running():
    return asyncio.get_running_loop()
"""

    def check(self, source: str) -> None:
        default = f"def default_of(package): return package.{DEFAULT_LOOP}\n"
        result = run_python(self.PRELUDE + default + source)
        assert (result.returncode, result.stderr) == (0, "")

    def test_functions_and_classes(self) -> None:
        self.check("""
default = oxloop.get_event_loop_policy()
assert type(default) is oxloop.DefaultEventLoopPolicy
loop = oxloop.get_event_loop()
assert type(loop) is default_of(oxloop) and oxloop.get_event_loop() is loop
loop.close()
class Mine(oxloop.DefaultEventLoopPolicy):
    pass
mine = Mine()
oxloop.set_event_loop_policy(mine)
assert oxloop.get_event_loop_policy() is mine
oxloop.set_event_loop(None)
try:
    oxloop.get_event_loop()
except RuntimeError:
    pass
else:
    raise AssertionError
try:
    oxloop.set_event_loop_policy(object())
except TypeError:
    pass
else:
    raise AssertionError
oxloop.set_event_loop_policy(None)
assert type(oxloop.get_event_loop_policy()) is oxloop.DefaultEventLoopPolicy
assert type(oxloop.run(running())) is default_of(oxloop)
""")

    def test_install_and_uninstall(self) -> None:
        self.check("""
before = asyncio.new_event_loop
oxloop.install()
oxloop.install()
assert type(asyncio.run(running())) is default_of(oxloop)
oxloop.uninstall()
oxloop.uninstall()
assert asyncio.new_event_loop is before and events.new_event_loop is before
assert type(asyncio.run(running())) is asyncio.SelectorEventLoop
""")


class TestInstall:
    def test_asyncio_gives_our_loops(self, oxloop: Any, asyncio_policy: Any, closing: Any) -> None:
        before = asyncio_policy()
        oxloop.install()
        assert type(closing(asyncio.new_event_loop())) is getattr(oxloop, DEFAULT_LOOP)
        assert type(closing(asyncio_policy().get_event_loop())) is getattr(oxloop, DEFAULT_LOOP)
        oxloop.uninstall()
        assert asyncio_policy() is before

    def test_loop_set_before_is_still_set(
        self, oxloop: Any, asyncio_policy: Any, closing: Any
    ) -> None:
        loop = closing(oxloop.get_event_loop())
        oxloop.install()
        assert asyncio_policy().get_event_loop() is loop
        oxloop.uninstall()
        assert oxloop.get_event_loop() is loop

    def test_twice(self, oxloop: Any, asyncio_policy: Any) -> None:
        before = asyncio_policy()
        oxloop.install()
        policy = asyncio_policy()
        oxloop.install()
        assert asyncio_policy() is policy
        oxloop.uninstall()
        oxloop.uninstall()
        assert asyncio_policy() is before

    def test_keeps_an_oxloop_policy(self, oxloop: Any, asyncio_policy: Any) -> None:
        mine = oxloop.DefaultEventLoopPolicy()
        oxloop.set_event_loop_policy(mine)
        oxloop.install()
        assert asyncio_policy() is mine
        oxloop.uninstall()
        assert asyncio_policy() is mine

    def test_replaces_a_foreign_policy(self, oxloop: Any, asyncio_policy: Any) -> None:
        foreign = type(asyncio_policy())()
        oxloop.set_event_loop_policy(foreign)
        oxloop.install()
        assert type(asyncio_policy()) is oxloop.DefaultEventLoopPolicy
        oxloop.uninstall()
        assert asyncio_policy() is foreign

    def test_uninstall_leaves_a_later_policy(self, oxloop: Any, asyncio_policy: Any) -> None:
        oxloop.install()
        later = type(asyncio_policy())()
        set_asyncio_policy(later)
        oxloop.uninstall()
        assert asyncio_policy() is later

    def test_threads(self, oxloop: Any, asyncio_policy: Any) -> None:
        oxloop.install()
        kinds = []

        async def main() -> None:
            kinds.append(type(asyncio.get_running_loop()))

        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        oxloop.uninstall()
        assert kinds == [getattr(oxloop, DEFAULT_LOOP)] * 4


class TestLoopFactory:
    def test_makes_the_loops(self, oxloop: Any, closing: Any) -> None:
        class Loop(oxloop.SelectorEventLoop):  # type: ignore[name-defined, misc]
            pass

        policy = oxloop.DefaultEventLoopPolicy(loop_factory=Loop)
        assert type(closing(policy.new_event_loop())) is Loop
        assert type(closing(policy.get_event_loop())) is Loop
        assert type(closing(oxloop.DefaultEventLoopPolicy(Loop).new_event_loop())) is Loop
        made = closing(oxloop.DefaultEventLoopPolicy().new_event_loop())
        assert type(made) is getattr(oxloop, DEFAULT_LOOP)

    def test_may_be_any_callable(self, oxloop: Any, closing: Any) -> None:
        loop = closing(oxloop.SelectorEventLoop())
        assert oxloop.DefaultEventLoopPolicy(loop_factory=lambda: loop).new_event_loop() is loop

    def test_is_followed_by_asyncio_run(self, oxloop: Any, asyncio_policy: Any) -> None:
        class Loop(oxloop.SelectorEventLoop):  # type: ignore[name-defined, misc]
            pass

        async def main() -> Any:
            return type(asyncio.get_running_loop())

        oxloop.set_event_loop_policy(oxloop.DefaultEventLoopPolicy(loop_factory=Loop))
        assert asyncio.run(main()) is Loop
        assert oxloop.run(main()) is Loop

    @pytest.mark.parametrize("wrong", [1, "proactor", ()])
    def test_a_wrong_type_is_refused(self, oxloop: Any, wrong: Any) -> None:
        with pytest.raises(TypeError, match="loop_factory must be callable or None"):
            oxloop.DefaultEventLoopPolicy(loop_factory=wrong)
