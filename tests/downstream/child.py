"""One process: the checks of one library on one loop.

usage: python -m tests.downstream.child DISTRIBUTION [CHECK ...]

Each check has a loop of its own. A line of JSON is written to the descriptor that DOWNSTREAM_RESULTS
names when a check begins and one when it has ended, so that the parent knows which one it was that
brought the process down. What a check leaves behind is listed with its result: tasks, reports of the
loop's exception handler, errors in asyncio's log, warnings, exceptions that could not be raised.
Whether that is our fault is not known here; asyncio's run of the same check tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import re
import sys
import time
import traceback
import warnings
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Optional

from . import place
from .libraries import LIBRARIES

LIMIT = 30.0  # seconds for one check

Check = Callable[[], Awaitable[None]]


class Leftovers(logging.Handler):
    """Collects what nobody caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: List[str] = []

    def add(self, kind: str, text: str) -> None:
        """Remember one; addresses and numbers are no part of what it is."""
        text = re.sub(r"0x[0-9a-f]+|\d+", "N", text.strip().splitlines()[0] if text else "")
        self.found.append(f"{kind}: {text}")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error of asyncio's log."""
        self.add("log", record.getMessage())
        self.detail(record.exc_info[1] if record.exc_info else None)

    def handle_context(self, loop: Any, context: Dict[str, Any]) -> None:
        """Be a loop's exception handler."""
        exception = context.get("exception")
        self.add("reported", f"{context.get('message')} ({type(exception).__name__})")
        print(f"reported: {context}", file=sys.stderr)
        self.detail(exception)

    def unraisable(self, unraisable: Any) -> None:
        """Be sys.unraisablehook."""
        self.add("unraisable", f"{unraisable.exc_type.__name__} in {unraisable.object!r}")
        self.detail(unraisable.exc_value)

    def warning(self, message: Any, category: Any, *rest: Any, **kw: Any) -> None:
        """Be warnings.showwarning. What is warned of is named by the words before its repr."""
        words = str(message).partition("<")[0]
        print(f"{category.__name__}: {message} {rest[:2]}", file=sys.stderr)
        self.add(category.__name__, words)

    def tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep the tasks that are left."""
        for task in asyncio.all_tasks(loop):
            self.add("task", getattr(task.get_coro(), "__qualname__", repr(task)))
            task.print_stack(file=sys.stderr)

    @staticmethod
    def detail(exception: Optional[BaseException]) -> None:
        """Put a traceback into the process's output."""
        if exception is not None:
            traceback.print_exception(type(exception), exception, exception.__traceback__)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Collect while it lasts."""
        log = logging.getLogger("asyncio")
        log.addHandler(self)
        before, sys.unraisablehook = sys.unraisablehook, self.unraisable
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                warnings.simplefilter("always", ResourceWarning)
                warnings.showwarning = self.warning
                yield
                gc.collect()
        finally:
            sys.unraisablehook = before
            log.removeHandler(self)


def _run_on(loop: asyncio.AbstractEventLoop, check: Check, leftovers: Leftovers) -> None:
    """Run a check, then end the loop as asyncio.run() does."""
    loop.set_debug("DOWNSTREAM_DEBUG" in os.environ)
    loop.slow_callback_duration = 10  # the machine's business, not ours
    loop.set_exception_handler(leftovers.handle_context)

    async def limited() -> None:
        await asyncio.wait_for(check(), LIMIT)
        for _ in range(3):  # what a closed transport still has to say
            await asyncio.sleep(0)

    try:
        loop.run_until_complete(limited())
        leftovers.tasks(loop)
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=place.PATIENCE))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def run(name: str, check: Check) -> Dict[str, Any]:
    """Run one check; return what there is to say about it."""
    leftovers = Leftovers()
    error = ""
    start = time.monotonic()
    print(f"== {name}", file=sys.stderr, flush=True)
    with leftovers.listening():
        loop = place.loop_factory()()
        assert place.is_under_test(type(loop).__name__)
        asyncio.set_event_loop(loop)
        try:
            _run_on(loop, check, leftovers)
        except BaseException as exception:
            error = traceback.format_exc()
            print(error, file=sys.stderr)
            exception.__traceback__ = None
        asyncio.set_event_loop(None)
        del loop
    seconds = round(time.monotonic() - start, 3)
    return {"check": name, "error": error, "left": sorted(leftovers.found), "seconds": seconds}


def main(distribution: str, chosen: List[str]) -> None:
    """Run the chosen checks of a library."""
    with os.fdopen(int(os.environ.pop("DOWNSTREAM_RESULTS")), "w", buffering=1) as results:
        module = importlib.import_module(LIBRARIES[distribution].module)
        for name in chosen:
            print(json.dumps({"begins": name}), file=results)
            print(json.dumps(run(name, getattr(module, name))), file=results)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
