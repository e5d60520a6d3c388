"""One test in a process of its own, forked from the one that has loaded the tests."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from . import backends
from .outcome import Ending, run_here

if TYPE_CHECKING:
    import unittest
    from pathlib import Path


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
        backends.install(backend)
        code = EXIT_CODES[run_here(test)]
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
