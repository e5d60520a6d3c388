"""Child processes: `subprocess_exec`, `subprocess_shell`, and what asyncio builds on them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, List, Optional

import pytest
from support.backends import PY311, PY314, Backend
from support.children import python
from support.platforms import WINDOWS
from support.reports import Reports
from support.running import NewLoop, Run, turns
from support.signals import OTHER

pytestmark = pytest.mark.usefixtures("leaves_no_zombie")

PIPE = subprocess.PIPE


BLOCKED = "import time; time.sleep(3600)"

#: The code of a child that was ended by force: TerminateProcess() gives one.
KILLED = 1 if WINDOWS else -signal.Signals["SIGKILL"]

TERMINATED = 1 if WINDOWS else -signal.SIGTERM

#: What ends a line of a child's output.
END = os.linesep.encode()


class Child(asyncio.SubprocessProtocol):
    """A protocol that records what it is told."""

    def __init__(self) -> None:
        self.events: List[Any] = []
        self.data = {1: bytearray(), 2: bytearray()}
        self.transport: Any = None
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[Any] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        assert type(data) is bytes
        self.data[fd] += data

    def pipe_connection_lost(self, fd: int, exc: Optional[BaseException]) -> None:
        self.events.append(("pipe lost", fd))

    def process_exited(self) -> None:
        self.events.append("exited")
        self.exited.set_result(None)

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)


async def start(source: str, **keywords: Any) -> Any:
    """Run `source`; the transport and its protocol."""
    loop = asyncio.get_running_loop()
    return await loop.subprocess_exec(Child, *python(source), **keywords)


class TestEvents:
    def test_pipes_of_all_three_streams(self, run: Run) -> None:
        source = "import sys; sys.stderr.write('to err'); sys.stdout.write(sys.stdin.read())"

        async def main() -> None:
            transport, protocol = await start(source)
            assert protocol.transport is transport
            assert protocol.events == ["made"]
            transport.get_pipe_transport(0).write(b"to out")
            transport.get_pipe_transport(0).close()
            assert await protocol.lost is None
            assert bytes(protocol.data[1]) == b"to out"
            assert bytes(protocol.data[2]) == b"to err"
            assert protocol.events[0] == "made"
            assert protocol.events[-1] == "lost"
            assert sorted(map(str, protocol.events[1:-1])) == sorted(
                map(str, [("pipe lost", 0), ("pipe lost", 1), ("pipe lost", 2), "exited"])
            )
            assert transport.get_returncode() == 0
            transport.close()

        run(main)

    def test_process_without_pipes(self, run: Run) -> None:
        async def main() -> None:
            transport, protocol = await start(
                "raise SystemExit(7)", stdin=None, stdout=None, stderr=None
            )
            await protocol.lost
            assert protocol.events == ["made", "exited", "lost"]
            assert transport.get_returncode() == 7
            assert [transport.get_pipe_transport(fd) for fd in (0, 1, 2, 3, -1)] == [None] * 5
            transport.close()

        run(main)

    def test_pipe_closed_by_the_child_before_its_end(self, run: Run) -> None:
        source = f"import os; os.close(1); {BLOCKED}"

        async def main() -> None:
            transport, protocol = await start(source, stdin=None, stderr=None)
            while ("pipe lost", 1) not in protocol.events:
                await asyncio.sleep(0)
            assert protocol.events == ["made", ("pipe lost", 1)]
            transport.kill()
            await protocol.lost
            assert protocol.events == ["made", ("pipe lost", 1), "exited", "lost"]
            transport.close()

        run(main)

    @pytest.mark.unix("pass_fds")
    def test_pipe_held_by_a_grandchild(self, run: Run) -> None:
        """connection_lost() waits for the last writer, process_exited() does not."""
        source = (
            "import subprocess, sys\n"
            "subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin={})\n"
        )

        async def main() -> None:
            reader, writer = os.pipe()
            transport, protocol = await start(
                source.format(reader), stdin=None, stderr=None, pass_fds=[reader]
            )
            await protocol.exited
            await turns(5)
            assert transport.get_returncode() == 0
            assert "lost" not in protocol.events
            os.write(writer, b"end\n")
            await protocol.lost
            os.close(reader)
            os.close(writer)
            transport.close()

        run(main)

    def test_much_data_in_both_directions(self, run: Run) -> None:
        data = os.urandom(1 << 20)

        async def main() -> None:
            transport, protocol = await start(
                "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
            )
            stdin = transport.get_pipe_transport(0)
            stdin.write(data)
            stdin.close()
            await protocol.lost
            assert bytes(protocol.data[1]) == data
            transport.close()

        run(main)

    def test_flow_control_of_stdin(self, run: Run) -> None:
        class Pausing(Child):
            def pause_writing(self) -> None:
                self.events.append("pause")

            def resume_writing(self) -> None:
                self.events.append("resume")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.subprocess_exec(
                Pausing, *python("import sys; sys.stdin.buffer.read()"), stdout=None, stderr=None
            )
            stdin = transport.get_pipe_transport(0)
            stdin.write(bytes(1 << 20))
            assert protocol.events == ["made", "pause"]
            stdin.close()
            await protocol.lost
            assert protocol.events[:3] == ["made", "pause", "resume"]
            transport.close()

        run(main)

    def test_context(self, run: Run) -> None:
        place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="none")
        seen = []

        class Seeing(Child):
            def connection_made(self, transport: Any) -> None:
                seen.append(("made", place.get()))
                super().connection_made(transport)

            def pipe_data_received(self, fd: int, data: bytes) -> None:
                seen.append(("data", place.get()))

        async def main() -> None:
            place.set("start")
            loop = asyncio.get_running_loop()
            starting = loop.subprocess_exec(Seeing, *python("print('x')"))
            transport, protocol = await starting
            place.set("later")
            await protocol.lost
            transport.close()

        run(main)
        assert list(dict.fromkeys(seen)) == [("made", "start"), ("data", "start")]


class TestExit:
    @pytest.mark.parametrize("code", [0, 1, 42, 255])
    def test_code(self, run: Run, code: int) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(*python(f"raise SystemExit({code})"))
            assert await process.wait() == code
            assert process.returncode == code
            assert await process.wait() == code

        run(main)

    @pytest.mark.unix("exit codes of signals")
    @pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGUSR1"])
    def test_signal(self, run: Run, name: str) -> None:
        number = getattr(signal, name)

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(*python(BLOCKED))
            process.send_signal(number)
            assert await process.wait() == -number

        run(main)

    def test_terminate_and_kill(self, run: Run) -> None:
        async def main() -> None:
            for method, code in (("terminate", TERMINATED), ("kill", KILLED)):
                process = await asyncio.create_subprocess_exec(*python(BLOCKED))
                getattr(process, method)()
                assert await process.wait() == code

        run(main)

    def test_signal_after_the_end(self, run: Run) -> None:
        async def main() -> None:
            transport, protocol = await start("", stdin=None, stdout=None, stderr=None)
            await protocol.lost
            await turns(1)
            for method in (transport.kill, transport.terminate):
                with pytest.raises(ProcessLookupError):
                    method()
            with pytest.raises(ProcessLookupError):
                transport.send_signal(OTHER)
            transport.close()

        run(main)

    @pytest.mark.unix("pass_fds")
    def test_signal_between_the_end_and_the_loss(self, run: Run, backend: Backend) -> None:
        """The number of a child that was reaped may be another process's by now."""
        if backend.is_oracle:
            pytest.skip("3.12 and 3.13 do send it")
        sent = []

        async def main() -> None:
            reader, writer = os.pipe()
            transport, protocol = await start(
                f"import os; os.fork() or os.read({reader}, 1)", stdin=None, pass_fds=[reader]
            )
            await protocol.exited
            assert transport.get_extra_info("subprocess") is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "kill", lambda *args: sent.append(args))
                transport.kill()
            os.close(reader)
            os.close(writer)
            await protocol.lost
            transport.close()

        run(main)
        assert not sent

    def test_the_popen_knows_the_code(self, run: Run) -> None:
        async def main() -> None:
            transport, protocol = await start("raise SystemExit(3)")
            popen = transport.get_extra_info("subprocess")
            assert isinstance(popen, subprocess.Popen)
            assert popen.pid == transport.get_pid()
            assert transport.get_returncode() is None
            await protocol.lost
            assert popen.returncode == 3
            transport.close()

        run(main)

    @pytest.mark.unix("children that are reaped")
    def test_somebody_else_waited(self, run: Run, log: List[str]) -> None:
        """asyncio: the exit status is gone, 255 and a warning in its place."""

        async def main() -> None:
            transport, protocol = await start(BLOCKED, stdin=None, stdout=None, stderr=None)
            os.kill(transport.get_pid(), signal.SIGKILL)
            os.waitpid(transport.get_pid(), 0)
            await protocol.lost
            assert transport.get_returncode() == 255
            transport.close()

        if not PY311:
            pytest.skip("asyncio's thread has waited before us")
        run_with_pidfd(run, main)
        warned = [line for line in log if line.startswith("WARNING") and "255" in line]
        assert len(warned) == 1

    def test_the_popen_waited(self, run: Run, backend: Backend, log: List[str]) -> None:
        """Popen.wait() and poll() take the code away from asyncio, and not from us."""
        if backend.is_oracle:
            pytest.skip("it reports 255")

        async def main() -> None:
            transport, protocol = await start("raise SystemExit(9)")
            assert transport.get_extra_info("subprocess").wait() == 9
            await protocol.lost
            assert transport.get_returncode() == 9
            transport.close()

        run(main)
        assert not [line for line in log if line.startswith("WARNING")]

    @pytest.mark.unix("children that are reaped")
    def test_sigchld_ignored(self, run: Run, backend: Backend) -> None:
        """The kernel reaps such children itself: the end is noticed, the code is not to be had."""
        if backend.is_oracle:
            pytest.skip("asyncio's watcher raises if the child has ended before")

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(*python("raise SystemExit(5)"))
            assert await process.wait() in (5, 255)

        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            run(main)
        finally:
            signal.signal(signal.SIGCHLD, before)


def run_with_pidfd(run: Run, main: Any) -> None:
    """Run with asyncio's watcher by pidfd, which no thread of its own precedes."""

    def prepare(loop: Any) -> None:
        if PY314 or not isinstance(loop, asyncio.SelectorEventLoop):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(loop)
            asyncio.set_child_watcher(watcher)

    run(main, prepare=prepare)


class TestClose:
    def test_close_kills(self, run: Run, log: List[str]) -> None:
        async def main() -> None:
            transport, protocol = await start(BLOCKED)
            transport.close()
            transport.close()
            assert transport.is_closing()
            await protocol.lost
            assert transport.get_returncode() == KILLED

        run(main, debug=True)
        assert any("Close running child process: kill" in line for line in log)

    def test_close_after_the_end(self, run: Run) -> None:
        async def main() -> None:
            transport, protocol = await start("raise SystemExit(4)")
            await protocol.lost
            transport.close()
            assert transport.get_returncode() == 4

        run(main)

    def test_close_on_a_closed_loop(self, backend: Backend, new_loop: NewLoop) -> None:
        if backend.is_oracle:
            pytest.skip("RuntimeError before 3.14")
        loop = new_loop()
        transport, protocol = loop.run_until_complete(start(BLOCKED))
        popen = transport.get_extra_info("subprocess")
        loop.close()
        transport.close()
        assert popen.wait() == KILLED
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the collector closes the pipes
            del transport, protocol, popen
            gc.collect()

    def test_dropped_transport_warns_and_kills(self, backend: Backend, new_loop: NewLoop) -> None:
        if backend.is_oracle:
            pytest.skip("asyncio's watcher holds the transport")
        loop = new_loop()

        async def main() -> int:
            transport, protocol = await start(BLOCKED, stdin=None, stdout=None, stderr=None)
            protocol.transport = None
            return int(transport.get_pid())

        pid = loop.run_until_complete(main())
        with pytest.warns(ResourceWarning) as warned:
            loop.close()
            gc.collect()
        assert any("unclosed transport <SubprocessTransport" in str(w.message) for w in warned)
        # The standard library keeps the Popen of a running process until it has ended.
        for popen in list(subprocess._active or ()):  # type: ignore[attr-defined]
            if popen.pid == pid:
                assert popen.wait() == KILLED
        subprocess._cleanup()  # type: ignore[attr-defined]


class TestArguments:
    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"universal_newlines": True}, "universal_newlines must be False"),
            ({"bufsize": 1}, "bufsize must be 0"),
            ({"text": True}, "text must be False"),
            ({"encoding": "utf-8"}, "encoding must be None"),
            ({"errors": "strict"}, "errors must be None"),
        ],
    )
    def test_no_text(self, run: Run, keywords: Any, message: str) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(ValueError, match=f"^{message}$"):
                await loop.subprocess_exec(Child, "true", **keywords)
            with pytest.raises(ValueError, match=f"^{message}$"):
                await loop.subprocess_shell(Child, "true", **keywords)

        run(main)

    def test_shell_is_not_to_choose(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with pytest.raises(ValueError, match="^shell must be False$"):
                await loop.subprocess_exec(Child, "true", shell=True)
            with pytest.raises(ValueError, match="^shell must be True$"):
                await loop.subprocess_shell(Child, "true", shell=False)
            with pytest.raises(ValueError, match="^cmd must be a string$"):
                await loop.subprocess_shell(Child, ["true"])

        run(main)

    def test_program_that_is_not_there(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(FileNotFoundError):
                await start_missing()

        async def start_missing() -> None:
            loop = asyncio.get_running_loop()
            await loop.subprocess_exec(Child, "/no/such/program")

        run(main)

    def test_unknown_keyword(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match="no_such"):
                await start("", no_such=True)

        run(main)

    @pytest.mark.parametrize(
        "command",
        ["echo shell", pytest.param(b"echo shell", marks=pytest.mark.unix("commands in bytes"))],
    )
    def test_shell(self, run: Run, command: Any) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_shell(command, stdout=PIPE)
            assert await process.communicate() == (b"shell" + END, None)

        run(main)

    def test_paths_as_program_and_argument(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "script").write_text("print('path')")

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                Path(sys.executable), tmp_path / "script", stdout=PIPE
            )
            assert await process.communicate() == (b"path" + END, None)

        run(main)

    @pytest.mark.unix("pass_fds")
    def test_popen_keywords(self, run: Run, tmp_path: Path) -> None:
        source = (
            "import os; print(os.getcwd(), os.environ['NAME'], os.getsid(0) == os.getpid(), "
            "oct(os.umask(0)), os.read(int(os.environ['FD']), 4))"
        )

        async def main() -> None:
            reader, writer = os.pipe()
            os.write(writer, b"pass")
            before = []
            transport, protocol = await start(
                source,
                cwd=tmp_path,
                env={**os.environ, "NAME": "value", "FD": str(reader)},
                start_new_session=True,
                umask=0o27,
                pass_fds=[reader],
                preexec_fn=lambda: before.append(1),
            )
            os.close(reader)
            os.close(writer)
            await protocol.lost
            text = bytes(protocol.data[1]).decode()
            assert text == f"{tmp_path} value True 0o27 b'pass'\n", protocol.data[2]
            transport.close()

        run(main)

    def test_streams_that_are_no_pipes(self, run: Run, tmp_path: Path) -> None:
        async def main() -> None:
            with open(tmp_path / "out", "wb") as out:
                transport, protocol = await start(
                    "import sys; print(sys.stdin.read()); sys.stderr.write('merged')",
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
                await protocol.lost
                transport.close()
            assert (tmp_path / "out").read_text() in ("\nmerged", "merged\n")

        run(main)

    @pytest.mark.unix("/dev/stdin")
    def test_stdin_can_be_opened_again(self, run: Run, backend: Backend) -> None:
        """/dev/stdin of a socket cannot be opened; asyncio gives a socket before 3.12."""
        if backend.is_oracle and sys.version_info < (3, 10):
            pytest.skip("a socket")

        async def main() -> None:
            transport, protocol = await start("print(open('/dev/stdin').read())")
            transport.get_pipe_transport(0).write(b"again")
            transport.get_pipe_transport(0).close()
            await protocol.lost
            assert bytes(protocol.data[1]) == b"again\n", protocol.data[2]
            transport.close()

        run(main)

    def test_patched_popen(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever stands in the place of subprocess.Popen starts the process."""
        seen = []

        class Popen(subprocess.Popen):  # type: ignore[type-arg]
            def __init__(self, *args: Any, **keywords: Any) -> None:
                seen.append(keywords)
                super().__init__(*args, **keywords)

        monkeypatch.setattr(subprocess, "Popen", Popen)

        async def main() -> None:
            transport, protocol = await start("")
            await protocol.lost
            transport.close()

        run(main)
        assert seen[0]["bufsize"] == 0
        assert seen[0]["stdout"] == PIPE


class TestStreams:
    def test_communicate(self, run: Run) -> None:
        source = "import sys; sys.stderr.write('e'); sys.stdout.write(sys.stdin.read() * 2)"

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python(source), stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
            assert await process.communicate(b"ab") == (b"abab", b"e")
            assert process.returncode == 0

        run(main)

    def test_communicate_with_a_child_that_does_not_read(self, run: Run, reports: Reports) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python("import os; os.close(0)"), stdin=PIPE, stdout=PIPE
            )
            assert await process.communicate(bytes(1 << 20)) == (b"", None)

        run(main)
        gc.collect()
        reports.take()  # on 3.9 and 3.10 asyncio's protocol leaves a future whose error nobody reads

    def test_lines(self, run: Run) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python("for i in range(1000): print(i)"), stdout=PIPE
            )
            assert [int(line) async for line in process.stdout] == list(range(1000))
            assert await process.wait() == 0

        run(main)

    def test_output_larger_than_the_limit_pauses(self, run: Run) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python("import sys; sys.stdout.write('x' * 1000000)"), stdout=PIPE, limit=1024
            )
            assert len((await process.communicate())[0]) == 1_000_000

        run(main)

    def test_replaced_connect_read_pipe(self, loop: Any) -> None:
        """The loop's own methods connect the pipes, also those that a user put there."""
        original, connected = loop.connect_read_pipe, []

        async def connect(*args: Any, **keywords: Any) -> Any:
            pair = await original(*args, **keywords)
            connected.append(pair[0])
            return pair

        loop.connect_read_pipe = connect

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(
                *python("print('out')"), stdin=PIPE, stdout=PIPE
            )
            assert await process.communicate() == (b"out" + END, None)
            assert connected == [process._transport.get_pipe_transport(1)]

        loop.run_until_complete(main())


class TestCancelling:
    def test_while_starting(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            started: List[Child] = []

            def make() -> Child:
                started.append(Child())
                return started[-1]

            starting = asyncio.ensure_future(loop.subprocess_exec(make, *python(BLOCKED)))
            await turns(1)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert len(started) == 1

        run(main)

    def test_while_waiting(self, run: Run) -> None:
        async def main() -> None:
            process = await asyncio.create_subprocess_exec(*python(BLOCKED))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 0.001)
            assert process.returncode is None
            process.kill()
            assert await process.wait() == KILLED

        run(main)


class TestTransport:
    def test_class(self, run: Run) -> None:
        async def main() -> None:
            transport, protocol = await start("")
            assert isinstance(transport, asyncio.SubprocessTransport)
            assert transport.get_protocol() is protocol
            assert f"pid={transport.get_pid()} running" in repr(transport)
            assert "stdin=<" in repr(transport)
            await protocol.lost
            assert "returncode=0" in repr(transport)
            transport.close()
            assert "closed" in repr(transport)

        run(main)

    def test_debug_log(self, run: Run, log: List[str]) -> None:
        async def main() -> None:
            transport, protocol = await start("", stdin=None, stderr=subprocess.STDOUT)
            await protocol.lost
            transport.close()
            process = await asyncio.create_subprocess_shell("exit 0", stderr=PIPE)
            await process.wait()

        run(main, debug=True)
        text = "\n".join(line for line in log if "took" not in line)
        assert f"DEBUG execute program {sys.executable!r} stdout=stderr=<pipe>" in text
        assert "created: pid" in text
        assert "exited with return code 0" in text
        assert "DEBUG run shell command 'exit 0' stderr=<pipe>" in text
        assert "INFO run shell command 'exit 0': <" in text


class TestWatchers:
    """Whose eyes watch the child; asyncio's own watchers are in CPython's test_subprocess."""

    def test_no_thread(self, backend: Backend, run: Run) -> None:
        if backend.is_oracle:
            pytest.skip("a thread a child before 3.12")
        import threading

        before = threading.active_count()

        async def main() -> None:
            process = await asyncio.create_subprocess_exec(*python(BLOCKED))
            assert threading.active_count() == before
            process.kill()
            await process.wait()

        run(main)

    @pytest.mark.unix("pidfds")
    def test_without_pidfds(
        self, backend: Backend, loop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be watched is waited for in a thread: here, because no fd is left."""
        if backend.is_oracle:
            pytest.skip("it has no such fallback")
        import resource

        async def main() -> None:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            made = []

            def limit(*args: Any, **keywords: Any) -> Any:
                popen = original(*args, **keywords)
                highest = max(map(int, os.listdir("/proc/self/fd")))
                free = os.open(os.devnull, os.O_RDONLY)
                os.close(free)
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(free, highest + 1), hard))
                made.append(popen)
                return popen

            original = subprocess.Popen
            monkeypatch.setattr(subprocess, "Popen", limit)
            try:
                process = await asyncio.create_subprocess_exec(*python("raise SystemExit(6)"))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert len(made) == 1
            assert await process.wait() == 6

        loop.run_until_complete(main())

    @pytest.mark.unix("child watchers")
    def test_chosen_watcher_is_used(self, oxloop: Any, reports: Reports) -> None:
        calls = []

        class Watcher(type(oxloop.get_child_watcher())):  # type: ignore[misc]
            def add_child_handler(self, pid: int, callback: Any, *args: Any) -> None:
                calls.append(pid)
                super().add_child_handler(pid, callback, *args)

            def __enter__(self) -> Any:
                calls.append("enter")
                return super().__enter__()

            def __exit__(self, *error: object) -> None:
                calls.append("exit")

        oxloop.set_child_watcher(Watcher())

        async def main() -> int:
            process = await asyncio.create_subprocess_exec(*python("raise SystemExit(2)"))
            assert await process.wait() == 2
            return process.pid

        pid = oxloop.run(main())
        assert calls == ["enter", pid, "exit"]

    @pytest.mark.unix("child watchers")
    @pytest.mark.skipif(PY314, reason="asyncio has no watchers")
    def test_watcher_that_asyncio_was_given_is_used(self, oxloop: Any) -> None:
        calls = []

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)

            class Watcher(asyncio.ThreadedChildWatcher):
                def add_child_handler(self, pid: int, callback: Any, *args: Any) -> None:
                    calls.append(pid)
                    super().add_child_handler(pid, callback, *args)

            asyncio.set_child_watcher(Watcher())

        async def main() -> int:
            process = await asyncio.create_subprocess_exec(*python("raise SystemExit(2)"))
            assert await process.wait() == 2
            return process.pid

        pid = oxloop.run(main())
        assert calls == [pid]

    @pytest.mark.unix("child watchers")
    def test_inactive_watcher_is_refused(self, oxloop: Any) -> None:
        class Inactive(type(oxloop.get_child_watcher())):  # type: ignore[misc]
            def is_active(self) -> bool:
                return False

        oxloop.set_child_watcher(Inactive())

        async def main() -> None:
            with pytest.raises(RuntimeError, match="is not activated"):
                await asyncio.create_subprocess_exec(*python(""))

        oxloop.run(main())


@pytest.mark.unix("/bin/sh")
def test_a_thousand_children(run: Run, backend: Backend) -> None:
    """Nothing is left of them: no descriptor (conftest), no zombie, no exit code."""
    total, batch = (1000, 100) if backend.name in ("epoll", "proactor") else (100, 50)

    async def one(number: int) -> None:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", f"echo {number}; exit {number % 200}", stdout=PIPE
        )
        out, _ = await process.communicate()
        assert int(out) == number
        assert process.returncode == number % 200

    async def main() -> None:
        for first in range(0, total, batch):
            await asyncio.gather(*(one(number) for number in range(first, first + batch)))

    run(main)
