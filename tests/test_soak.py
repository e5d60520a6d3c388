"""The lifecycles of the soak, each of them a few times: nothing is left behind, nothing goes unreported.

`make soak` runs them for an hour, at random and several at once.
"""

from __future__ import annotations

import pytest

pytest.importorskip("pty", reason="the lifecycles use Unix: pseudo terminals, limits, signals")

from soak.holdings import Holdings, growth  # noqa: E402
from soak.spree import LIFECYCLES  # noqa: E402
from support.backends import GIL, Backend  # noqa: E402
from support.children import run_python  # noqa: E402

GROUPS = sorted({kind.group for kind in LIFECYCLES.values()})


@pytest.mark.parametrize("group", GROUPS)
def test_lifecycles(backend: Backend, group: str) -> None:
    if backend.is_oracle and not GIL and group == "shortages":
        pytest.skip("asyncio's finalizer of a loop may find its sockets gone, and complains")
    # asyncio's own loops may leave something behind when they are left with things in flight.
    source = (
        f"{backend.source}\n"
        "from soak.brief import main\n"
        f"main(new_loop, {group!r}, leaves={not backend.is_oracle})\n"
    )
    child = run_python(source)
    assert (child.stdout, child.returncode) == ("", 0), child.stdout + child.stderr


FAULTY = """
import os
from soak.brief import main
from soak.lifecycle import Injected, Round, lifecycle

kept = []

@lifecycle()
async def keeps_objects(round_: Round) -> None:
    kept.append([])

@lifecycle()
async def keeps_descriptors(round_: Round) -> None:
    os.dup(0)

@lifecycle()
async def is_not_reported(round_: Round) -> None:
    try:
        round_.fail(interrupts=0)
    except Injected:
        pass

@lifecycle()
async def is_reported(round_: Round) -> None:
    round_.loop.call_exception_handler({"message": "oh", "exception": OSError()})

@lifecycle()
async def fails(round_: Round) -> None:
    raise LookupError

@lifecycle()
async def is_fine(round_: Round) -> None:
    round_.loop.call_soon(round_.bound(id, 1), None)
    await round_.turns()

main(new_loop, "__main__", leaves=False)
"""


def test_faults_are_found(backend: Backend) -> None:
    child = run_python(backend.source + FAULTY)
    assert child.returncode == 0, child.stderr
    for expected in (
        "keeps_objects: ['objects +[",
        "keeps_descriptors: ['descriptors +[",
        "10 errors raised, 0 reported",
        "reported: {'message': 'oh', 'exception': OSError()}",
        "fails (seed ",
    ):
        assert expected in child.stdout
    assert "is_fine" not in child.stdout


def test_what_grows_over_time_is_found() -> None:
    flat = [Holdings(*[1_000_000 + number % 3 for _ in Holdings._fields]) for number in range(40)]
    steady = [held._replace(descriptors=6, sockets=2, threads=1, children=0) for held in flat]
    assert growth(steady) == {}
    leaking = [held._replace(descriptors=6 + at // 20) for at, held in enumerate(steady)]
    assert growth(leaking) == {"descriptors": (6, 7)}
    warming = [held._replace(objects=min(at, 10) * 100_000) for at, held in enumerate(steady)]
    assert growth(warming) == {}
    swelling = [held._replace(resident=at << 20) for at, held in enumerate(steady)]
    assert list(growth(swelling)) == ["resident"]
