"""CPython's own asyncio tests as tests of oxloop: one pytest item a module and backend.

Each item is ``python -m tests.conformance --backend <backend> <module>`` in a process of its own,
so that this one keeps its own asyncio.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from oxloop import _native

from . import suite

ROOT = Path(__file__).parents[2]

#: These have a class for each selector, and so cover poll and select in the run on epoll.
EVERY_SELECTOR = ("test_events", "test_sock_lowlevel")


def _present() -> list[str]:
    try:
        present = suite.available_modules()
    except suite.MissingTestPackage:
        return []
    return [name for name in suite.MODULES if name in present]


RUNS = [
    (kind, module)
    for kind in ("epoll", "poll", "select", "proactor")
    for module in _present()
    if kind in ("epoll", "proactor") or module not in EVERY_SELECTOR
]


def test_interpreter_has_its_own_tests() -> None:
    try:
        assert suite.available_modules()
    except suite.MissingTestPackage as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize(("kind", "module"), RUNS)
def test_module(kind: str, module: str) -> None:
    reason = _native.proactor_unavailable() if kind == "proactor" else None
    if reason is not None:
        pytest.skip(reason)
    command = [sys.executable, "-m", "tests.conformance", "--backend", kind, module]
    run = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        pytest.fail(f"{' '.join(command)}\n{run.stdout}", pytrace=False)
