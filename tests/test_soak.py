"""The lifecycles of the soak, each of them a few times: nothing is left behind, nothing goes unreported.

`make soak` runs them for an hour, at random and several at once.
"""

from __future__ import annotations

import pytest
from soak.spree import LIFECYCLES
from support.backends import Backend
from support.children import run_python

GROUPS = sorted({kind.group for kind in LIFECYCLES.values()})


@pytest.mark.parametrize("group", GROUPS)
def test_lifecycles(backend: Backend, group: str) -> None:
    # asyncio's own loops may leave something behind when they are left with things in flight.
    source = (
        f"{backend.source}\n"
        "from soak.brief import main\n"
        f"main(new_loop, {group!r}, leaves={not backend.is_oracle})\n"
    )
    child = run_python(source)
    assert (child.stdout, child.returncode) == ("", 0), child.stdout + child.stderr
