"""How a test ended, and what it takes to run one in the process that is there."""

from __future__ import annotations

import enum
import gc
import importlib
import unittest
import warnings
from dataclasses import dataclass


class Ending(enum.Enum):
    """How a test's process ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    TIMED_OUT = "timed out"
    DIED = "died"


@dataclass(frozen=True)
class Outcome:
    """One finished test."""

    name: str
    backend: str
    ending: Ending
    seconds: float
    output: str

    @property
    def crashed(self) -> bool:
        """Died by a signal or an exit of its own, or a panic showed up somewhere in its output."""
        return self.ending is Ending.DIED or "panicked at" in self.output


def run_here(test: unittest.TestCase) -> Ending:
    """Run `test`, and print what it failed of."""
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
    altered = bool(getattr(support, "environment_altered", False))
    support.environment_altered = False  # type: ignore[attr-defined]
    return altered
