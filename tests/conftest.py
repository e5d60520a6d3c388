"""Runs each test on stdlib asyncio, the oracle, and on oxloop over each selector and its proactor.

Nothing may be left behind by a test: no file descriptor, no report to an exception handler that the
test did not take, no warning, and no test may run for longer than its limit.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import pathlib
import signal
import sys
import warnings
from typing import Any, Callable, Generator, Iterator, List, Optional

import pytest

pytest.register_assert_rewrite("support.contracts")

from support.backends import (  # noqa: E402
    BACKENDS,
    Backend,
    default_backends,
    proactor_unavailable,
)
from support.children import zombies  # noqa: E402
from support.open_files import open_files  # noqa: E402
from support.platforms import UNIX_MARK, WINDOWS, WINE, missing  # noqa: E402
from support.releases import LIBRARY_IS_AHEAD  # noqa: E402
from support.reports import Reports  # noqa: E402
from support.running import Main, NewLoop, Run, finish  # noqa: E402
from support.time_limit import TimeLimitExceeded, loops, time_limit  # noqa: E402
from support.tls import authority, since_311_or_oxloop  # noqa: E402, F401
from support.windows import read as read_expectations  # noqa: E402

# Seconds. The soft limit fails the test alone; the hard one is for a loop that looks at no signal.
SOFT_LIMIT = 90 if WINE else 30
HARD_LIMIT = 2 * SOFT_LIMIT

STDERR = pytest.StashKey[int]()  # capturing replaces file descriptor 2 while a test runs


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--backend``."""
    parser.addoption(
        "--backend",
        action="append",
        choices=list(BACKENDS),
        help="run on this kind of loop only; may be repeated (default: all but `user` and `best`)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make every warning an error, and keep the real stderr for the dump of a test that hangs."""
    os.environ.pop("OXLOOP_LOOP", None)  # the tests choose their loops themselves
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line("markers", "differs(reason): oxloop is known not to be as asyncio here")
    config.addinivalue_line("markers", UNIX_MARK)
    config.stash[STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close what pytest_configure() opened."""
    os.close(config.stash[STDERR])


def pytest_report_header(config: pytest.Config) -> List[str]:
    """Say which default backend is left out."""
    reason = None if config.getoption("--backend") else proactor_unavailable()
    return [f"proactor: left out, {reason}"] if reason else []


def chosen_backends(config: pytest.Config) -> List[Backend]:
    """The backends that ``--backend`` names, or the default ones."""
    return [BACKENDS[name] for name in config.getoption("--backend") or default_backends()]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise what makes a loop over the backends, and what reads a package over the packages."""
    chosen = chosen_backends(metafunc.config)
    marks = metafunc.definition.iter_markers("parametrize")
    own = [name for mark in marks for name in str(mark.args[0]).split(",")]
    if "backend" in metafunc.fixturenames and "backend" not in own:
        metafunc.parametrize("backend", chosen, ids=lambda backend: backend.name, scope="session")
    if "package" in metafunc.fixturenames:
        names = list(dict.fromkeys(backend.package for backend in chosen))
        metafunc.parametrize("package", names, indirect=True, scope="session")


def backend_of(item: pytest.Item) -> Optional[Backend]:
    """The backend of a test that is run on each, else None."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("backend")


def mark_for_the_platform(items: List[pytest.Item]) -> None:
    """Skip what needs Unix, and expect to fail what `windows.txt` lists."""
    expectations = read_expectations() if WINDOWS else []
    for item in items:
        for mark in item.iter_markers("unix"):
            reason = missing(str(mark.args[0]))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
        backend = backend_of(item)
        name = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        for line in expectations:
            if line.covers(name, None if backend is None else backend.name):
                expected = pytest.mark.xfail(strict=True, reason=line.reason, run=line.is_run)
                item.add_marker(expected)


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out what is about oxloop alone where no oxloop backend is chosen.

    What oxloop is known to do otherwise is expected to fail there, strictly.
    """
    mark_for_the_platform(items)
    for item in items:
        mark = item.get_closest_marker("differs")
        backend = backend_of(item)
        if mark is not None and not getattr(backend, "is_oracle", False):
            item.add_marker(pytest.mark.xfail(strict=True, reason=str(mark.args[0])))
    if any(not backend.is_oracle for backend in chosen_backends(config)):
        return
    kept = [item for item in items if "oxloop" not in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_collection_finish() -> None:
    """Take what was imported and collected out of the collector's sight: it runs after each test."""
    gc.collect()
    gc.freeze()


def is_limited(item: pytest.Item) -> bool:
    """Whether the time limits hold for `item`: for the tests beside this file, not for those below,
    which run other programs and limit these.
    """
    return item.path.parent == pathlib.Path(__file__).parent


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, None, None]:
    """Dump all stacks and exit if a test with its fixtures passes the hard limit."""
    if is_limited(item):
        stderr = item.config.stash[STDERR]
        faulthandler.dump_traceback_later(HARD_LIMIT, exit=True, file=stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, None]:
    """Fail a test that passes the soft limit."""
    with time_limit(SOFT_LIMIT if is_limited(pyfuncitem) else 0):
        outcome = yield
    if outcome.excinfo is not None and issubclass(outcome.excinfo[0], TimeLimitExceeded):
        error = pytest.fail.Exception(f"{pyfuncitem.nodeid} took longer than {SOFT_LIMIT} s")
        outcome.force_exception(error.with_traceback(outcome.excinfo[2]))
    backend = backend_of(pyfuncitem)
    if (
        WINDOWS
        and backend is not None
        and (backend.is_oracle or backend.selector is not None)
        and outcome.excinfo is not None
        and issubclass(outcome.excinfo[0], NotImplementedError)
    ):
        # asyncio's loops lack much there, and a selector pipes and processes.
        outcome.force_exception(pytest.skip.Exception(f"not in {backend.name}'s loop on Windows"))


def restore_policies() -> None:
    """Give asyncio, and oxloop where it is imported, their default policies back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(None)
    if "oxloop" in sys.modules:
        sys.modules["oxloop"].set_event_loop_policy(None)


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fail a test that leaves descriptors, policies, a running loop or a wake-up fd behind."""
    gc.freeze()  # what pytest keeps of the tests before, which makes each collection slower
    before = open_files()
    yield
    restore_policies()
    gc.collect()
    after = open_files()
    leaked = sorted(after.items() - before.items())
    assert not leaked, "descriptors leaked"
    stdio = sorted(fd for fd in before if fd <= 2)  # more may be the rest of a test that failed
    assert stdio == sorted(fd for fd in after if fd <= 2), "descriptors of others were closed"
    assert asyncio._get_running_loop() is None
    assert signal.set_wakeup_fd(-1) == -1, "a wake-up fd is left behind"


@pytest.fixture
def reports(leaves_nothing: None) -> Iterator[Reports]:
    """What loops report during the test; whatever the test does not take fails it."""
    collected = Reports()
    logger = logging.getLogger("asyncio")
    logger.addHandler(collected)
    yield collected
    gc.collect()
    logger.removeHandler(collected)
    assert not collected.unexpected()


@pytest.fixture
def log() -> Iterator[List[str]]:
    """The messages of asyncio's log, of every level."""
    messages: List[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(f"{record.levelname} {record.getMessage()}")

    logger, keeper = logging.getLogger("asyncio"), Keeper()
    level = logger.level
    logger.addHandler(keeper)
    logger.setLevel(logging.DEBUG)
    yield messages
    logger.setLevel(level)
    logger.removeHandler(keeper)


@pytest.fixture
def leaves_no_zombie() -> Iterator[None]:
    """Fail a test whose children were not waited for."""
    yield
    assert not zombies()


@pytest.fixture
def of_one_release(backend: Backend) -> None:
    """Skip asyncio where it is of a later release than the interpreter."""
    if backend.is_oracle and LIBRARY_IS_AHEAD:
        pytest.skip("the library is of a later release than the interpreter")


@pytest.fixture
def needs_pipes(backend: Backend) -> None:
    """Skip the loops that have neither pipes nor processes on Windows."""
    if not backend.has_pipes:
        pytest.skip("select() takes sockets only")


@pytest.fixture
def new_loop(backend: Backend, reports: Reports) -> Iterator[NewLoop]:
    """Makes fresh loops whose reports are collected, and finishes them after the test."""
    made: List[Any] = []

    def make() -> Any:
        loop = backend.new_loop()
        loop.set_exception_handler(reports)
        made.append(loop)
        loops.add(loop)
        return loop

    yield make
    for loop in made:
        finish(loop)


@pytest.fixture
def loop(new_loop: NewLoop) -> Any:
    """One fresh loop."""
    return new_loop()


@pytest.fixture
def run(new_loop: NewLoop) -> Run:
    """Runs a coroutine function to its end on a fresh loop, finishes the loop, gives the result."""

    def run_main(main: Main, *, debug: bool = False, prepare: Callable[..., Any] = id) -> Any:
        loop = new_loop()
        loop.set_debug(debug)
        prepare(loop)
        try:
            return loop.run_until_complete(main())
        finally:
            finish(loop)

    return run_main


@pytest.fixture(scope="session")
def package(request: pytest.FixtureRequest) -> Any:
    """The package whose names are under test: asyncio, or oxloop."""
    return __import__(request.param)


@pytest.fixture(scope="session")
def oxloop() -> Any:
    """The package oxloop, for what asyncio has no counterpart of."""
    return __import__("oxloop")
