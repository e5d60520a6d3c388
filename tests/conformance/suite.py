"""The interpreter's own tests: which modules there are, and the test cases in them."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import os
import sys
import unittest
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = "test.test_asyncio"

#: Modules whose tests run on oxloop; those that a Python version does not have are left out there.
MODULES = (
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_futures",
    "test_free_threading",
    "test_futures2",
    "test_graph",
    "test_locks",
    "test_pep492",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_server_context",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_waitfor",
    *(("test_windows_events", "test_windows_utils") if os.name == "nt" else ("test_unix_events",)),
)


class MissingTestPackage(Exception):
    """This interpreter was installed without its own tests."""

    def __str__(self) -> str:
        version = "{}.{}".format(*sys.version_info)
        return (
            f"{sys.executable} (Python {version}) came without CPython's own tests ({PACKAGE}), "
            "which the conformance run needs. Debian and Ubuntu have them in "
            f"libpython{version}-testsuite, Fedora in python3-test; a Python built by pyenv or "
            "from python.org's source brings them along."
        )


def available_modules() -> list[str]:
    """The names of the ``test_*`` modules of this interpreter's ``test.test_asyncio``."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise MissingTestPackage
    folder = Path(spec.submodule_search_locations[0])
    return sorted(path.stem for path in folder.glob("test_*.py"))


def load(modules: Iterable[str], left_out: Iterable[str] = ()) -> dict[str, unittest.TestCase]:
    """The test cases of `modules` by name (``test_locks.LockTests.test_repr``), in order.

    Those that `left_out` names, by class or by a pattern as of `fnmatch`, are not among them.
    """
    loader = unittest.TestLoader()
    tests: dict[str, unittest.TestCase] = {}
    for module in modules:
        suite = loader.loadTestsFromModule(importlib.import_module(f"{PACKAGE}.{module}"))
        for test in _flatten(suite):
            name = test.id()[len(PACKAGE) + 1 :]
            if not any(is_within(name, pattern) for pattern in left_out):
                tests[name] = test
    if loader.errors:
        raise ImportError("\n".join(map(str, loader.errors)))
    return tests


def is_within(name: str, pattern: str) -> bool:
    """Whether `pattern` (of `fnmatch`, or a module or class) names the test `name`."""
    return name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


def _flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flatten(item)
        else:
            yield item
