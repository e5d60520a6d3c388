"""The types: the stub agrees with the native module, and a typed program sees typed loops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

ROOT = Path(__file__).parents[1]
ALLOWED = ROOT / "tests/stubtest-allowlist.txt"

PROGRAM = """
import asyncio
import oxloop

async def main() -> str:
    await asyncio.sleep(0)
    return "done"

reveal_type(oxloop.run(main()))
reveal_type(oxloop.new_event_loop())
loop = oxloop.SelectorEventLoop()
reveal_type(loop.call_soon(print))
reveal_type(loop.run_until_complete(main()))
reveal_type(loop.time())
asyncio.set_event_loop_policy(oxloop.DefaultEventLoopPolicy())
oxloop.run(main(), debug=True, loop_factory=oxloop.new_event_loop)
oxloop.run(main(), loop_factory=oxloop.SelectorEventLoop)
oxloop.run(main(), loop_factory=oxloop.ProactorEventLoop)
oxloop.set_event_loop_policy(oxloop.DefaultEventLoopPolicy(loop_factory=oxloop.ProactorEventLoop))
reveal_type(oxloop.ProactorEventLoop(oxloop.IoUringProactor(entries=8)).time())
"""


def mypy(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # mypy's cache, kept between runs: without it each run reads all of typeshed.
    environment = {**os.environ, "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    return subprocess.run(
        [sys.executable, "-m", *args], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="its mypy knows less of the interpreter")
def test_stub_is_the_native_module(tmp_path: Path) -> None:
    result = mypy("mypy.stubtest", "oxloop", "--allowlist", str(ALLOWED), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_typed_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    result = mypy("mypy", "--strict", "program.py", cwd=tmp_path)
    types = [line.split('"')[1] for line in result.stdout.splitlines() if "Revealed" in line]
    names = [name.replace("builtins.", "") for name in types]
    assert names == [
        "str",
        "asyncio.events.AbstractEventLoop",
        "asyncio.events.Handle",
        "str",
        "float",
        "float",
    ], result.stdout
    assert result.returncode == 0, result.stdout


def test_wrong_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import oxloop\noxloop.run(1)\n")
    result = mypy("mypy", "--strict", "program.py", cwd=tmp_path)
    assert result.returncode == 1
    assert '"run"' in result.stdout
