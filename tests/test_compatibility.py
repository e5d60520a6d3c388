"""docs/compatibility.md: each difference on purpose, and each fault, is held by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")


def rows_of(title: str) -> list[list[str]]:
    """The rows of the table in a section."""
    section = TEXT.partition(f"## {title}")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and "`tests/" in line]
    return [re.split(r"\s*\|\s*", line)[1:-1] for line in rows]


DIFFERENCES = rows_of("Differences on purpose")
WINDOWS = rows_of("Windows")
BSD = rows_of("macOS and FreeBSD")
FAULTS = rows_of("Faults seen elsewhere")


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


@pytest.mark.parametrize("row", DIFFERENCES + WINDOWS + BSD + FAULTS, ids=lambda row: row[0][:40])
def test_row_names_its_test(row: list[str]) -> None:
    references = re.findall(r"`(tests/[\w./]+)(?:::\w+)?::(\w+)`", row[-1])
    assert references
    for path, name in references:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(?:async )?def {name}\(", source, re.MULTILINE), name
