"""Takes one measurement: starts the worker, and for a server drives it from another core."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from load import TlsConnection
from workloads.model import IdleMemory, Server, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent

# Seconds after which a process that should have ended counts as hung.
PATIENCE = 60

# Connections that are made, used and kept before memory is first read.
FIRST_CONNECTIONS = 500


class MeasurementError(Exception):
    """A worker or the load generator failed; the text says which and how."""


class UnsupportedError(Exception):
    """The loop lacks what the workload needs."""


@dataclass(frozen=True)
class Plan:
    """How long to measure, where, and by which load generator.

    `server_cpu` and `load_cpu` are None on a machine with one core or without affinity.
    """

    seconds: float
    warmup: float
    server_cpu: int | None
    load_cpu: int | None
    generator: tuple[str, ...]


def native_generator() -> pathlib.Path | None:
    """Return the built `load` example, or None; OXLOOP_LOAD names one that lies elsewhere."""
    target = os.environ.get("CARGO_TARGET_DIR", str(HERE.parent / "target"))
    built = pathlib.Path(target) / "release" / "examples" / "load"
    candidates = [pathlib.Path(os.environ["OXLOOP_LOAD"])] if "OXLOOP_LOAD" in os.environ else []
    for candidate in (*candidates, built):
        if os.access(candidate, os.X_OK):
            return candidate
    return None


def take(loop: str, workload: Workload, plan: Plan) -> dict[str, float]:
    """Measure once; raises MeasurementError, or UnsupportedError."""
    if isinstance(workload, Server):
        with _server(loop, workload, plan) as (process, address):
            return _drive(process.pid, address, workload, plan)
    if isinstance(workload, IdleMemory):
        with _server(loop, workload, plan) as (process, address):
            return _memory(process.pid, address, workload)
    finished = _finished(_command(loop, workload, plan), plan.seconds)
    return _line(finished.stdout, finished.stderr, finished.returncode)


def _finished(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command that measures for that long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{pathlib.Path(command[1]).name} did not end") from None


def _command(loop: str, workload: Workload, plan: Plan) -> list[str]:
    command = [sys.executable, str(HERE / "worker.py"), "--loop", loop]
    command += ["--workload", workload.name, "--seconds", str(plan.seconds)]
    if plan.server_cpu is not None:
        command += ["--cpu", str(plan.server_cpu)]
    return command


def _line(stdout: str, stderr: str, code: int | None) -> dict[str, Any]:
    try:
        line: dict[str, Any] = json.loads(stdout)
    except ValueError:
        last = stderr.strip().splitlines()[-1:] or ["no output"]
        raise MeasurementError(f"worker ended with {code}: {last[0]}") from None
    if "unsupported" in line:
        raise UnsupportedError(line["unsupported"])
    return line


@contextlib.contextmanager
def _server(
    loop: str, workload: Workload, plan: Plan
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run a server for the time of the context; what it wrote on stderr is an error."""
    process = subprocess.Popen(
        _command(loop, workload, plan),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        first = process.stdout.readline()
        if not first:
            _line("", process.stderr.read(), process.wait())
        yield process, _line(first, "", None)["listening"]
        if process.poll() is not None:
            raise MeasurementError(f"the server ended with {process.returncode}")
    finally:
        process.kill()
        complaints = process.communicate()[1].strip()
    if complaints:
        raise MeasurementError(f"the server complained: {complaints.splitlines()[-1]}")


def _drive(pid: int, address: Any, workload: Server, plan: Plan) -> dict[str, float]:
    if plan.warmup:
        _generate(address, workload, plan, plan.warmup)
    before = _cpu_seconds(pid)
    result = _generate(address, workload, plan, plan.seconds)
    cpu = _cpu_seconds(pid) - before
    if result["errors"]:
        raise MeasurementError(f"{result['errors']:.0f} errors in the load generator")
    if not result["messages"]:
        raise MeasurementError("no message came back")
    if workload.load.mode == "upload":
        mebibytes = result["messages"] * workload.load.size / 2**20
        return {"cpu_us": cpu / mebibytes * 1e6, "rate": mebibytes / result["seconds"]}
    return {
        "cpu_us": cpu / result["messages"] * 1e6,
        "rate": result["rate"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
    }


def _generate(address: Any, workload: Server, plan: Plan, seconds: float) -> dict[str, float]:
    load = workload.load
    if isinstance(address, str):
        where = ["--unix", address]
    else:
        where = ["--connect", f"{address[0]}:{address[1]}"]
    generator = (sys.executable, str(HERE / "load.py"), "--tls") if load.tls else plan.generator
    command = [*generator, *where, "--mode", load.mode, "--size", str(load.size)]
    command += ["--connections", str(load.connections), "--seconds", str(seconds)]
    command += ["--warmup", "0"]
    if plan.load_cpu is not None:
        command += ["--pin", str(plan.load_cpu)]
    finished = _finished(command, seconds)
    if finished.returncode:
        raise MeasurementError(f"load generator: {finished.stderr.strip()[-300:]}")
    result: dict[str, float] = json.loads(finished.stdout)
    return result


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of another process, to the nanosecond.

    Linux makes the clock's number from the process's: clock_getcpuclockid(3), and
    MAKE_PROCESS_CPUCLOCK with CPUCLOCK_SCHED in include/linux/posix-timers.h.
    """
    return time.clock_gettime((~pid << 3) | 2)


def _memory(pid: int, address: Any, workload: IdleMemory) -> dict[str, float]:
    with contextlib.ExitStack() as connections:
        _echo_once(address, FIRST_CONNECTIONS, connections, tls=workload.tls)
        before = _resident_kib(pid)
        _echo_once(address, workload.connections, connections, tls=workload.tls)
        return {"rss_kib": (_resident_kib(pid) - before) / workload.connections}


def _echo_once(address: Any, count: int, connections: contextlib.ExitStack, *, tls: bool) -> None:
    message = b"x" * 64
    for _ in range(count):
        client = socket.create_connection(tuple(address), timeout=30)
        if tls:
            client = TlsConnection.context.wrap_socket(client)
        connections.enter_context(client)
        client.sendall(message)
        if client.recv(len(message)) != message:
            raise MeasurementError("a connection echoed something else")


def _resident_kib(pid: int) -> int:
    """Return the exact resident size; statm's is a sum of lazily updated counters."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise MeasurementError("no Rss in smaps_rollup")
