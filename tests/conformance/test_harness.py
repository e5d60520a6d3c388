"""The conformance harness itself: a run that cannot fail would say nothing."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import unittest
from typing import TYPE_CHECKING

import pytest

import oxloop
from oxloop import _native

from . import expectations
from .expectations import BadExpectation, Expectation, Expectations
from .outcome import Ending, Outcome
from .pool import Pool
from .verdict import judge, needs_oracle

if TYPE_CHECKING:
    from pathlib import Path


class Sample(unittest.TestCase):
    """What a test can do to the process it runs in; run by `Pool` only."""

    __test__ = False

    def passes(self) -> None:
        print("seen only if asked for")

    def fails(self) -> None:
        self.fail("this one fails")

    def fails_in_a_subtest(self) -> None:
        with self.subTest(part=1):
            self.fail()

    def is_skipped(self) -> None:
        self.skipTest("not today")

    def hangs(self) -> None:
        signal.pause()

    def hangs_and_resists(self) -> None:
        signal.signal(signal.SIGABRT, signal.SIG_IGN)
        while True:
            signal.pause()

    def crashes(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def exits(self) -> None:
        os._exit(0)

    def has_loops_of_oxloop(self) -> None:
        self.has_loops_of(oxloop.SelectorEventLoop)

    def has_proactors_of_oxloop(self) -> None:
        self.has_loops_of(oxloop.ProactorEventLoop)
        selector = selectors.SelectSelector()
        asyncio.SelectorEventLoop(selector).close()
        assert selector.get_map() is None, "it is closed"

    def has_loops_of(self, kind: type[asyncio.AbstractEventLoop]) -> None:
        for make in (asyncio.new_event_loop, asyncio.SelectorEventLoop, asyncio.BaseEventLoop):
            loop = make()
            assert isinstance(loop, kind)
            loop.close()
        assert isinstance(asyncio.run(running_loop()), kind)

    def has_loops_of_asyncio(self) -> None:
        assert type(asyncio.run(running_loop())).__module__ == "asyncio.unix_events"


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def run_sample(method: str, limit: float = 60.0, backend: str = "asyncio") -> Outcome:
    (outcome,) = Pool({method: Sample(method)}, workers=1, limit=limit).run([method], backend)
    return outcome


@pytest.mark.parametrize(
    ("method", "ending"),
    [
        ("passes", Ending.PASSED),
        ("fails", Ending.FAILED),
        ("fails_in_a_subtest", Ending.FAILED),
        ("is_skipped", Ending.SKIPPED),
        ("crashes", Ending.DIED),
        ("exits", Ending.DIED),
    ],
)
def test_each_ending_is_told_from_the_others(method: str, ending: Ending) -> None:
    assert run_sample(method).ending is ending


def test_output_is_kept() -> None:
    assert "seen only if asked for" in run_sample("passes").output
    assert "this one fails" in run_sample("fails").output


def test_hanging_test_is_ended_and_shows_where_it_stands() -> None:
    outcome = run_sample("hangs", limit=0.5)
    assert outcome.ending is Ending.TIMED_OUT
    assert "in hangs" in outcome.output


def test_test_that_ignores_the_first_signal_is_killed() -> None:
    assert run_sample("hangs_and_resists", limit=0.1).ending is Ending.TIMED_OUT


def test_all_tests_run_whatever_the_number_of_workers() -> None:
    methods = ["passes", "fails", "is_skipped", "exits"]
    outcomes = Pool({name: Sample(name) for name in methods}, 3, 60.0).run(methods, "asyncio")
    assert sorted(outcome.name for outcome in outcomes) == sorted(methods)


@pytest.mark.parametrize("selector", ["epoll", "poll", "select"])
def test_loops_are_those_of_the_backend(selector: str) -> None:
    outcome = run_sample("has_loops_of_oxloop", backend=selector)
    assert outcome.ending is Ending.PASSED, outcome.output


@pytest.mark.skipif(_native.proactor_unavailable() is not None, reason="there is no proactor here")
def test_loops_are_proactors() -> None:
    outcome = run_sample("has_proactors_of_oxloop", backend="proactor")
    assert outcome.ending is Ending.PASSED, outcome.output


def test_oracle_is_left_alone() -> None:
    assert run_sample("has_loops_of_asyncio").ending is Ending.PASSED


def outcome(ending: Ending, output: str = "", backend: str = "epoll") -> Outcome:
    return Outcome("test_x.X.test_x", backend, ending, 0.1, output)


LISTED = Expectation("differs", "test_x.*", "TLS", "differs.txt:1")


@pytest.mark.parametrize(
    ("here", "listed", "reference", "is_fault"),
    [
        (Ending.PASSED, False, Ending.PASSED, False),
        (Ending.FAILED, False, Ending.PASSED, True),
        (Ending.FAILED, False, Ending.FAILED, False),
        (Ending.TIMED_OUT, False, Ending.PASSED, True),
        (Ending.SKIPPED, False, Ending.PASSED, True),
        (Ending.SKIPPED, False, Ending.SKIPPED, False),
        (Ending.DIED, False, Ending.DIED, True),
        (Ending.PASSED, True, Ending.PASSED, True),
        (Ending.FAILED, True, Ending.PASSED, False),
        (Ending.SKIPPED, True, Ending.PASSED, False),
        (Ending.TIMED_OUT, True, Ending.PASSED, True),
        (Ending.DIED, True, Ending.PASSED, True),
    ],
)
def test_verdict(here: Ending, listed: bool, reference: Ending, is_fault: bool) -> None:
    line = LISTED if listed else None
    asked = []

    def oracle(name: str) -> Outcome:
        asked.append(name)
        return outcome(reference, backend="asyncio")

    verdict = judge(outcome(here), line, oracle)
    assert (verdict.fault is not None) is is_fault
    assert bool(asked) is needs_oracle(outcome(here), line)


def test_panic_is_a_fault_though_the_test_passes() -> None:
    panicked = outcome(Ending.PASSED, "thread '<unnamed>' panicked at src/turn.rs:1:1")
    assert judge(panicked, None, lambda _: panicked).fault is not None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(expectations, "FOLDER", tmp_path)
    for kind in expectations.KINDS:
        (tmp_path / f"{kind}.txt").touch()
    return tmp_path


def test_lines_are_read_for_their_versions(folder: Path) -> None:
    (folder / "differs.txt").write_text(
        "# a comment\n\n"
        "test_a.*  TLS and more\n"
        "test_b.*  [<3.12]  UDP\n"
        "test_c.*  [>=3.11.4,<3.13]  pipes\n"
        "test_d.*  [==3.9]  pipes\n"
    )

    def modules(*version: int) -> list[str]:
        return [line.module for line in expectations.read("differs", version)]

    assert modules(3, 9, 18) == ["test_a", "test_b", "test_d"]
    assert modules(3, 11, 2) == ["test_a", "test_b"]
    assert modules(3, 11, 4) == ["test_a", "test_b", "test_c"]
    assert modules(3, 12, 0) == ["test_a", "test_c"]
    assert modules(3, 13, 0) == ["test_a"]
    assert expectations.read("differs", (3, 9, 18))[0].reason == "TLS and more"


@pytest.mark.parametrize("line", ["test_a.*", "test_a.* [3.9] TLS", "test_a.* [<3] TLS"])
def test_line_that_cannot_be_read_is_refused(folder: Path, line: str) -> None:
    (folder / "differs.txt").write_text(line)
    with pytest.raises(BadExpectation, match=r"differs\.txt:1"):
        expectations.read("differs", (3, 9, 18))


def test_stale_and_doubled_lines_are_faults(folder: Path) -> None:
    (folder / "differs.txt").write_text("test_a.A.test_gone TLS\ntest_a.A.test_is* TLS\n")
    (folder / "white_box.txt").write_text("test_a.A.test_is_here mocks\ntest_b.B.test mocks\n")
    faults = Expectations("epoll").check(["test_a.A.test_is_here"], ["test_a"])
    assert len(faults) == 2
    assert "differs.txt:1" in faults[0]
    assert "listed more than once: white_box.txt:1, differs.txt:2" in faults[1]


def test_nothing_is_expected_of_asyncio_but_to_pass(folder: Path) -> None:
    (folder / "differs.txt").write_text("test_a.* TLS\n")
    assert Expectations("asyncio").find("test_a.A.test") is None
    assert Expectations("epoll").find("test_a.A.test") is not None
