"""``python -m tests.conformance [pattern ...]``: CPython's own asyncio tests, on oxloop."""

from __future__ import annotations

import argparse
import collections
import gc
import os
import sys
from typing import TYPE_CHECKING

from . import backends, suite
from .expectations import NOT_RUN, BadExpectation, Expectations, read
from .outcome import Outcome
from .verdict import Verdict, judge, needs_oracle

if TYPE_CHECKING:
    import unittest
    from collections.abc import Iterable

    from .batch import Batches
    from .pool import Pool


def main(arguments: list[str] | None = None) -> int:
    """Run the tests that the command line names; 0 if all of them ended as they should."""
    options = _parser().parse_args(arguments)
    os.environ.pop("PYTHONASYNCIODEBUG", None)  # the tests set debug mode themselves
    try:
        return _run(options)
    except (suite.MissingTestPackage, BadExpectation) as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--backend", choices=backends.BACKENDS, default=backends.BACKENDS[1])
    parser.add_argument("--workers", type=int, default=2, help="tests run at the same time")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a test may take")
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("--show", action="store_true", help="print the output of every test")
    parser.add_argument(
        "--slowest", type=int, default=0, help="name that many of the slowest tests"
    )
    parser.add_argument(
        "patterns", nargs="*", help="modules, or test names as of fnmatch (default: all)"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    present = suite.available_modules()
    left_out = [line.pattern for line in read(NOT_RUN)]
    faults = _check_modules(present, left_out)
    modules = _modules_for(options.patterns, [name for name in suite.MODULES if name in present])
    tests = suite.load(modules, left_out)
    chosen = [
        name
        for name in tests
        if not options.patterns or any(suite.is_within(name, it) for it in options.patterns)
    ]
    if options.list:
        print("\n".join(chosen))
        return 0
    if not chosen:
        faults.append(f"no test is called {' or '.join(options.patterns)}")
    if options.backend != "asyncio":
        import oxloop  # once, before the children are forked

        print(f"oxloop {oxloop.__version__} from {os.path.dirname(oxloop.__file__)}", flush=True)
    expectations = Expectations(options.backend)
    faults += expectations.check(tests, modules)
    faults += _run_tests(tests, chosen, expectations, options)
    for fault in faults:
        print(f"ERROR: {fault}")
    return 1 if faults else 0


def _check_modules(present: Iterable[str], left_out: Iterable[str]) -> list[str]:
    unknown = set(present) - set(suite.MODULES) - set(left_out)
    return [f"{name} is in neither suite.MODULES nor {NOT_RUN}.txt" for name in sorted(unknown)]


def _modules_for(patterns: list[str], modules: list[str]) -> list[str]:
    if not patterns or any("*" in pattern.split(".")[0] for pattern in patterns):
        return modules
    wanted = {pattern.split(".")[0] for pattern in patterns}
    return [name for name in modules if name in wanted]


def _run_tests(
    tests: dict[str, unittest.TestCase],
    chosen: list[str],
    expectations: Expectations,
    options: argparse.Namespace,
) -> list[str]:
    gc.freeze()  # shared with the children, and not looked through in each of them
    pool = _pool(tests, options)
    outcomes = list(_with_progress(pool.run(chosen, options.backend), len(chosen)))
    asked = [it.name for it in outcomes if needs_oracle(it, expectations.find(it.name))]
    references = {it.name: it for it in pool.run(asked, "asyncio")}
    faults = []
    categories: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        verdict = judge(outcome, expectations.find(outcome.name), references.__getitem__)
        categories[verdict.category] += 1
        if verdict.fault is not None:
            faults.append(f"{outcome.name}: {verdict.fault}")
        if verdict.fault is not None or options.show:
            _show(outcome, verdict)
    _summarize(outcomes, categories, options)
    return faults


def _pool(tests: dict[str, unittest.TestCase], options: argparse.Namespace) -> Pool | Batches:
    """What runs the tests: a forked process for each of them where there is such a thing."""
    if not hasattr(os, "fork"):
        from .batch import Batches

        return Batches(tests, options.workers, options.limit)
    from .pool import Pool

    return Pool(tests, options.workers, options.limit)


def _with_progress(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
    for done, outcome in enumerate(outcomes, 1):
        yield outcome
        if sys.stdout.isatty():
            print(f"\r{done}/{total}", end="" if done < total else "\n", flush=True)


def _show(outcome: Outcome, verdict: Verdict) -> None:
    print(f"--- {outcome.name} on {outcome.backend}: {verdict.fault or verdict.category}")
    print(outcome.output.strip())


def _summarize(
    outcomes: list[Outcome], categories: collections.Counter[str], options: argparse.Namespace
) -> None:
    for outcome in sorted(outcomes, key=lambda it: -it.seconds)[: options.slowest]:
        print(f"{outcome.seconds:7.2f} s  {outcome.name}")
    counts = ", ".join(f"{count} {category}" for category, count in categories.most_common())
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"CPython {version} on {options.backend}: {len(outcomes)} tests: {counts}")


if __name__ == "__main__":
    sys.exit(main())
