"""What child processes of Windows have to themselves; the rest is in test_subprocess.py.

asyncio has none on its SelectorEventLoop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from support.children import python
from support.platforms import WINDOWS
from support.running import Run

pytestmark = pytest.mark.skipif(not WINDOWS, reason="for Windows")

PIPE = subprocess.PIPE


@pytest.mark.usefixtures("needs_pipes")
class TestProcesses:
    """The chapter: "Subprocesses are not supported" by the selector's loop."""

    @pytest.mark.parametrize("code", [0, 1, 255, 3221225786], ids=hex)
    def test_the_exit_code(self, run: Run, code: int) -> None:
        """It has 32 bits and no sign: STATUS_CONTROL_C_EXIT is 0xC000013A."""

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python(f"import ctypes; ctypes.windll.kernel32.ExitProcess({code})")
            )
            assert await process.wait() == code
            assert process.returncode == code

        run(main)

    @pytest.mark.parametrize("method", ["kill", "terminate"])
    def test_an_end_by_force(self, run: Run, method: str) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(*python("input()"), stdin=PIPE)
            getattr(process, method)()
            assert await process.wait() == 1  # as Popen says after TerminateProcess()
            with contextlib.suppress(ProcessLookupError):  # asyncio refuses it, subprocess does not
                getattr(process, method)()
            process.stdin.close()

        run(main)

    def test_keywords_of_popen(self, run: Run, tmp_path: Path) -> None:
        environment = {**os.environ, "OXLOOP": "a value"}
        source = "import os; print(os.getcwd()); print(os.environ['OXLOOP'])"

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python(source),
                stdout=PIPE,
                cwd=tmp_path,
                env=environment,
                creationflags=subprocess.CREATE_NO_WINDOW,  # type: ignore[attr-defined]
            )
            out, _ = await process.communicate()
            folder, value = out.decode().splitlines()
            assert Path(folder).samefile(tmp_path)
            assert value == "a value"

        run(main)

    def test_many_at_once(self, run: Run) -> None:
        async def one(number: int) -> int:
            process = await asyncio.create_subprocess_exec(
                *python(f"print({number}); raise SystemExit({number})"), stdout=PIPE
            )
            out, _ = await process.communicate()
            assert int(out) == number
            return int(process.returncode)  # type: ignore[arg-type]

        async def main() -> None:
            codes = await asyncio.gather(*map(one, range(8)))
            assert codes == list(range(8))

        run(main)
