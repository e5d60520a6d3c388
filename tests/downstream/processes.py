"""Servers as an operator runs them: processes that are started, asked, and ended by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, List, Sequence, Set, Tuple

from . import place, services
from .http_client import connected
from .place import soon, until

Address = Tuple[str, int]


async def serve_and_end(
    command: Sequence[str], number: int, *, workers: int = 1, all_shut_down: bool = True
) -> str:
    """Start a server of `application`, ask it things, end it by a signal; return what it printed.

    `{port}` in the command is a free port. The server must run on the loop under test, end its
    lifespans (not `all_shut_down`: of one worker at least), report no error and leave no child.
    """
    port = services.free_port()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "events")
        told.touch()
        process = await asyncio.create_subprocess_exec(
            *(word.format(port=port) for word in command),
            env={**place.environment(), "DOWNSTREAM_EVENTS": str(told)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = asyncio.ensure_future(process.stdout.read())  # type: ignore[union-attr]
        try:
            await until(lambda: len(_lines(told)) >= workers or process.returncode is not None)
            loops, pids = await _ask_about(("127.0.0.1", port), told)
            process.send_signal(number)
            code = await soon(process.wait())
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            text: str = (await soon(output)).decode()
            print(text, file=sys.stderr)
        assert loops == {place.loop_package()}, loops
        assert code in (0, -number, 128 + number), code
        for kind in ("lifespan.startup", "lifespan.shutdown"):
            done = sorted(pid for what, pid in _lines(told) if what == kind)
            assert done == sorted(pids) or (done and not all_shut_down), (kind, done, pids)
        assert "Traceback" not in text, text
        for pid in pids:
            assert not os.path.exists(f"/proc/{pid}"), "a worker is left"
    return text


def _lines(told: Path) -> List[List[str]]:
    return [line.split() for line in told.read_text(encoding="utf-8").splitlines()]


async def _ask_about(address: Address, told: Path) -> Tuple[Set[str], Set[str]]:
    """The loops on which the server says that it runs, and the processes that it consists of."""
    loops: Set[str] = set()
    pids = {pid for _, pid in _lines(told)}

    async def ask() -> Any:
        async with connected(*address) as client:
            return (await client.ask("/about")).json()

    await until(lambda: listens(address), "the server's socket")
    for about in await asyncio.gather(*[ask() for _ in range(20)]):
        loops.add(about["loop"])
        assert place.is_under_test(about["class"]), about
        assert str(about["pid"]) in pids
    return loops, pids


def listens(address: Address) -> bool:
    """Whether somebody listens there, by the kernel's table and not by a connection."""
    wanted = f"0100007F:{address[1]:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in table)


def python_m(module: str, *arguments: str) -> List[str]:
    """The command for a module that knows nothing of oxloop, on the loop under test."""
    start = [] if place.loop_package() == "asyncio" else ["-m", place.loop_package()]
    return place.python(*start, "-m", module, *arguments)
