"""Children: many at the same time, on kernels without pidfd, and every keyword of `Popen`."""

from __future__ import annotations

import asyncio
import errno
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Callable, Dict, List, Tuple

import pytest
from support.backends import PY310, PY311, Backend
from support.children import run_python
from support.platforms import WINDOWS
from support.running import Run
from support.seccomp import FORBID, PIDFD_OPEN

PIPE = subprocess.PIPE

pytestmark = [
    pytest.mark.unix("/bin/sh, zombies, users and groups"),
    pytest.mark.usefixtures("leaves_no_zombie"),
]


class TestMany:
    """Children that live and end at the same time."""

    def test_a_thousand_that_end_at_once(self, run: Run, backend: Backend) -> None:
        """All are alive before the first one ends; each exit code arrives where it belongs."""
        total = 1000 if backend.name in ("epoll", "proactor") else 200

        async def main() -> None:
            reader, writer = os.pipe()
            try:
                processes = [
                    await asyncio.create_subprocess_exec(
                        "/bin/sh", "-c", f"read line; exit {number % 251}", stdin=reader
                    )
                    for number in range(total)
                ]
                assert all(process.returncode is None for process in processes)
            finally:
                os.close(reader)
                os.close(writer)  # the end of the file that all of them wait for
            codes = await asyncio.gather(*(process.wait() for process in processes))
            assert codes == [number % 251 for number in range(total)]

        run(main)

    def test_hundreds_that_are_killed_at_once(self, run: Run, backend: Backend) -> None:
        total = 300 if backend.name in ("epoll", "proactor") else 50

        async def main() -> None:
            processes = [
                await asyncio.create_subprocess_exec("/bin/cat", stdin=PIPE, stdout=PIPE)
                for _ in range(total)
            ]
            for number, process in enumerate(processes):
                process.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
            results = await asyncio.gather(*(process.communicate() for process in processes))
            assert results == [(b"", None)] * total
            codes = [process.returncode for process in processes]
            assert codes == [-signal.SIGTERM, -signal.SIGKILL] * (total // 2)

        run(main)

    def test_while_others_are_started(self, run: Run) -> None:
        """Ends are noticed between starts, and none is taken for another's."""

        async def one(number: int) -> int:
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {number}")
            return await process.wait()

        async def main() -> None:
            codes = await asyncio.gather(*(one(number) for number in range(200)))
            assert codes == list(range(200))

        run(main)


class TestWithoutPidfds:
    """The system call is not there (Linux before 5.3), or a sandbox forbids it."""

    @pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
    def test_no_exit_is_lost(self, backend: Backend, error: str) -> None:
        if backend.is_oracle:
            pytest.skip("its default is decided by the version of Python")
        number = getattr(errno, error)
        source = f"""
{FORBID}
{backend.source}
import asyncio, subprocess, threading
try:
    forbid({PIDFD_OPEN}, {number})
except OSError as refused:
    raise SystemExit(f"SKIP {{refused}}")
try:
    os.pidfd_open(os.getpid())
except OSError as refused:
    assert refused.errno == {number}
except AttributeError:
    pass
else:
    raise AssertionError("it is there")
async def at_once(total):
    reader, writer = os.pipe()
    processes = [
        await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"read line; exit {{number}}", stdin=reader
        )
        for number in range(total)
    ]
    os.close(reader)
    os.close(writer)
    codes = await asyncio.gather(*(process.wait() for process in processes))
    assert codes == list(range(total)), codes
async def with_output(number):
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", f"echo {{number}}; exit {{number}}", stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (int(out), process.returncode) == (number, number)
async def killed():
    process = await asyncio.create_subprocess_exec("/bin/cat", stdin=subprocess.PIPE)
    process.kill()
    assert await process.wait() == -9
async def main():
    await at_once(100)
    await asyncio.gather(*(with_output(number) for number in range(50)))
    await killed()
loop = new_loop()
loop.run_until_complete(main())
loop.close()
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
try:
    print("left", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("none is left")
"""
        result = run_python(source, options=["-W", "error"])
        if result.stderr.startswith("SKIP"):
            pytest.skip(result.stderr)
        assert (result.returncode, result.stdout) == (0, "none is left\n"), result.stderr


# What a child says of itself, by keyword: the keywords, the command, and what it prints.
Case = Tuple[Dict[str, Any], List[str], str]
IS_ROOT = not WINDOWS and os.getuid() == 0
NOBODY = 65534
USER, GROUP = (NOBODY, NOBODY) if IS_ROOT or WINDOWS else (os.getuid(), os.getgid())


def python(keywords: Dict[str, Any], expression: str, expected: object) -> Case:
    source = f"import os, sys; print({expression})"
    return keywords, [sys.executable, "-S", "-c", source], f"{expected}\n"


def shell(keywords: Dict[str, Any], script: str, expected: object) -> Case:
    return keywords, ["/bin/sh", "-c", script], f"{expected}\n"


CASES: Dict[str, Callable[[pathlib.Path, int], Case]] = {
    "cwd": lambda folder, fd: python({"cwd": folder}, "os.getcwd()", folder),
    "env": lambda folder, fd: python(
        {"env": {**os.environ, "OXLOOP": "a value"}}, "os.environ['OXLOOP']", "a value"
    ),
    "start_new_session": lambda folder, fd: python(
        {"start_new_session": True}, "os.getsid(0) == os.getpid()", True
    ),
    "umask": lambda folder, fd: python({"umask": 0o27}, "oct(os.umask(0))", "0o27"),
    "pass_fds": lambda folder, fd: python({"pass_fds": [fd]}, f"os.read({fd}, 4)", b"pass"),
    "close_fds": lambda folder, fd: python({"close_fds": False}, f"os.read({fd}, 4)", b"pass"),
    "preexec_fn": lambda folder, fd: python(
        {"preexec_fn": lambda: os.chdir(folder)}, "os.getcwd()", folder
    ),
    "restore_signals": lambda folder, fd: shell(
        {"restore_signals": False},
        "kill -PIPE $$; echo as Python ignores it",
        "as Python ignores it",
    ),
    "executable": lambda folder, fd: (
        {"executable": "/bin/sh"},
        ["a name for it", "-c", "echo $0", "first"],
        "first\n",
    ),
    "user": lambda folder, fd: shell({"user": USER}, "id -u", USER),
    "group": lambda folder, fd: shell({"group": GROUP}, "id -g", GROUP),
}
if IS_ROOT:
    CASES["extra_groups"] = lambda folder, fd: python(
        {"extra_groups": [12, 34]}, "sorted({12, 34, 56} & set(os.getgroups()))", [12, 34]
    )
if PY310:
    CASES["pipesize"] = lambda folder, fd: python(
        {"pipesize": 8192}, "__import__('fcntl').fcntl(1, 1032)", 8192
    )
if PY311:
    CASES["process_group"] = lambda folder, fd: python(
        {"process_group": 0}, "os.getpgid(0) == os.getpid()", True
    )


class TestKeywords:
    @pytest.mark.parametrize("name", CASES)
    def test_keyword(self, run: Run, tmp_path: pathlib.Path, name: str) -> None:
        """What the child finds is what `Popen` alone would have given it."""
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)
        keywords, command, expected = CASES[name](tmp_path.resolve(), reader)

        async def main() -> Tuple[bytes, bytes]:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=PIPE, stderr=PIPE, **keywords
            )
            return await process.communicate()

        try:
            os.write(writer, b"pass")
            out, error = run(main)
        finally:
            os.close(reader)
            os.close(writer)
        assert out.decode() == expected, error

    def test_descriptors_are_closed_by_default(self, run: Run) -> None:
        reader, writer = os.pipe()
        os.set_inheritable(reader, True)
        source = f"import os; os.fstat({reader})"

        async def main() -> int:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-c", source, stderr=subprocess.DEVNULL
            )
            return await process.wait()

        try:
            assert run(main) == 1
        finally:
            os.close(reader)
            os.close(writer)

    def test_what_preexec_fn_raises(self, run: Run) -> None:
        def refuse() -> None:
            raise ZeroDivisionError

        async def main() -> None:
            with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
                await asyncio.create_subprocess_exec("/bin/true", preexec_fn=refuse)

        run(main)

    @pytest.mark.skipif(IS_ROOT, reason="everything is allowed")
    def test_a_user_that_one_may_not_be(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(PermissionError):
                await asyncio.create_subprocess_exec("/bin/true", user=0)

        run(main)
