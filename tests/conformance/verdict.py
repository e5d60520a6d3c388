"""Whether an outcome is what the lists say it should be; asyncio itself is asked where they do not.

Strict both ways: a listed test that passes is as wrong as an unlisted one that fails. A test that
is not listed and fails or is skipped runs once more on stdlib asyncio: only if the same happens
there (no IPv6 on this machine, a test for Windows) is it no concern of oxloop's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .expectations import WINE_ORACLE
from .outcome import Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from .expectations import Expectation
    from .outcome import Outcome


@dataclass(frozen=True)
class Verdict:
    """`category` is what the summary counts; `fault` says what is wrong, if anything is."""

    category: str
    fault: str | None = None


def needs_oracle(outcome: Outcome, line: Expectation | None) -> bool:
    """Whether `judge` asks what asyncio itself makes of the test."""
    if outcome.crashed:
        return False
    if line is not None:
        return outcome.ending is Ending.SKIPPED
    return outcome.ending is not Ending.PASSED and outcome.backend != "asyncio"


def judge(outcome: Outcome, line: Expectation | None, oracle: Callable[[str], Outcome]) -> Verdict:
    """Compare `outcome` with the `line` that covers the test, or with what `oracle` makes of it."""
    if outcome.crashed:
        return Verdict("crashed", f"{outcome.ending.value}; nothing excuses a crash")
    if line is not None:
        return _judge_listed(outcome, line, oracle)
    if outcome.ending is Ending.PASSED:
        return Verdict("passed")
    if outcome.backend == "asyncio":
        failed = outcome.ending is not Ending.SKIPPED
        return Verdict(outcome.ending.value, "fails on asyncio itself" if failed else None)
    reference = oracle(outcome.name)
    if reference.ending is outcome.ending:
        return Verdict(f"{outcome.ending.value} on asyncio too")
    return Verdict(
        "unexpected", f"{outcome.ending.value} here, {reference.ending.value} on asyncio"
    )


def _judge_listed(outcome: Outcome, line: Expectation, oracle: Callable[[str], Outcome]) -> Verdict:
    if outcome.ending is Ending.PASSED:
        return Verdict("unexpected", f"passes now: remove it from {line.where}")
    if outcome.ending is Ending.TIMED_OUT and line.kind != WINE_ORACLE:
        return Verdict("unexpected", f"hangs, where {line.where} expects it to fail")
    if outcome.ending is Ending.SKIPPED and oracle(outcome.name).ending is Ending.SKIPPED:
        return Verdict("skipped on asyncio too")
    return Verdict(f"listed as {line.kind}")
