"""create_future, create_task, task factories and eager tasks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from typing import Any, Dict, List

import pytest
from support.backends import PY311, PY312
from support.reports import Reports
from support.running import Run, turns

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def nothing() -> None:
    """A coroutine that is done in its first step."""


async def value(result: Any) -> Any:
    """A coroutine that is done after one turn."""
    await asyncio.sleep(0)
    return result


def test_create_future_makes_asyncios_future_of_this_loop(loop: Any) -> None:
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    assert not future.done()


def test_create_future_takes_no_arguments(loop: Any) -> None:
    with pytest.raises(TypeError):
        loop.create_future(1)


def test_done_callbacks_run_through_the_loop_with_their_context(loop: Any) -> None:
    context = contextvars.Context()
    context.run(VARIABLE.set, "given")
    got: List[str] = []
    future = loop.create_future()
    future.add_done_callback(lambda _: got.append(VARIABLE.get()), context=context)
    future.set_result(None)
    assert got == []
    loop.run_until_complete(turns(1))
    assert got == ["given"]


def test_an_exception_that_nobody_retrieves_is_reported(loop: Any, reports: Reports) -> None:
    future = loop.create_future()
    future.set_exception(LookupError("lost"))
    del future
    gc.collect()
    context = reports.take_one()
    assert context["message"] == "Future exception was never retrieved"
    assert isinstance(context["exception"], LookupError)


def test_a_pending_task_that_is_dropped_is_reported(loop: Any, reports: Reports) -> None:
    async def main() -> None:
        async def wait() -> None:
            await asyncio.Future()

        task = asyncio.ensure_future(wait())
        await turns(1)
        del task

    loop.run_until_complete(main())
    gc.collect()
    assert reports.take_one()["message"] == "Task was destroyed but it is pending!"


def test_create_task_makes_asyncios_task_of_this_loop(loop: Any) -> None:
    task = loop.create_task(value(3))
    assert isinstance(task, asyncio.Task)
    assert task.get_loop() is loop
    assert loop.run_until_complete(task) == 3


def test_create_task_starts_the_coroutine_in_the_next_turn(run: Run) -> None:
    async def main() -> None:
        started: List[int] = []

        async def start() -> None:
            started.append(1)

        task = asyncio.get_running_loop().create_task(start())
        assert started == []
        await turns(1)
        assert started == [1]
        await task

    run(main)


@pytest.mark.parametrize("name", ["Task", "Future"])
def test_a_replaced_class_is_used(loop: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Programs (Jupyter's, test runners) replace the classes in asyncio's modules, for a while or for good."""
    module = getattr(asyncio, "tasks" if name == "Task" else "futures")

    class Replacement(getattr(asyncio, name)):  # type: ignore[misc]
        pass

    monkeypatch.setattr(module, name, Replacement)
    future = loop.create_future() if name == "Future" else loop.create_task(asyncio.sleep(0))
    assert type(future) is Replacement
    future.cancel()
    loop.run_until_complete(asyncio.gather(future, return_exceptions=True))
    monkeypatch.undo()
    assert type(loop.create_future()) is asyncio.Future


def test_create_task_with_a_name(loop: Any) -> None:
    named = loop.create_task(nothing(), name="my task")
    unnamed = loop.create_task(nothing(), name=None)
    assert named.get_name() == "my task"
    assert unnamed.get_name().startswith("Task-")
    loop.run_until_complete(asyncio.gather(named, unnamed))


def test_create_task_turns_a_name_into_a_string(loop: Any) -> None:
    task = loop.create_task(nothing(), name=5)
    assert task.get_name() == "5"
    loop.run_until_complete(task)


@pytest.mark.skipif(not PY311, reason="create_task(context=) is new in Python 3.11")
def test_create_task_with_a_context(loop: Any) -> None:
    context = contextvars.Context()
    context.run(VARIABLE.set, "given")

    async def main() -> str:
        got = VARIABLE.get()
        VARIABLE.set("changed inside")
        return got

    assert loop.run_until_complete(loop.create_task(main(), context=context)) == "given"
    assert context[VARIABLE] == "changed inside"


def test_create_task_copies_the_current_context(loop: Any) -> None:
    async def main() -> str:
        got = VARIABLE.get()
        VARIABLE.set("changed inside")
        await asyncio.sleep(0)
        return got

    def caller() -> Any:
        VARIABLE.set("caller's")
        return loop.create_task(main())

    assert loop.run_until_complete(contextvars.copy_context().run(caller)) == "caller's"
    assert VARIABLE.get() == "unset"


def test_create_task_refuses_what_is_no_coroutine(loop: Any) -> None:
    with pytest.raises(TypeError, match="a coroutine was expected, got 123"):
        loop.create_task(123)


def test_create_task_takes_options_by_keyword_only(loop: Any) -> None:
    coroutine = nothing()
    with pytest.raises(TypeError):
        loop.create_task(coroutine, "name")
    coroutine.close()


def test_create_task_refuses_unknown_keywords(loop: Any) -> None:
    coroutine = nothing()
    with pytest.raises(TypeError):
        loop.create_task(coroutine, colour="red")
    coroutine.close()


def test_the_task_factory_is_none_at_first(loop: Any) -> None:
    assert loop.get_task_factory() is None


def test_set_task_factory_refuses_what_is_not_callable(loop: Any) -> None:
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(42)
    assert loop.get_task_factory() is None


def test_the_task_factory_makes_the_tasks(loop: Any) -> None:
    class MyTask(asyncio.Task):  # type: ignore[type-arg]
        pass

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        return MyTask(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    task = loop.create_task(value(5))
    assert isinstance(task, MyTask)
    assert loop.run_until_complete(task) == 5
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    plain = loop.create_task(nothing())
    assert type(plain) is asyncio.Task
    loop.run_until_complete(plain)


def keywords_given(loop: Any) -> List[Any]:
    """What a task factory of `loop` is given, by several ways to make a task."""
    given: List[Any] = []

    def factory(*args: Any, **kwargs: Any) -> Any:
        assert args[0] is loop
        given.append((len(args), sorted(kwargs)))
        return asyncio.Task(args[1], loop=loop)

    options: List[Dict[str, Any]] = [{}, {"name": None}, {"name": "n"}]
    if PY311:
        context = contextvars.copy_context()
        options += [{"context": None}, {"context": context}, {"context": context, "name": "n"}]
    if sys.version_info >= (3, 13, 3):
        options += [{"eager_start": False, "name": None}]
    loop.set_task_factory(factory)
    tasks = [loop.create_task(nothing(), **given_options) for given_options in options]
    names = [task.get_name() for task in tasks]
    # CPython 3.13 calls a factory's task "None" where no name was given.
    names = ["own" if name.startswith(("Task-", "None")) else name for name in names]

    async def main() -> None:
        await asyncio.ensure_future(nothing())
        await asyncio.create_task(nothing(), name="through asyncio")
        await asyncio.gather(nothing(), *tasks)

    loop.run_until_complete(main())
    return [given, names]


def test_a_task_factory_gets_just_the_keywords_the_caller_gave(loop: Any) -> None:
    """`create_task` hands a task factory only the keywords that the caller gave."""
    oracle = asyncio.SelectorEventLoop()
    try:
        expected = keywords_given(oracle)
    finally:
        oracle.close()
    assert keywords_given(loop) == expected


def test_a_task_factory_of_two_arguments_suffices(loop: Any) -> None:
    """Seen elsewhere: the loop passes keywords it should not."""
    loop.set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))

    async def main() -> Any:
        return await asyncio.gather(*(asyncio.ensure_future(value(n)) for n in range(3)))

    assert loop.run_until_complete(main()) == [0, 1, 2]


def test_the_task_factory_serves_run_until_complete(loop: Any) -> None:
    made: List[Any] = []

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    coroutine = nothing()
    loop.run_until_complete(coroutine)
    assert made == [coroutine]


def test_a_task_factory_that_raises(loop: Any) -> None:
    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        coro.close()
        raise ArithmeticError("factory")

    loop.set_task_factory(factory)
    with pytest.raises(ArithmeticError, match="factory"):
        loop.create_task(nothing())


@pytest.mark.skipif(not PY312, reason="eager tasks are new in Python 3.12")
def test_eager_tasks_run_at_once(loop: Any) -> None:
    """Seen elsewhere: `eager_task_factory` breaks because the loop passes keywords."""
    loop.set_task_factory(asyncio.eager_task_factory)
    got: List[str] = []

    async def step(name: str) -> str:
        got.append(name)
        return name

    async def main() -> None:
        task = asyncio.create_task(step("eager"), name="named")
        assert got == ["eager"]
        assert task.done()
        assert task.result() == "eager"
        assert task.get_name() == "named"
        blocking = asyncio.create_task(value("later"))
        assert not blocking.done()
        assert await blocking == "later"
        assert list(await asyncio.gather(step("a"), step("b"))) == ["a", "b"]

    loop.run_until_complete(main())
    assert got == ["eager", "a", "b"]


@pytest.mark.skipif(not PY312, reason="eager tasks are new in Python 3.12")
def test_eager_tasks_with_a_context(loop: Any) -> None:
    """Seen elsewhere: `eager_task_factory` breaks because the loop passes keywords."""
    loop.set_task_factory(asyncio.eager_task_factory)
    context = contextvars.Context()
    context.run(VARIABLE.set, "given")

    async def read() -> str:
        return VARIABLE.get()

    async def main() -> str:
        return await asyncio.create_task(read(), context=context)

    assert loop.run_until_complete(main()) == "given"


@pytest.mark.skipif(not PY312, reason="eager tasks are new in Python 3.12")
def test_eager_tasks_in_a_task_group_and_with_timeouts(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main() -> List[Any]:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(value(number)) for number in range(3)]
        return [task.result() for task in tasks]

    assert loop.run_until_complete(main()) == [0, 1, 2]


@pytest.mark.skipif(not PY311, reason="task groups are new in Python 3.11")
def test_a_task_group_cancels_its_tasks(run: Run) -> None:
    async def main() -> None:
        async def fail() -> None:
            raise LookupError("one failed")

        async def wait() -> None:
            await asyncio.get_running_loop().create_future()

        waiting: Any = None
        try:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(wait())
                group.create_task(fail())
        except BaseExceptionGroup as error:  # noqa: F821
            assert [type(inner) for inner in error.exceptions] == [LookupError]
        assert waiting.cancelled()

    run(main)


def test_cancellation_reaches_the_coroutine(run: Run) -> None:
    async def main() -> None:
        got: List[str] = []

        async def wait() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                got.append("cancelled")
                raise

        task = asyncio.ensure_future(wait())
        await turns(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == ["cancelled"]

    run(main)


def test_a_wakeup_takes_one_turn(run: Run) -> None:
    """A turn runs what asyncio would have run in it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        order: List[str] = []
        future = loop.create_future()

        async def wait() -> None:
            await future
            order.append("woken")

        task = asyncio.ensure_future(wait())
        await turns(1)
        loop.call_soon(order.append, "before")
        future.set_result(None)
        loop.call_soon(order.append, "after")
        await task
        assert order == ["before", "woken", "after"]

    run(main)


def test_a_finished_task_is_collected(run: Run) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(value(1))
        gone = weakref.ref(task)
        await task
        del task
        await turns(2)
        gc.collect()
        assert gone() is None

    run(main)


def test_many_tasks_pass_a_token(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        first = loop.create_future()

        async def relay(before: Any, after: Any) -> None:
            after.set_result(await before + 1)

        current = first
        for _ in range(1000):
            following = loop.create_future()
            loop.create_task(relay(current, following))
            current = following
        first.set_result(0)
        result: int = await current
        return result

    assert run(main) == 1000


def test_queues_and_locks_work(run: Run) -> None:
    async def main() -> List[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        lock, event = asyncio.Lock(), asyncio.Event()
        got: List[int] = []

        async def consume() -> None:
            await event.wait()
            while len(got) < 100:
                item = await queue.get()
                async with lock:
                    got.append(item)

        consumers = [asyncio.ensure_future(consume()) for _ in range(2)]
        event.set()
        for number in range(101):
            await queue.put(number)
        await asyncio.wait(consumers, return_when=asyncio.FIRST_COMPLETED)
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        return sorted(got)

    assert run(main)[:100] == list(range(100))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is new in Python 3.11")
def test_timeout_cancels_the_block(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await asyncio.get_running_loop().create_future()

    run(main)


@pytest.mark.skipif(not PY311, reason="asyncio.Runner is new in Python 3.11")
def test_asyncio_runner_with_a_loop_factory(new_loop: Any) -> None:
    """`asyncio.Runner(loop_factory=...)` works."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(value(1)) == 1
        loop = runner.get_loop()
        assert runner.run(value(2)) == 2
    assert loop.is_closed()


@pytest.mark.skipif(not PY312, reason="asyncio.run(loop_factory=) is new in Python 3.12")
def test_asyncio_run_with_a_loop_factory(new_loop: Any) -> None:
    """`asyncio.run(main(), loop_factory=...)` works."""

    async def main() -> Any:
        return asyncio.get_running_loop()

    loop = asyncio.run(main(), loop_factory=new_loop)
    assert loop.is_closed()
