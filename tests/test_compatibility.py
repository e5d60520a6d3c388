"""docs/compatibility.md: each difference on purpose is held by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
SECTION = TEXT.partition("## Differences on purpose")[2].partition("\n## ")[0]
ROWS = [re.split(r"\s*\|\s*", line)[1:-1] for line in SECTION.splitlines() if "| `" in line]


def test_there_are_rows() -> None:
    assert ROWS
    assert all(len(row) == 5 and all(row) for row in ROWS), "what, asyncio, oxloop, why, test"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_row_names_its_test(row: list[str]) -> None:
    references = re.findall(r"`(tests/[\w./]+)(?:::\w+)?::(\w+)`", row[-1])
    assert references
    for path, name in references:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(?:async )?def {name}\(", source, re.MULTILINE), name
