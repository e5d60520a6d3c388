"""The chapter "Event loops" (Python 3.7's 19.5.2), sentence by sentence.

Where asyncio of the running version still has a name and a behaviour, the test runs on asyncio too.
"""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

import asyncio
import os
import selectors
import socket
import subprocess
import sys
import threading
import warnings
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from support.backends import DEFAULT_LOOP, PY312, PY314
from support.children import run_python
from support.platforms import WINDOWS
from support.recorders import Recorder
from support.running import finish, turns
from support.signals import USER, send_to_self
from support.sockets import LOCALHOST
from support.user_selectors import CountingSelectSelector, UserSelector

# asyncio itself warns of what it is about to change; oxloop is the same on every version. From Python
# 3.14 on it warns of the names of policies where they stand, which is here.
asyncio_warns = pytest.mark.filterwarnings("ignore::DeprecationWarning:asyncio.*")
pytestmark = pytest.mark.filterwarnings("ignore:'asyncio:DeprecationWarning:test_chapter")


@pytest.fixture
def current(package: Any) -> Iterator[Any]:
    """The package; the loops that its policy made current in this thread are closed afterwards."""
    yield package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for names in {package, asyncio}:
            try:
                finish(names.get_event_loop())
            except RuntimeError:
                pass
            names.set_event_loop(None)
            names.set_event_loop_policy(None)


def skip_where_asyncio_warns(package: Any) -> None:
    """Leave asyncio out where it has deprecated what is tested."""
    if package is asyncio and PY312:
        pytest.skip("asyncio has deprecated this")


def in_thread(call: Callable[[], Any]) -> Any:
    """What `call` returns or raises in another thread, which is named "other"."""
    outcome: List[Any] = []

    def work() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, name="other")
    thread.start()
    thread.join()
    return outcome[0]


# 19.5.2.1. Event loop functions


def policy_that_records(package: Any) -> Any:
    """A policy that writes down the calls of its methods."""

    class Recording(package.AbstractEventLoopPolicy):  # type: ignore[misc]
        def __init__(self) -> None:
            self.calls: List[Any] = []

        def get_event_loop(self) -> Any:
            self.calls.append("get")
            return "the loop"

        def set_event_loop(self, loop: Any) -> None:
            self.calls.append(("set", loop))

        def new_event_loop(self) -> Any:
            self.calls.append("new")
            return "a new loop"

    return Recording()


def test_the_functions_are_shortcuts_to_the_methods_of_the_policy(package: Any) -> None:
    """ "The following functions are convenient shortcuts to accessing the methods of the global
    policy." "Equivalent to calling get_event_loop_policy().get_event_loop()", and so on.
    """
    policy = policy_that_records(package)
    package.set_event_loop_policy(policy)
    assert package.get_event_loop_policy() is policy
    assert package.get_event_loop() == "the loop"
    assert package.new_event_loop() == "a new loop"
    assert package.set_event_loop("some loop") is None
    assert policy.calls == ["get", "new", ("set", "some loop")]


@asyncio_warns
def test_the_default_policy_is_used_unless_another_was_set(current: Any) -> None:
    """ "Note that this provides access to the default policy, unless an alternative policy was set
    by calling set_event_loop_policy() earlier in the execution of the process."
    """
    assert type(current.get_event_loop_policy()) is current.DefaultEventLoopPolicy
    loop = current.new_event_loop()
    assert isinstance(loop, getattr(current, DEFAULT_LOOP))
    current.set_event_loop(loop)
    assert current.get_event_loop() is loop
    assert current.get_event_loop_policy().get_event_loop() is loop


def test_get_running_loop_in_a_coroutine_and_in_a_callback(package: Any) -> None:
    """ "Return the running event loop in the current OS thread." """
    loop = package.SelectorEventLoop()
    seen: List[Any] = []

    async def main() -> None:
        seen.append(package.get_running_loop())
        loop.call_soon(lambda: seen.append(package.get_running_loop()))
        await turns(2)

    loop.run_until_complete(main())
    loop.close()
    assert seen == [loop, loop]


def test_get_running_loop_without_one(package: Any) -> None:
    """ "If there is no running event loop a RuntimeError is raised." """
    with pytest.raises(RuntimeError, match="no running event loop"):
        package.get_running_loop()


def test_get_running_loop_is_of_the_current_thread(package: Any) -> None:
    """ "Return the running event loop in the current OS thread." """
    loop = package.SelectorEventLoop()

    async def main() -> Any:
        return in_thread(package.get_running_loop)

    error = loop.run_until_complete(main())
    loop.close()
    assert isinstance(error, RuntimeError)
    assert str(error) == "no running event loop"


def test_get_running_loop_agrees_with_asyncios(oxloop: Any) -> None:
    """It is the same one that asyncio.get_running_loop() reports."""
    for loop in (oxloop.SelectorEventLoop(), asyncio.SelectorEventLoop()):

        async def main() -> Tuple[Any, Any]:
            return oxloop.get_running_loop(), asyncio.get_running_loop()

        assert loop.run_until_complete(main()) == (loop, loop)
        loop.close()


# 19.5.2.2. Available event loops


def test_selector_event_loop_is_an_abstract_event_loop(package: Any) -> None:
    """ "Event loop based on the selectors module. Subclass of AbstractEventLoop." """
    assert issubclass(package.SelectorEventLoop, package.AbstractEventLoop)
    assert issubclass(package.SelectorEventLoop, asyncio.AbstractEventLoop)
    loop = package.SelectorEventLoop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()


def epoll_descriptors() -> int:
    """How many epoll instances this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]"
        except OSError:
            continue
    return count


@pytest.mark.unix("epoll")
def test_the_most_efficient_selector_is_used(package: Any) -> None:
    """ "Use the most efficient selector available on the platform.": epoll on Linux."""
    before = epoll_descriptors()
    loop = package.SelectorEventLoop()
    assert epoll_descriptors() == before + 1
    loop.close()
    assert epoll_descriptors() == before


@pytest.mark.unix("epoll")
def test_none_is_the_most_efficient_selector(package: Any) -> None:
    before = epoll_descriptors()
    for arguments in ({}, {"selector": None}):
        loop = package.SelectorEventLoop(**arguments)
        assert epoll_descriptors() == before + 1
        loop.close()


async def use_everything(loop: Any) -> None:
    """Timers, threads, watched descriptors, a server and a connection, on the running loop."""
    await asyncio.sleep(0.001)
    assert await loop.run_in_executor(None, abs, -1) == 1
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        seen = loop.create_future()
        loop.add_reader(left, seen.set_result, "readable")
        right.send(b"x")
        assert await seen == "readable"
        assert loop.remove_reader(left)
        assert await loop.sock_recv(left, 10) == b"x"
        await loop.sock_sendall(left, b"y")
        assert right.recv(10) == b"y"
    server = await loop.create_server(Recorder, LOCALHOST, 0)
    transport, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    transport.write(b"data" * 100_000)
    transport.close()
    assert await protocol.lost() is None
    server.close()
    await turns(10)


OF_UNIX = pytest.mark.unix("poll() and epoll")
STDLIB = [
    "SelectSelector",
    pytest.param("PollSelector", marks=OF_UNIX),
    pytest.param("EpollSelector", marks=OF_UNIX),
    "DefaultSelector",
]
PIDFD = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="the default watcher has threads here"
)


@pytest.mark.parametrize("name", STDLIB)
def test_each_selector_of_the_standard_library(package: Any, name: str) -> None:
    """Each chooses the native backend of that kind."""
    selector = getattr(selectors, name)()
    loop = package.SelectorEventLoop(selector)
    loop.run_until_complete(use_everything(loop))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.mark.unix("epoll")
@pytest.mark.parametrize("name", ["SelectSelector", "PollSelector"])
def test_a_selector_other_than_epoll_uses_no_epoll(package: Any, name: str) -> None:
    before = epoll_descriptors()
    loop = package.SelectorEventLoop(getattr(selectors, name)())
    loop.run_until_complete(asyncio.sleep(0))
    assert epoll_descriptors() == before
    loop.close()


@pytest.mark.unix("epoll")
def test_the_selector_is_a_keyword_too(package: Any) -> None:
    loop = package.SelectorEventLoop(selector=selectors.PollSelector())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.mark.unix("epoll")
def test_the_loop_closes_its_selector(package: Any) -> None:
    selector = selectors.EpollSelector()
    loop = package.SelectorEventLoop(selector)
    loop.close()
    with pytest.raises(ValueError, match="closed epoll object"):
        selector.fileno()


def test_what_is_no_selector_is_refused(oxloop: Any) -> None:
    for wrong in ("epoll", 3, selectors.DefaultSelector, object()):
        with pytest.raises(TypeError):
            oxloop.SelectorEventLoop(wrong)


def test_a_users_own_selector_is_honoured_through_its_methods(package: Any) -> None:
    """Any other subclass of selectors.BaseSelector is used through its own methods."""
    selector = UserSelector()
    loop = package.SelectorEventLoop(selector)
    loop.run_until_complete(use_everything(loop))
    loop.run_until_complete(loop.shutdown_default_executor())
    assert selector.named("register")
    assert selector.named("unregister")
    assert selector.named("select")
    loop.close()
    assert selector.named("close") == [None]


def test_a_users_own_selector_sees_both_interests(package: Any) -> None:
    selector = UserSelector()
    loop = package.SelectorEventLoop(selector)
    left, right = socket.socketpair()
    with left, right:
        selector.calls.clear()
        calls: List[str] = []
        loop.add_reader(left.fileno(), calls.append, "read")
        loop.add_writer(left.fileno(), calls.append, "write")
        loop.stop()
        loop.run_forever()
        assert calls == ["write"]
        right.send(b"x")
        loop.remove_writer(left.fileno())
        loop.stop()
        loop.run_forever()
        assert calls == ["write", "read"]
        loop.remove_reader(left.fileno())
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        assert selector.named("register", left.fileno()) == [selectors.EVENT_READ]
        assert selector.named("modify", left.fileno()) == [both, selectors.EVENT_READ]
        assert selector.named("unregister", left.fileno()) == [None]
    loop.close()


def test_a_users_own_selector_gets_the_timeouts(package: Any) -> None:
    """None to wait for ever, zero to look only, and else the seconds to the next timer."""
    asked = threading.Event()

    class Telling(UserSelector):
        def select(self, timeout: Any = None) -> Any:
            asked.set()
            return super().select(timeout)

    selector = Telling()
    loop = package.SelectorEventLoop(selector)
    loop.stop()
    loop.run_forever()
    assert selector.named("select") == [0]
    selector.calls.clear()
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    first = selector.named("select")[0]
    assert first is not None
    assert 0 < first <= 0.021
    selector.calls.clear()
    asked.clear()

    def stop() -> None:
        asked.wait()
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=stop)
    thread.start()
    loop.run_forever()
    thread.join()
    assert selector.named("select")[0] is None
    loop.close()


def test_a_users_own_selector_that_raises(package: Any) -> None:
    class Failing(UserSelector):
        def select(self, timeout: Any = None) -> Any:
            raise ArithmeticError("in the selector")

    loop = package.SelectorEventLoop(Failing())
    with pytest.raises(ArithmeticError, match="in the selector"):
        loop.run_forever()
    assert not loop.is_running()
    loop.close()


def test_a_users_own_selector_with_a_virtual_clock(package: Any) -> None:
    """A selector that never waits but moves the clock: an hour passes in no time."""
    now = [0.0]

    class Jumping(UserSelector):
        def select(self, timeout: Any = None) -> Any:
            if timeout:
                now[0] += timeout
            return super().select(0)

    loop = package.SelectorEventLoop(Jumping())
    loop.time = lambda: now[0]
    loop.run_until_complete(asyncio.sleep(3600))
    assert 3600 <= now[0] < 3601
    loop.close()


def test_a_subclass_of_a_selector_of_the_standard_library(package: Any) -> None:
    """A subclass is the user's own: the methods it overrides are called."""
    selector = CountingSelectSelector()
    loop = package.SelectorEventLoop(selector)
    loop.run_until_complete(use_everything(loop))
    loop.run_until_complete(loop.shutdown_default_executor())
    assert selector.waits > 3
    loop.close()


def test_threads_and_signals_wake_a_users_own_selector(package: Any) -> None:

    loop = package.SelectorEventLoop(UserSelector())
    thread = threading.Timer(0.005, loop.call_soon_threadsafe, [loop.stop])
    thread.start()
    loop.run_forever()
    thread.join()
    loop.add_signal_handler(USER, loop.stop)
    sender = threading.Timer(0.005, send_to_self, [USER])
    sender.start()
    loop.run_forever()
    sender.join()
    loop.close()


# 19.5.2.3. Platform support


@pytest.mark.unix("pseudo terminals")
@asyncio_warns
def test_the_example_with_a_select_selector(current: Any) -> None:
    """ "The SelectorEventLoop can be used with SelectSelector or PollSelector to support character
    devices ...". The example of the section, and a character device.
    """
    selector = selectors.SelectSelector()
    loop = current.SelectorEventLoop(selector)
    current.set_event_loop(loop)
    assert current.get_event_loop() is loop
    controller, terminal = os.openpty()
    try:
        got: List[bytes] = []
        loop.add_reader(controller, lambda: (got.append(os.read(controller, 9)), loop.stop()))
        os.write(terminal, b"x")
        loop.run_forever()
        loop.remove_reader(controller)
        assert got == [b"x"]
    finally:
        os.close(controller)
        os.close(terminal)


# 19.5.2.4. Event loop policies and the default policy


def test_one_policy_for_the_whole_process(package: Any) -> None:
    """ "Throughout the execution of a process, a single global policy object manages the event
    loops".
    """
    policy = package.DefaultEventLoopPolicy()
    package.set_event_loop_policy(policy)
    assert package.get_event_loop_policy() is policy
    assert in_thread(package.get_event_loop_policy) is policy
    replaced = package.DefaultEventLoopPolicy()
    in_thread(lambda: package.set_event_loop_policy(replaced))
    assert package.get_event_loop_policy() is replaced


# 19.5.2.5. Event loop policy interface


def test_the_interface(package: Any) -> None:
    """ "An event loop policy must implement the following interface" """
    policy = package.AbstractEventLoopPolicy()
    for call in (
        policy.get_event_loop,
        policy.new_event_loop,
        lambda: policy.set_event_loop(None),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_the_classes_are_asyncios_to_issubclass(oxloop: Any) -> None:
    """They are subclasses of asyncio's abstract class where it exists."""
    assert issubclass(oxloop.DefaultEventLoopPolicy, oxloop.AbstractEventLoopPolicy)
    assert oxloop.EventLoopPolicy is oxloop.DefaultEventLoopPolicy
    if not PY314:
        assert issubclass(oxloop.AbstractEventLoopPolicy, asyncio.AbstractEventLoopPolicy)


@asyncio_warns
def test_new_event_loop_makes_a_loop_that_is_not_set(current: Any) -> None:
    """ "Create and return a new event loop object according to this policy's rules. If there's
    need to set this loop as the event loop for the current context, set_event_loop() must be
    called explicitly."
    """
    policy = current.DefaultEventLoopPolicy()
    first, second = policy.new_event_loop(), policy.new_event_loop()
    assert isinstance(first, getattr(current, DEFAULT_LOOP))
    assert first is not second
    assert not first.is_running()
    policy.set_event_loop(first)
    assert policy.get_event_loop() is first
    first.close()
    second.close()


def test_set_event_loop_sets_it_for_the_current_context(package: Any) -> None:
    """ "Set the event loop for the current context to loop." The context is the thread."""
    policy = package.DefaultEventLoopPolicy()
    here, there = policy.new_event_loop(), policy.new_event_loop()
    policy.set_event_loop(here)

    def elsewhere() -> Any:
        policy.set_event_loop(there)
        return policy.get_event_loop()

    assert in_thread(elsewhere) is there
    assert policy.get_event_loop() is here
    here.close()
    there.close()


def test_set_event_loop_refuses_other_types(oxloop: Any) -> None:
    for wrong in ("loop", 3, object()):
        with pytest.raises(TypeError):
            oxloop.DefaultEventLoopPolicy().set_event_loop(wrong)
        with pytest.raises(TypeError):
            oxloop.set_event_loop(wrong)


@asyncio_warns
def test_the_main_thread_gets_a_loop_on_demand(current: Any) -> None:
    """ "If the current thread doesn't already have an event loop associated with it, the default
    policy's get_event_loop() method creates one when called from the main thread"
    """
    skip_where_asyncio_warns(current)
    loop = current.get_event_loop()
    assert isinstance(loop, getattr(current, DEFAULT_LOOP))
    assert current.get_event_loop() is loop
    assert current.get_event_loop_policy().get_event_loop() is loop


def test_a_policy_makes_a_loop_on_demand_once(package: Any) -> None:
    skip_where_asyncio_warns(package)
    policy = package.DefaultEventLoopPolicy()
    loop = policy.get_event_loop()
    assert policy.get_event_loop() is loop
    loop.close()
    assert policy.get_event_loop() is loop, "also when it is closed"


def test_another_thread_gets_a_runtime_error(package: Any) -> None:
    """ "... but raises RuntimeError otherwise." """
    skip_where_asyncio_warns(package)
    for call in (package.DefaultEventLoopPolicy().get_event_loop, package.get_event_loop):
        error = in_thread(call)
        assert isinstance(error, RuntimeError)
        assert str(error) == "There is no current event loop in thread 'other'."


@asyncio_warns
def test_get_event_loop_after_none_was_set(current: Any) -> None:
    """ "Raises an exception in case no event loop has been set for the current context and the
    current policy does not specify to create one. It must never return None."
    """
    current.set_event_loop(None)
    with pytest.raises(RuntimeError, match="There is no current event loop in thread 'MainThread'"):
        current.get_event_loop()
    with pytest.raises(RuntimeError, match="There is no current event loop in thread 'MainThread'"):
        current.get_event_loop_policy().get_event_loop()


def test_an_event_loop_per_thread(package: Any) -> None:
    """ "The default policy defines context as the current thread, and manages an event loop per
    thread that interacts with asyncio."
    """
    skip_where_asyncio_warns(package)
    policy = package.DefaultEventLoopPolicy()
    package.set_event_loop_policy(policy)
    barrier = threading.Barrier(3)
    got: List[Any] = []

    def work() -> None:
        loop = package.new_event_loop()
        package.set_event_loop(loop)
        barrier.wait()
        loop.run_until_complete(asyncio.sleep(0))
        got.append((package.get_event_loop() is loop, loop))
        barrier.wait()
        loop.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [same for same, _ in got] == [True] * 3
    assert len({loop for _, loop in got}) == 3


def test_get_event_loop_inside_a_coroutine_is_the_running_loop(package: Any) -> None:
    """ "In case called from coroutine, it returns the currently running event loop." """
    policy = package.DefaultEventLoopPolicy()
    package.set_event_loop_policy(policy)
    set_loop, running = policy.new_event_loop(), policy.new_event_loop()
    policy.set_event_loop(set_loop)

    async def main() -> Any:
        return package.get_event_loop()

    assert running.run_until_complete(main()) is running
    assert package.get_event_loop() is set_loop
    set_loop.close()
    running.close()


def test_get_event_loop_of_the_policy_inside_is_the_running_loop(oxloop: Any) -> None:
    """ "An exception to this rule happens when get_event_loop() is called from a running
    future/coroutine, in which case it will return the current loop running that
    future/coroutine." So it is for the function and for the policy's method.
    """
    policy = oxloop.DefaultEventLoopPolicy()
    set_loop, running = policy.new_event_loop(), policy.new_event_loop()
    policy.set_event_loop(set_loop)
    seen: List[Any] = []

    async def main() -> None:
        seen.append(policy.get_event_loop())
        running.call_soon(lambda: seen.append(policy.get_event_loop()))
        await turns(2)

    running.run_until_complete(main())
    assert seen == [running, running]
    assert policy.get_event_loop() is set_loop
    set_loop.close()
    running.close()


def test_get_event_loop_inside_a_callback_in_another_thread(package: Any) -> None:
    loop = package.SelectorEventLoop()

    def work() -> Any:
        seen: List[Any] = []
        loop.call_soon(lambda: seen.append(package.get_event_loop()))
        loop.stop()
        loop.run_forever()
        return seen

    assert in_thread(work) == [loop]
    loop.close()


# 19.5.2.6. Access to the global loop policy


def test_get_event_loop_policy_gets_the_current_policy(package: Any) -> None:
    """ "Get the current event loop policy." "Set the current event loop policy." """
    policy = package.DefaultEventLoopPolicy()
    assert package.set_event_loop_policy(policy) is None
    assert package.get_event_loop_policy() is policy


def test_none_restores_the_default_policy(package: Any) -> None:
    """ "If policy is None, the default policy is restored." """
    policy = package.DefaultEventLoopPolicy()
    package.set_event_loop_policy(policy)
    package.set_event_loop_policy(None)
    restored = package.get_event_loop_policy()
    assert restored is not policy
    assert type(restored) is package.DefaultEventLoopPolicy
    assert package.get_event_loop_policy() is restored


def test_set_event_loop_policy_refuses_other_types(oxloop: Any) -> None:
    """A wrong type is a TypeError, and changes nothing."""
    before = oxloop.get_event_loop_policy()
    for wrong in ("policy", 3, oxloop.DefaultEventLoopPolicy, object()):
        with pytest.raises(TypeError):
            oxloop.set_event_loop_policy(wrong)
    assert oxloop.get_event_loop_policy() is before


@pytest.mark.skipif(PY314, reason="asyncio has deprecated policies")
def test_a_policy_that_is_set_is_asyncios_too(oxloop: Any) -> None:
    """... so that asyncio.run follows it; None gives each of the two its default back."""
    policy = oxloop.DefaultEventLoopPolicy()
    oxloop.set_event_loop_policy(policy)
    assert asyncio.get_event_loop_policy() is policy

    async def main() -> Any:
        return asyncio.get_running_loop()

    assert isinstance(asyncio.run(main()), getattr(oxloop, DEFAULT_LOOP))
    oxloop.set_event_loop_policy(None)
    assert type(asyncio.get_event_loop_policy()) is asyncio.DefaultEventLoopPolicy
    assert type(oxloop.get_event_loop_policy()) is oxloop.DefaultEventLoopPolicy
    assert not isinstance(asyncio.run(main()), getattr(oxloop, DEFAULT_LOOP))


@pytest.mark.skipif(PY314, reason="asyncio has deprecated policies")
def test_an_oxloop_policy_set_through_asyncio_is_seen(oxloop: Any) -> None:
    """An oxloop policy that was set through asyncio is seen by oxloop."""
    policy = oxloop.DefaultEventLoopPolicy()
    asyncio.set_event_loop_policy(policy)
    assert oxloop.get_event_loop_policy() is policy

    async def main() -> Any:
        return asyncio.get_running_loop()

    assert isinstance(asyncio.run(main()), getattr(oxloop, DEFAULT_LOOP))
    asyncio.set_event_loop_policy(None)
    assert oxloop.get_event_loop_policy() is not policy


def test_importing_sets_and_patches_nothing(oxloop: Any) -> None:
    """Seen elsewhere: asyncio is changed by the import. Importing oxloop sets nothing."""
    child = run_python(
        "import asyncio, sys, signal, threading, asyncio.events, asyncio.base_events\n"
        f"import asyncio.selector_events, asyncio.{'windows' if WINDOWS else 'unix'}_events\n"
        "def state():\n"
        "    return {\n"
        "        (name, key): id(value)\n"
        "        for name, module in list(sys.modules.items())\n"
        "        if name.split('.')[0] in ('asyncio', '_asyncio')\n"
        "        for key, value in vars(module).items()\n"
        "    }\n"
        "before = state()\n"
        "classes = {c: dict(vars(c)) for c in (asyncio.BaseEventLoop, asyncio.Handle, asyncio.Task)}\n"
        "policy, threads = asyncio.events._event_loop_policy, threading.active_count()\n"
        "handler = signal.getsignal(signal.SIGINT)\n"
        "import oxloop\n"
        "after = state()\n"
        "assert {k: v for k, v in after.items() if k in before} == before\n"
        "assert all(dict(vars(c)) == d for c, d in classes.items())\n"
        "assert asyncio.events._event_loop_policy is policy\n"
        "assert threading.active_count() == threads\n"
        "assert signal.getsignal(signal.SIGINT) is handler\n"
        "assert signal.set_wakeup_fd(-1) == -1\n",
        options=["-W", "error"],
    )
    assert child.returncode == 0, child.stderr


# 19.5.2.7. Customizing the event loop policy


@asyncio_warns
def test_the_example_of_a_custom_policy(current: Any) -> None:
    """ "To implement a new event loop policy, it is recommended you subclass the concrete default
    event loop policy DefaultEventLoopPolicy and override the methods for which you want to change
    behavior". The example of the section.
    """
    skip_where_asyncio_warns(current)
    got: List[Any] = []

    class MyEventLoopPolicy(current.DefaultEventLoopPolicy):  # type: ignore[misc]
        def get_event_loop(self) -> Any:
            """Get the event loop.

            This may be None or an instance of EventLoop.
            """
            loop = super().get_event_loop()
            got.append(loop)
            return loop

    current.set_event_loop_policy(MyEventLoopPolicy())
    loop = current.get_event_loop()
    assert got == [loop]
    assert isinstance(loop, getattr(current, DEFAULT_LOOP))


def test_a_custom_policy_makes_the_loops_of_asyncio_run(package: Any) -> None:
    made: List[Any] = []

    class MyEventLoopPolicy(package.DefaultEventLoopPolicy):  # type: ignore[misc]
        def new_event_loop(self) -> Any:
            made.append(super().new_event_loop())
            return made[-1]

    package.set_event_loop_policy(MyEventLoopPolicy())

    async def main() -> Any:
        return asyncio.get_running_loop()

    loop = asyncio.run(main())
    assert made == [loop]
    assert isinstance(loop, getattr(package, DEFAULT_LOOP))
    assert loop.is_closed()


@pytest.mark.unix("epoll")
def test_a_custom_policy_with_another_selector(package: Any) -> None:
    class PollPolicy(package.DefaultEventLoopPolicy):  # type: ignore[misc]
        def new_event_loop(self) -> Any:
            return package.SelectorEventLoop(selectors.PollSelector())

    package.set_event_loop_policy(PollPolicy())
    before = epoll_descriptors()
    loop = package.new_event_loop()
    assert epoll_descriptors() == before
    loop.close()


def test_a_policy_from_the_abstract_class(package: Any) -> None:
    """ "A policy is an object implementing the AbstractEventLoopPolicy interface." """

    class OneLoop(package.AbstractEventLoopPolicy):  # type: ignore[misc]
        def __init__(self) -> None:
            self.loop = package.SelectorEventLoop()

        def get_event_loop(self) -> Any:
            return self.loop

        def set_event_loop(self, loop: Any) -> None:
            pass

        def new_event_loop(self) -> Any:
            return self.loop

    policy = OneLoop()
    package.set_event_loop_policy(policy)
    assert package.get_event_loop() is package.new_event_loop() is policy.loop
    assert in_thread(package.get_event_loop) is policy.loop
    policy.loop.close()


@pytest.mark.unix("fork")
def test_a_forked_child_has_no_running_loop(package: Any) -> None:
    """asyncio, events.py: the running loop belongs to the process that runs it."""
    child = run_python(
        f"import asyncio, os, {package.__name__} as package\n"
        "loop = package.SelectorEventLoop()\n"
        "async def main():\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        try:\n"
        "            package.get_running_loop()\n"
        "        except RuntimeError:\n"
        "            os._exit(7)\n"
        "        os._exit(1)\n"
        "    return os.waitpid(pid, 0)[1]\n"
        "print(loop.run_until_complete(main()) >> 8)\n"
        "loop.close()\n"
    )
    assert (child.stdout, child.stderr) == ("7\n", "")


# Child watchers, which the chapter names among the limits of Windows


def start_child(code: int) -> int:
    """The process id of a child that exits with `code`."""
    return os.posix_spawn(
        sys.executable, [sys.executable, "-c", f"raise SystemExit({code})"], dict(os.environ)
    )


@pytest.mark.unix("child watchers")
def test_the_default_child_watcher(oxloop: Any) -> None:
    """There are child watchers on every Python version."""
    watcher = oxloop.get_child_watcher()
    assert isinstance(watcher, oxloop.AbstractChildWatcher)
    assert oxloop.get_child_watcher() is watcher
    assert watcher.is_active()


@pytest.mark.unix("child watchers")
def test_the_abstract_child_watcher_is_asyncios_where_it_has_one(oxloop: Any) -> None:
    """It is asyncio's own class where asyncio still has one."""
    if PY314:
        pytest.skip("asyncio has none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert oxloop.AbstractChildWatcher is asyncio.AbstractChildWatcher


@pytest.mark.unix("child watchers")
@PIDFD
@pytest.mark.parametrize("code", [0, 1, 42])
def test_the_default_child_watcher_tells_the_exit_code(oxloop: Any, code: int) -> None:
    """The default watches by pidfd: no thread, no SIGCHLD handler."""
    import signal

    before = threading.active_count()
    disposition = signal.getsignal(signal.SIGCHLD)
    loop = oxloop.SelectorEventLoop()

    async def main() -> Any:
        exited = loop.create_future()
        with oxloop.get_child_watcher() as watcher:
            watcher.add_child_handler(
                start_child(code), lambda *args: exited.set_result(args), "an", "argument"
            )
            assert threading.active_count() == before
            assert signal.getsignal(signal.SIGCHLD) is disposition
            return await exited

    _, returncode, *arguments = loop.run_until_complete(main())
    loop.close()
    assert (returncode, arguments) == (code, ["an", "argument"])


@pytest.mark.unix("child watchers")
def test_the_default_child_watcher_tells_the_signal(oxloop: Any) -> None:
    import signal

    loop = oxloop.SelectorEventLoop()

    async def main() -> Any:
        exited = loop.create_future()
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
            dict(os.environ),
        )
        with oxloop.get_child_watcher() as watcher:
            watcher.add_child_handler(child, lambda pid, code: exited.set_result((pid, code)))
            assert await exited == (child, -signal.SIGKILL)

    loop.run_until_complete(main())
    loop.close()


@PIDFD
def test_a_child_handler_can_be_removed(oxloop: Any) -> None:
    loop = oxloop.SelectorEventLoop()

    async def main() -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        with oxloop.get_child_watcher() as watcher:
            watcher.add_child_handler(child.pid, print)
            assert watcher.remove_child_handler(child.pid) is True
            assert watcher.remove_child_handler(child.pid) is False
        child.communicate(b"\n")
        await turns(3)

    loop.run_until_complete(main())
    loop.close()


@pytest.mark.unix("child watchers")
@pytest.mark.filterwarnings("ignore:'AbstractChildWatcher' is deprecated:DeprecationWarning")
def test_a_child_watcher_can_be_set(oxloop: Any) -> None:
    class MyWatcher(oxloop.AbstractChildWatcher):  # type: ignore[misc]
        def attach_loop(self, loop: Any) -> None:
            """Watch nothing."""

        def close(self) -> None:
            """Watch nothing any longer."""

        def is_active(self) -> bool:
            return True

    before = oxloop.get_child_watcher()
    mine = MyWatcher()
    oxloop.set_child_watcher(mine)
    try:
        assert oxloop.get_child_watcher() is mine
        assert oxloop.get_event_loop_policy().get_child_watcher() is mine
    finally:
        oxloop.set_child_watcher(None)
    assert isinstance(oxloop.get_child_watcher(), type(before))


@pytest.mark.unix("child watchers")
def test_a_child_watcher_of_another_type_is_refused(oxloop: Any) -> None:
    """A wrong type is refused."""
    for wrong in ("watcher", 3, object()):
        with pytest.raises(TypeError):
            oxloop.set_child_watcher(wrong)


# The package


def test_every_name_of_the_package_is_there(oxloop: Any) -> None:
    """The chapter's names, and what oxloop has beside them."""
    names = """
        get_event_loop set_event_loop new_event_loop get_running_loop get_event_loop_policy
        set_event_loop_policy AbstractEventLoopPolicy DefaultEventLoopPolicy EventLoopPolicy
        SelectorEventLoop ProactorEventLoop IoUringProactor AbstractEventLoop Handle TimerHandle Server
        get_child_watcher set_child_watcher AbstractChildWatcher run install uninstall
    """.split()
    assert set(names) <= set(oxloop.__all__)
    for name in names:
        assert getattr(oxloop, name).__doc__, name
