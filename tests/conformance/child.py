"""One test in a process of its own, forked from the one that has loaded the tests."""

from __future__ import annotations

import enum
import faulthandler
import gc
import importlib
import os
import resource
import signal
import sys
import traceback
import unittest
import warnings
from typing import TYPE_CHECKING, NoReturn

from . import backends

if TYPE_CHECKING:
    from pathlib import Path


class Ending(enum.Enum):
    """How a test's process ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    TIMED_OUT = "timed out"
    DIED = "died"


#: Exit codes no test ends with by accident; any other code or a signal is `Ending.DIED`.
EXIT_CODES = {Ending.PASSED: 90, Ending.FAILED: 91, Ending.SKIPPED: 92}


def start(test: unittest.TestCase, backend: str, output: Path) -> int:
    """Fork a child that runs `test` on `backend`, with all its output in `output`.

    Returns its pid.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(test, backend, output)
    return pid


def _child(test: unittest.TestCase, backend: str, output: Path) -> NoReturn:
    code = 1
    try:
        _leave_the_parent(output)
        code = EXIT_CODES[_run(test, backend)]
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _leave_the_parent(output: Path) -> None:
    """A session, a folder and signals of its own, so that nothing a test does reaches the others.

    The folder is for `os_helper.TESTFN`, which has the number of the process that imported it.
    """
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Ignored in a background job of a shell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (written, 1), (written, 2)):
        os.dup2(source, target)
    os.close(written)
    os.close(empty)
    folder = output.with_name(f"{output.name}.files")
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    sys.stdout = open(1, "w", buffering=1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    faulthandler.enable(2)  # SIGABRT, which a test past its limit gets, shows where it stands


def _run(test: unittest.TestCase, backend: str) -> Ending:
    backends.install(backend)
    warnings.simplefilter("default")
    result = unittest.TestResult()
    unittest.TestSuite([test]).run(result)  # a suite, for setUpModule and setUpClass
    gc.collect()  # what a dropped loop or transport does wrong is done here, not in os._exit
    for _, text in result.errors + result.failures:
        print(text)
    if result.unexpectedSuccesses:
        print("marked as an expected failure, and passed")
    if not result.wasSuccessful() or _left_threads_behind():
        return Ending.FAILED
    for _, reason in result.skipped:
        print("skipped:", reason)
    return Ending.SKIPPED if result.skipped else Ending.PASSED


def _left_threads_behind() -> bool:
    """What CPython's own runner calls "environment altered": threads or children that live on."""
    support = importlib.import_module("test.support")
    return bool(getattr(support, "environment_altered", False))
