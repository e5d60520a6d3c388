"""Subprocesses: with pipes and without, killed, closed and cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio import subprocess
from typing import Any, List

from support.backends import PY311

from soak.lifecycle import Round, lifecycle

PIPE = subprocess.PIPE

#: Before Python 3.11 asyncio reports that a pipe to a child broke also when nobody asked.
UNREAD = () if PY311 else (BrokenPipeError, ConnectionResetError)


def kill(process: Any) -> None:
    """Kill the child if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()


@lifecycle(tolerates=UNREAD)
async def communicate(round_: Round) -> None:
    """cat is sent something, and sends it back, unless the call is cancelled or the child killed."""
    process = await round_.cut(
        asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE), 0.1
    )
    if process is None:
        return
    data = round_.data()
    if round_.chance(0.2):
        kill(process)
    answer = await round_.cut(process.communicate(data))
    if answer is None:
        kill(process)
        # What nobody reads stays paused, and wait() waits for the ends of the pipes.
        process._transport.close()
    elif process.returncode == 0:
        assert answer == (data, b"")
    await process.wait()


@lifecycle()
async def without_pipes(round_: Round) -> None:
    """Children that exit by themselves or by a signal."""
    script = round_.choose("exit 0", "exit 7", "kill -9 $$", "exec sleep 100")
    process = await asyncio.create_subprocess_shell(script)
    if script.endswith("100"):
        process.send_signal(round_.choose(signal.SIGTERM, signal.SIGKILL, signal.SIGINT))
    await round_.cut(process.wait())
    kill(process)
    await process.wait()


@lifecycle()
async def closes_its_pipes(round_: Round) -> None:
    """A child that closes its pipes long before it ends."""
    script = "exec 0<&- 1>&- 2>&-; exec sleep 100"
    process = await asyncio.create_subprocess_shell(script, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(bytes(100_000))
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()
    assert await process.stdout.read() == b""
    kill(process)
    assert await process.wait() == -signal.SIGKILL


@lifecycle()
async def outlived(round_: Round) -> None:
    """A grandchild keeps the pipe open after the child has gone."""
    script = "sleep 3 2>/dev/null & echo $!"  # it may be left behind
    process = await asyncio.create_subprocess_shell(script, stdout=PIPE)
    assert process.stdout is not None
    grandchild = int(await process.stdout.readline())
    if round_.chance(0.5):
        kill_number(grandchild)
        assert await process.stdout.read() == b""
    else:
        process._transport.close()  # type: ignore[attr-defined]
        kill_number(grandchild)
    # Closing the transport has killed the child if the loop had not heard of its end, and asyncio
    # says 255 where its Popen was the first to hear.
    assert await process.wait() in (0, -signal.SIGKILL, 255)


def kill_number(pid: int) -> None:
    """Kill a process that is not ours to wait for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Events(asyncio.SubprocessProtocol):
    """Notes what is heard of a child, and fails in one of the callbacks."""

    def __init__(self, round_: Round) -> None:
        self.round = round_
        self.fails_in = round_.choose("", "", "made", "data", "pipe", "exited", "lost")
        self.events: List[str] = []
        self.ended = round_.loop.create_future()

    def note(self, event: str) -> None:
        self.events.append(event)
        if event == self.fails_in:
            self.fails_in = ""
            self.round.fail(interrupts=0)

    def connection_made(self, transport: Any) -> None:
        self.note("made")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.note("data")

    def pipe_connection_lost(self, fd: int, exc: Any) -> None:
        self.note("pipe")

    def process_exited(self) -> None:
        self.note("exited")

    def connection_lost(self, exc: Any) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        self.note("lost")


@lifecycle()
async def subprocess_protocols(round_: Round) -> None:
    """subprocess_exec() with a protocol of one's own that fails."""
    protocol = Events(round_)
    made = await round_.cut(
        round_.loop.subprocess_exec(lambda: protocol, "sh", "-c", "echo error >&2; exec cat"), 0.1
    )
    if made is None:
        return
    transport, _ = made
    stdin = transport.get_pipe_transport(0)
    stdin.write(round_.data(70_000))
    await round_.turns()
    end = round_.choose("eof", "close", "kill", "terminate")
    if end == "eof":
        stdin.write_eof()
    elif end == "close":
        transport.close()
    else:
        with contextlib.suppress(ProcessLookupError):
            getattr(transport, end)()
    await protocol.ended
    transport.close()


@lifecycle()
async def not_found(round_: Round) -> None:
    """A program that is not there, and arguments that are refused."""
    with contextlib.suppress(FileNotFoundError):
        await asyncio.create_subprocess_exec("/nonexistent/program", stdin=PIPE, stdout=PIPE)
    with contextlib.suppress(ValueError):
        await round_.loop.subprocess_exec(lambda: Events(round_), "true", bufsize=1)
