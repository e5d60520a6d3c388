"""``python -m oxloop``: a program runs as ``python`` itself runs it, on oxloop's loops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.platforms import WINDOWS

#: The exit code of a KeyboardInterrupt: the signal, STATUS_CONTROL_C_EXIT on Windows.
INTERRUPTED = 0xC000013A if WINDOWS else -signal.SIGINT

REPORT = """
import asyncio, os, sys
async def main():
    return type(asyncio.get_running_loop())
kind = asyncio.run(main())
print(__name__, __file__, sys.argv, sys.path[0], __package__, __spec__ and __spec__.name, __doc__)
print(sys.modules["__main__"].__dict__ is globals(), sorted(k for k in globals() if k[0] != "_"))
print(kind.__module__.split(".")[0], file=sys.stderr)
"""


def python(*args: str, cwd: Path, options: tuple[str, ...] = ()) -> Any:
    return subprocess.run(
        [sys.executable, "-W", "error", *options, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "inner" / "script.py"
    path.parent.mkdir()
    path.write_text('"""Its docstring."""' + REPORT)
    return path


class TestLikePython:
    """The same program under ``python`` and under ``python -m oxloop`` prints the same."""

    def compare(self, *args: str, cwd: Path, options: tuple[str, ...] = ()) -> None:
        expected = python(*args, cwd=cwd, options=options)
        result = python("-m", "oxloop", *args, cwd=cwd, options=options)
        assert (result.returncode, result.stdout) == (expected.returncode, expected.stdout)
        assert (result.stderr, expected.stderr) == ("oxloop\n", "asyncio\n")

    def test_script(self, script: Path, tmp_path: Path) -> None:
        self.compare(str(script), "one", "-m", "--help", cwd=tmp_path)

    def test_relative_script(self, script: Path) -> None:
        self.compare("inner/script.py", cwd=script.parent.parent)

    @pytest.mark.unix("symbolic links")
    def test_linked_script(self, script: Path, tmp_path: Path) -> None:
        (tmp_path / "link.py").symlink_to(script)
        self.compare("link.py", cwd=tmp_path)

    def test_directory(self, script: Path, tmp_path: Path) -> None:
        script.rename(script.parent / "__main__.py")
        self.compare("inner", "one", cwd=tmp_path)

    def test_zip_file(self, script: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
            archive.write(script, "__main__.py")
        self.compare("program.zip", "one", cwd=tmp_path)

    def test_module(self, script: Path) -> None:
        self.compare("-m", "script", "one", "-c", cwd=script.parent)

    def test_package(self, script: Path, tmp_path: Path) -> None:
        script.rename(script.parent / "__main__.py")
        self.compare("-m", "inner", "one", cwd=tmp_path)

    def test_code(self, tmp_path: Path) -> None:
        self.compare("-c", "__file__ = None" + REPORT, "one", cwd=tmp_path)

    def test_isolated(self, script: Path, tmp_path: Path) -> None:
        result = python("-m", "oxloop", "inner/script.py", cwd=tmp_path, options=("-I",))
        if "No module named oxloop" in result.stderr:
            pytest.skip("oxloop is not installed, only on PYTHONPATH")
        self.compare("inner/script.py", cwd=tmp_path, options=("-I",))


class TestFailures:
    """A program that fails leaves the same exit code and the same traceback."""

    def compare(self, *args: str, cwd: Path) -> Any:
        expected = python(*args, cwd=cwd)
        result = python("-m", "oxloop", *args, cwd=cwd)
        assert (result.returncode, result.stdout) == (expected.returncode, expected.stdout)
        assert result.stderr == expected.stderr
        return result

    @pytest.mark.parametrize(
        "source",
        [
            "def f():\n    raise LookupError('mine')\nf()\n",
            "raise KeyboardInterrupt\n",
            "import sys; sys.exit(7)\n",
            "import sys; sys.exit('a message')\n",
            "raise SystemExit\n",
            "this is not Python\n",
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise LookupError from None\n",
            "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise LookupError from e\n",
            "import nonexistent_module\n",
            "import atexit; atexit.register(print, 'the end'); raise OSError(2, 'x')\n",
            "import sys\nsys.excepthook = lambda *a: print('hook', a[0], a[2].tb_lineno)\n1 / 0\n",
        ],
    )
    def test_same_as_python(self, source: str, tmp_path: Path) -> None:
        (tmp_path / "failing.py").write_text(source)
        self.compare(str(tmp_path / "failing.py"), cwd=tmp_path)
        self.compare("-m", "failing", cwd=tmp_path)

    def test_exit_code_of_interrupt(self, tmp_path: Path) -> None:
        (tmp_path / "failing.py").write_text("raise KeyboardInterrupt\n")
        assert self.compare("failing.py", cwd=tmp_path).returncode == INTERRUPTED

    def test_code(self, tmp_path: Path) -> None:
        self.compare("-c", "1 / 0", cwd=tmp_path)

    def test_missing_file(self, tmp_path: Path) -> None:
        result = self.compare("missing.py", cwd=tmp_path)
        assert result.returncode == 2
        assert "No such file or directory" in result.stderr

    def test_missing_module(self, tmp_path: Path) -> None:
        assert self.compare("-m", "missing_module", cwd=tmp_path).returncode == 1

    def test_exit_from_a_coroutine(self, tmp_path: Path) -> None:
        source = "import asyncio, sys\nasync def main():\n    sys.exit(7)\nasyncio.run(main())\n"
        (tmp_path / "exiting.py").write_text(source)
        assert self.compare("exiting.py", cwd=tmp_path).returncode == 7


class TestMainModule:
    def test_pickle_and_processes(self, tmp_path: Path) -> None:
        (tmp_path / "spawning.py").write_text(
            "import multiprocessing, pickle, atexit\n"
            "class Mine:\n    pass\n"
            "def double(x):\n    return 2 * x\n"
            "if __name__ == '__main__':\n"
            "    atexit.register(lambda: pickle.loads(pickle.dumps(Mine())))\n"
            "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "        print(pool.map(double, [1, 2]))\n"
            "        pool.close()\n"
            "        pool.join()\n"
        )
        result = python("-m", "oxloop", "spawning.py", cwd=tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, "[2, 4]\n", "")

    def test_compiled_script(self, tmp_path: Path) -> None:
        import py_compile

        source = tmp_path / "script.py"
        source.write_text("print(__name__)\n")
        py_compile.compile(str(source), cfile=str(tmp_path / "compiled.pyc"))
        result = python("-m", "oxloop", "compiled.pyc", cwd=tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, "__main__\n", "")


class TestCommands:
    def test_info(self, oxloop: Any, tmp_path: Path) -> None:
        result = python("-m", "oxloop", "info", cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert lines[0] == f"oxloop {oxloop.__version__}"
        rows: dict[str, str] = {}
        for line in lines:
            if " " in line[1:]:
                rows.setdefault(*line.split(maxsplit=1))
        for name in sys.modules["oxloop._native"].selectors_available():
            assert rows[name].startswith("yes")
        for name in {"epoll", "kqueue", "poll", "select"}.difference(
            sys.modules["oxloop._native"].selectors_available()
        ):
            assert rows[name].startswith("no: ")
        reason = sys.modules["oxloop._native"].proactor_unavailable()
        here = "yes" if reason is None else f"no: {reason}"
        if WINDOWS:
            assert (
                rows["iocp"] == "yes, the default"
            )  # of the selector loop; the proactor's is below
            assert lines[-2].split(maxsplit=1) == ["iocp", here]
            assert rows["io_uring"].startswith("no: ")
            assert rows["default"] == "loop  ProactorEventLoop"
        else:
            assert rows["io_uring"] == here
            assert rows["iocp"].startswith("no: ")
            assert rows["default"] == "loop  SelectorEventLoop"

    def test_version(self, oxloop: Any, tmp_path: Path) -> None:
        result = python("-m", "oxloop", "--version", cwd=tmp_path)
        assert (result.returncode, result.stdout) == (0, f"oxloop {oxloop.__version__}\n")

    def test_help(self, tmp_path: Path) -> None:
        result = python("-m", "oxloop", "--help", cwd=tmp_path)
        assert result.returncode == 0
        assert result.stdout.startswith("usage: python -m oxloop script.py")

    @pytest.mark.parametrize("args", [(), ("-m",), ("-c",), ("--unknown",), ("-x", "script.py")])
    def test_wrong_use(self, args: tuple[str, ...], tmp_path: Path) -> None:
        result = python("-m", "oxloop", *args, cwd=tmp_path)
        assert result.returncode == 2
        assert result.stdout == ""
        assert "usage: python -m oxloop" in result.stderr


def test_environment_is_not_touched(tmp_path: Path) -> None:
    source = "import json, os; print(json.dumps(dict(os.environ), sort_keys=True))"
    expected = python("-c", source, cwd=tmp_path)
    result = python("-m", "oxloop", "-c", source, cwd=tmp_path)
    assert json.loads(result.stdout)["PATH"] == os.environ["PATH"]
    assert result.stdout == expected.stdout
