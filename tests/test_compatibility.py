"""docs/compatibility.md: each difference on purpose, and each fault, is held by a test that exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")


def rows_of(title: str) -> list[list[str]]:
    """The rows of the table in a section."""
    section = TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in lines[2:]]


DIFFERENCES = rows_of("Differences on purpose")
WINDOWS = rows_of("Windows")
BSD = rows_of("macOS and FreeBSD")
FAULTS = rows_of("Faults seen elsewhere, and the tests that keep them out")


def test_there_are_rows() -> None:
    assert DIFFERENCES
    assert WINDOWS
    assert BSD
    assert FAULTS
    assert all(len(row) == 5 and all(row) for row in DIFFERENCES), (
        "what, asyncio, oxloop, why, test"
    )
    assert all(len(row) == 4 and all(row) for row in WINDOWS + BSD), (
        "chapter, asyncio, oxloop, tests"
    )
    assert all(len(row) == 2 and all(row) for row in FAULTS), "fault, tests"


@functools.cache
def names_in(path: str) -> frozenset[tuple[str, str]]:
    """The tests in a file, each with its class, and with none."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {("", node.name) for node in ast.walk(tree) if isinstance(node, functions)}
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef):
            found.update(
                (owner.name, node.name) for node in owner.body if isinstance(node, functions)
            )
    return frozenset(found)


@functools.cache
def names_in_the_engine() -> frozenset[str]:
    """The names of its tests, whichever system they are for."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "crates/engine").rglob("*.rs")]
    return frozenset(re.findall(r"#\[test\]\s+fn (\w+)", "\n".join(sources)))


@pytest.mark.parametrize("row", DIFFERENCES + WINDOWS + BSD + FAULTS, ids=lambda row: row[0][:40])
def test_row_names_its_test(row: list[str]) -> None:
    here = re.findall(r"`(tests/[\w./]+)::(?:(\w+)::)?(\w+)`", row[-1])
    engines = re.findall(r"`(\w+)` of the engine", row[-1])
    assert here or engines or row[-1].startswith("none: "), "which says why there is none"
    for path, owner, name in here:
        assert (owner, name) in names_in(path)
    assert set(engines) <= names_in_the_engine()
