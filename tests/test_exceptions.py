"""Exception handlers: set, default, failing ones, the context's keys and the context they run in."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import socket
import sys
from typing import Any, Dict, List, Optional, Type

import pytest
from support.backends import PY312, Backend
from support.reports import Reports
from support.running import turns

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def one_turn(loop: Any) -> None:
    """Make one turn of `loop`."""
    loop.stop()
    loop.run_forever()


def fail() -> None:
    """A callback that raises."""
    raise ZeroDivisionError("mine")


def test_there_is_no_handler_at_first(backend: Backend) -> None:
    loop = backend.new_loop()
    try:
        assert loop.get_exception_handler() is None
    finally:
        loop.close()


def test_set_exception_handler(loop: Any) -> None:
    calls: List[Any] = []

    def handler(*args: Any) -> None:
        calls.append(args)

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.call_soon(fail)
    one_turn(loop)
    assert len(calls) == 1
    assert calls[0][0] is loop
    assert isinstance(calls[0][1]["exception"], ZeroDivisionError)
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


def test_set_exception_handler_refuses_what_is_not_callable(loop: Any) -> None:
    with pytest.raises(TypeError, match="A callable object or None is expected, got 'spam'"):
        loop.set_exception_handler("spam")


def test_the_context_of_a_failing_callback(loop: Any, reports: Reports) -> None:
    handle = loop.call_soon(fail)
    text = repr(handle)
    one_turn(loop)
    context = reports.take_one()
    assert set(context) == {"message", "exception", "handle"}
    assert context["message"] == f"Exception in callback {text[len('<Handle ') : -1]}"
    assert context["handle"] is handle


def test_the_context_of_a_failing_timer(loop: Any, reports: Reports) -> None:
    handle = loop.call_later(0.0, fail)
    one_turn(loop)
    one_turn(loop)
    context = reports.take_one()
    assert set(context) == {"message", "exception", "handle"}
    assert context["handle"] is handle


def test_the_context_has_a_source_traceback_in_debug_mode(loop: Any, reports: Reports) -> None:
    """Debug mode keeps source tracebacks."""
    loop.set_debug(True)
    loop.call_soon(fail)
    one_turn(loop)
    context = reports.take_one()
    assert set(context) == {"message", "exception", "handle", "source_traceback"}
    assert context["source_traceback"][-1].filename == __file__


def test_the_traceback_of_the_exception_shows_the_users_code(loop: Any, reports: Reports) -> None:
    import traceback

    loop.call_soon(fail)
    one_turn(loop)
    error = reports.take_one()["exception"]
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, Exception])
def test_base_exceptions_other_than_exits_are_reported(
    loop: Any, reports: Reports, error: Type[BaseException]
) -> None:
    def callback() -> None:
        raise error

    loop.call_soon(callback)
    one_turn(loop)
    assert type(reports.take_one()["exception"]) is error


def test_call_exception_handler_calls_the_handler(loop: Any, reports: Reports) -> None:
    context = {"message": "spam"}
    loop.call_exception_handler(context)
    assert reports.take_one() is context


def test_the_default_handler_logs(loop: Any, reports: Reports) -> None:
    loop.set_exception_handler(None)
    loop.call_soon(fail)
    one_turn(loop)
    (record,) = reports.records
    (message,) = reports.take_log()
    assert message.splitlines()[0].startswith("Exception in callback fail()")
    assert message.splitlines()[1].startswith("handle: <Handle fail() at ")
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert record.levelno == logging.ERROR


def test_the_default_handler_writes_each_key_in_order(loop: Any, reports: Reports) -> None:
    loop.set_exception_handler(None)
    loop.call_exception_handler({"message": "text", "zebra": 1, "apple": "two"})
    (record,) = reports.records
    assert reports.take_log() == ["text\napple: 'two'\nzebra: 1"]
    assert not record.exc_info


def test_the_default_handler_has_a_message_of_its_own(loop: Any, reports: Reports) -> None:
    loop.set_exception_handler(None)
    loop.call_exception_handler({})
    assert reports.take_log() == ["Unhandled exception in event loop"]


def test_default_exception_handler_can_be_called_by_a_handler(loop: Any, reports: Reports) -> None:
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    loop.call_soon(fail)
    one_turn(loop)
    assert reports.take_log()[0].startswith("Exception in callback fail()")


def test_the_default_handler_shows_source_tracebacks(loop: Any, reports: Reports) -> None:
    """Debug mode keeps source tracebacks."""
    loop.set_debug(True)
    loop.set_exception_handler(None)
    loop.call_soon(fail)
    one_turn(loop)
    (message,) = reports.take_log()
    assert "Object created at (most recent call last):\n" in message
    assert __file__ in message


def test_a_handler_finds_the_exception_in_exc_info(loop: Any) -> None:
    """It runs in the `except` block of whoever caught the exception, so `logging.exception` works."""
    seen: List[Any] = []

    def handler(_: Any, context: Dict[str, Any]) -> None:
        seen.append((context["exception"], sys.exc_info()))

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    one_turn(loop)
    [(exception, info)] = seen
    assert info == (ZeroDivisionError, exception, exception.__traceback__)
    assert sys.exc_info() == (None, None, None)


def test_a_handler_finds_a_protocols_exception_in_exc_info(loop: Any) -> None:
    seen: List[Any] = []

    def handler(_: Any, context: Dict[str, Any]) -> None:
        seen.append((context["message"], context["exception"] is sys.exc_info()[1]))

    class Failing(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            fail()

        def connection_lost(self, exc: Optional[Exception]) -> None:
            seen.append(sys.exc_info()[1])
            loop.stop()

    loop.set_exception_handler(handler)
    left, right = socket.socketpair()
    with right:
        left.setblocking(False)
        loop.run_until_complete(loop.create_connection(Failing, sock=left))
        right.send(b"x")
        loop.run_forever()
    assert seen == [("Fatal error: protocol.data_received() call failed.", True), None]


def test_a_handler_that_raises_does_so_while_handling(loop: Any, reports: Reports) -> None:
    caught: List[BaseException] = []

    def handler(_: Any, context: Dict[str, Any]) -> None:
        caught.append(context["exception"])
        raise KeyError("the handler's")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    one_turn(loop)
    (record,) = reports.records
    reports.take_log()
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert record.exc_info[1].__context__ is caught[0]


def test_a_handler_that_raises_is_reported_by_the_default_handler(
    loop: Any, reports: Reports
) -> None:
    def handler(loop: Any, context: Any) -> None:
        raise AttributeError("in the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    one_turn(loop)
    (record,) = reports.records
    (message,) = reports.take_log()
    assert message.startswith("Unhandled error in exception handler\ncontext: {")
    assert record.exc_info is not None
    assert record.exc_info[0] is AttributeError


def test_an_overridden_default_handler_that_raises_is_logged(
    backend: Backend, reports: Reports
) -> None:
    base = backend.loop_class()

    class Loop(base):  # type: ignore[misc,valid-type]
        def default_exception_handler(self, context: Any) -> None:
            raise ValueError("in the default handler")

    loop = Loop()
    try:
        loop.call_soon(fail)
        one_turn(loop)
        assert reports.take_log() == ["Exception in default exception handler"]

        def handler(loop: Any, context: Any) -> None:
            raise AttributeError("in the handler")

        loop.set_exception_handler(handler)
        loop.call_soon(fail)
        one_turn(loop)
        assert reports.take_log() == [
            "Exception in default exception handler while handling an unexpected error "
            "in custom exception handler"
        ]
    finally:
        loop.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_handler_that_exits_leaves_the_loop(loop: Any, error: Type[BaseException]) -> None:
    """Seen elsewhere: `KeyboardInterrupt` in a callback is swallowed."""

    def handler(loop: Any, context: Any) -> None:
        raise error("from the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(error, match="from the handler"):
        loop.run_forever()


def test_the_loop_takes_a_replaced_call_exception_handler(loop: Any) -> None:
    """`loop.call_exception_handler = ...` is used."""
    calls: List[Dict[str, Any]] = []
    loop.call_exception_handler = calls.append
    loop.call_soon(fail)
    one_turn(loop)
    del loop.call_exception_handler
    assert [type(call["exception"]) for call in calls] == [ZeroDivisionError]


def test_an_overridden_call_exception_handler_is_used(backend: Backend) -> None:
    """`loop.call_exception_handler = ...` is used."""
    base = backend.loop_class()
    calls: List[Dict[str, Any]] = []

    class Loop(base):  # type: ignore[misc,valid-type]
        def call_exception_handler(self, context: Any) -> None:
            calls.append(context)

    loop = Loop()
    try:
        loop.call_soon(fail)
        one_turn(loop)
    finally:
        loop.close()
    assert len(calls) == 1


@pytest.mark.skipif(not PY312, reason="asyncio runs the handler in that context since 3.12")
def test_the_handler_runs_in_the_failed_handles_context(loop: Any) -> None:
    """The exception handler runs in the failed task's context."""
    got: List[str] = []
    loop.set_exception_handler(lambda loop, context: got.append(VARIABLE.get()))
    context = contextvars.Context()
    context.run(VARIABLE.set, "of the handle")
    loop.call_soon(fail, context=context)
    one_turn(loop)
    assert got == ["of the handle"]


@pytest.mark.skipif(PY312, reason="asyncio runs the handler in the handle's context since 3.12")
def test_the_handler_runs_in_the_context_of_the_run(loop: Any) -> None:
    got: List[str] = []
    loop.set_exception_handler(lambda loop, context: got.append(VARIABLE.get()))
    context = contextvars.Context()
    context.run(VARIABLE.set, "of the handle")
    loop.call_soon(fail, context=context)
    one_turn(loop)
    assert got == [VARIABLE.get()]


@pytest.mark.skipif(not PY312, reason="asyncio runs the handler in that context since 3.12")
def test_the_handler_runs_in_the_failed_tasks_context(loop: Any) -> None:
    """The exception handler runs in the failed task's context."""
    got: List[Any] = []
    loop.set_exception_handler(
        lambda loop, context: got.append((VARIABLE.get(), type(context["exception"])))
    )

    async def failing() -> None:
        VARIABLE.set("of the task")
        raise LookupError

    async def main() -> None:
        task = asyncio.ensure_future(failing())
        await turns(2)
        del task
        gc.collect()

    loop.run_until_complete(main())
    assert got == [("of the task", LookupError)]


def test_an_unretrieved_exception_of_a_task_is_reported(loop: Any, reports: Reports) -> None:
    async def failing() -> None:
        raise LookupError("lost")

    async def main() -> None:
        asyncio.ensure_future(failing())  # noqa: RUF006
        await turns(2)
        gc.collect()

    loop.run_until_complete(main())
    context = reports.take_one()
    assert context["message"] == "Task exception was never retrieved"
    assert isinstance(context["exception"], LookupError)


def test_the_handler_of_a_failing_reader(loop: Any, reports: Reports) -> None:
    import socket

    left, right = socket.socketpair()
    with left, right:

        def read() -> None:
            left.recv(10)
            raise ZeroDivisionError

        loop.add_reader(left, read)
        right.send(b"x")
        one_turn(loop)
        context = reports.take_one()
        assert isinstance(context["exception"], ZeroDivisionError)
        assert isinstance(context["handle"], asyncio.Handle)
        assert loop.remove_reader(left), "a reader that raises stays registered"
