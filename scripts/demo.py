"""The same web server on asyncio and on oxloop, under load: `make demo`.

Two servers are started, each in a process of its own: uvicorn with httptools and a small ASGI
application. They differ in one line, the one that runs them. A third process is the clients:
keep-alive connections that send HTTP/1.1 requests and compare every answer with what it must be.
The servers are driven in turns. Printed are requests per second, and the CPU time of the server's
process for one request, which is what the choice of the loop decides.

Exits with 0 only if every answer was right and both servers ended as they should.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import IO, Any, Callable, cast
from urllib.request import urlopen

LOOPS = ("asyncio", "oxloop")
CONNECTIONS = 50
SLICES = 3  # turns of each server
WARM_UP = 0.5  # seconds
PATIENCE = 20.0  # seconds for what should take none


class DemoError(Exception):
    """What went wrong, in a sentence."""


# The server's process: an ASGI application, and the line that runs it.

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def _about() -> bytes:
    """Return which loop runs, and how much CPU the process has used: user, system, all threads."""
    kind = type(asyncio.get_running_loop())
    package = kind.__module__.partition(".")[0]
    return json.dumps({"loop": package, "cpu": time.process_time()}).encode()


async def application(scope: dict[str, Any], _receive: Receive, send: Send) -> None:
    """Greet whom the path names."""
    path = scope["path"]
    body = _about() if path == "/about" else json.dumps({"hello": path[1:]}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve(listener: socket.socket) -> None:
    """Serve with uvicorn until SIGTERM."""
    import uvicorn

    config = uvicorn.Config(
        cast("Any", application), http="httptools", lifespan="off", log_level="warning"
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def _run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """asyncio.run(main), or oxloop.run(main): the line that differs."""
    importlib.import_module(loop).run(main)


def server_process(loop: str, cpu: int | None) -> None:
    """Be the server: print the port, serve."""
    _stay_on(cpu)
    # asyncio sets TCP_NODELAY only on sockets that were made for TCP by number, and uvicorn, which
    # sends head and body apart, would wait 40 ms for each answer without it.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(CONNECTIONS * 2)
    print(listener.getsockname()[1], flush=True)
    _run(loop, serve(listener))


# The clients' process.


class Client(asyncio.BufferedProtocol):
    """One keep-alive connection: a request, its whole answer, the next request.

    Buffered, because the clients must be quicker than the servers they measure.
    """

    def __init__(self, number: int, ends: float) -> None:
        self.name = f"client-{number}"
        self.ends = ends
        self.latencies: list[float] = []
        self.buffer = memoryview(bytearray(16384))
        self.filled = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.ask()

    def ask(self) -> None:
        """Send the next request; each has its own path, so that no answer fits another."""
        path = f"{self.name}-{len(self.latencies)}"
        self.expected = f'{{"hello": "{path}"}}'.encode()
        self.sent = time.perf_counter()
        self.transport.write(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where the rest of the answer goes."""
        return self.buffer[self.filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Compare the answer once it is whole, and go on until the time is up."""
        self.filled += nbytes
        received = bytes(self.buffer[: self.filled])
        head, _, body = received.partition(b"\r\n\r\n")
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not length or len(body) < int(length):
            return
        if not head.startswith(b"HTTP/1.1 200 ") or body != self.expected:
            self.fail(f"answered {received!r} instead of {self.expected!r}")
            return
        now = time.perf_counter()
        self.latencies.append(now - self.sent)
        self.filled = 0
        if now < self.ends:
            self.ask()
        else:
            self.finished.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail if that was not our own doing."""
        self.fail(f"closed the connection: {exc}")

    def fail(self, text: str) -> None:
        """End with an error unless the end has come already."""
        if not self.finished.done():
            self.finished.set_exception(DemoError(f"the server {text}"))
            self.transport.abort()


def _same(client: Client) -> Client:
    return client


async def drive(port: int, seconds: float) -> dict[str, float]:
    """Be all clients; return what they saw."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [Client(number, started + seconds) for number in range(CONNECTIONS)]
    for client in clients:
        await loop.create_connection(functools.partial(_same, client), "127.0.0.1", port)
    await asyncio.wait_for(
        asyncio.gather(*(client.finished for client in clients)), seconds + PATIENCE
    )
    took = time.perf_counter() - started
    latencies = sorted(latency for client in clients for latency in client.latencies)
    return {
        "requests": len(latencies),
        "seconds": took,
        "p99": latencies[len(latencies) * 99 // 100],
    }


def client_process(port: int, seconds: float, cpu: int | None) -> None:
    """Be the clients: print what they saw as JSON."""
    _stay_on(cpu)
    print(json.dumps(asyncio.run(drive(port, seconds))))


# The demonstration.


@dataclass
class Served:
    """What one server has done so far; `cpu` and `seconds` in seconds."""

    loop: str
    process: subprocess.Popen[str]
    port: int
    errors: IO[str]
    requests: float = 0
    seconds: float = 0
    cpu: float = 0
    p99: list[float] = field(default_factory=list)

    def about(self) -> float:
        """Ask the server which loop runs it, by an HTTP client that is not ours; return its CPU."""
        with urlopen(f"http://127.0.0.1:{self.port}/about", timeout=PATIENCE) as answer:
            told = json.load(answer)
        if told["loop"] != self.loop:
            raise DemoError(f"the server for {self.loop} runs on {told['loop']}")
        return float(told["cpu"])

    def stop(self) -> None:
        """End the server as an operator would, and see that it ends well."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        # uvicorn shuts down, then lets the signal have its way.
        if code not in (0, -signal.SIGTERM):
            raise DemoError(f"the server on {self.loop} ended with {code}")
        self.errors.seek(0)
        if "Traceback" in (text := self.errors.read()):
            raise DemoError(f"the server on {self.loop} reported an error:\n{text}")


class Progress:
    """A bar on a terminal; lines elsewhere."""

    WIDTH = 40

    def __init__(self, total: float) -> None:
        self.total = total
        self.done = 0.0
        self.terminal = sys.stdout.isatty()

    def show(self, part: float, what: str) -> None:
        """Draw the bar as it is `part` seconds after what is done."""
        if self.terminal:
            filled = int(self.WIDTH * min((self.done + part) / self.total, 1))
            bar = "#" * filled + "." * (self.WIDTH - filled)
            print(f"\r\x1b[K[{bar}] {what}", end="", flush=True)

    def advance(self, part: float, what: str) -> None:
        """Count a part as done."""
        self.done += part
        if self.terminal:
            self.show(0, what)
        else:
            print(f"{min(self.done / self.total, 1):4.0%} {what}", flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self.terminal:
            print("\r\x1b[K", end="", flush=True)


def _stay_on(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def _cores() -> tuple[list[str], list[str]]:
    """Return the options that keep server and clients off each other's core, where that works."""
    if not hasattr(os, "sched_getaffinity"):
        return [], []
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return [], []
    return ["--cpu", str(available[0])], ["--cpu", str(available[1])]


def _start(loop: str, stack: contextlib.ExitStack) -> Served:
    """Start a server; it is killed at the latest when the stack ends."""
    errors = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
    command = [sys.executable, __file__, "--serve", loop, *_cores()[0]]
    process = stack.enter_context(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(PATIENCE)
        errors.seek(0)
        raise DemoError(f"the server on {loop} did not start:\n{errors.read().strip()}")
    return Served(loop, process, int(line), errors)


def _drive(served: Served, seconds: float, progress: Progress, counts: bool) -> None:
    """Let the clients work on a server for that long, and count it unless it is to warm up."""
    what = f"{'requests to' if counts else 'warming up'} uvicorn on {served.loop}"
    before = served.about()
    command = [sys.executable, __file__, "--drive", str(served.port), "--seconds", str(seconds)]
    with subprocess.Popen(
        command + _cores()[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as clients:
        started = time.monotonic()
        while clients.poll() is None:
            progress.show(min(time.monotonic() - started, seconds), what)
            if time.monotonic() - started > seconds + 2 * PATIENCE:
                clients.kill()
                raise DemoError(f"the clients of {served.loop} did not come to an end")
            with contextlib.suppress(subprocess.TimeoutExpired):
                clients.wait(0.1)
        output, errors = clients.communicate()
    if clients.returncode:
        last = (errors.strip().splitlines() or ["no reason given"])[-1]
        raise DemoError(f"clients of the server on {served.loop}: {last}")
    progress.advance(seconds, what)
    if counts:
        seen = json.loads(output)
        served.cpu += served.about() - before
        served.requests += seen["requests"]
        served.seconds += seen["seconds"]
        served.p99.append(seen["p99"])


def _row(title: str, values: list[str], ratio: str) -> str:
    return f"{title:<26}" + "".join(f"{value:>14}" for value in values) + f"   {ratio}"


def _report(servers: list[Served]) -> str:
    first, last = servers[0], servers[-1]
    rates = [served.requests / served.seconds for served in servers]
    costs = [served.cpu / served.requests * 1e6 for served in servers]
    tails = [max(served.p99) * 1e3 for served in servers]
    total = int(sum(served.requests for served in servers))
    return "\n".join(
        (
            _row("", [served.loop for served in servers], f"{last.loop} to {first.loop}"),
            _row("requests per second", [f"{rate:,.0f}" for rate in rates],
                 f"{rates[-1] / rates[0]:.2f} times as many"),
            _row("server CPU per request", [f"{cost:.1f} us" for cost in costs],
                 f"{costs[0] / costs[-1]:.2f} times less"),
            _row("p99 latency", [f"{tail:.1f} ms" for tail in tails],
                 f"{tails[0] / tails[-1]:.2f} times less"),
            "",
            f"{total:,} answers over {CONNECTIONS} keep-alive connections, compared and all right.",
        )
    )  # fmt: skip


def demonstrate(loops: list[str], seconds: float) -> None:
    """Start the servers, drive them in turns, print what came of it; raises DemoError."""
    progress = Progress(len(loops) * (WARM_UP + SLICES * seconds))
    with contextlib.ExitStack() as stack:
        servers = [_start(loop, stack) for loop in loops]
        for served in servers:
            _drive(served, WARM_UP, progress, counts=False)
        for _ in range(SLICES):
            for served in servers:
                _drive(served, seconds, progress, counts=True)
        progress.end()
        for served in servers:
            served.stop()
        print(_report(servers))


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise DemoError(
            f"{package} cannot be imported by {sys.executable} ({error}); "
            "`make demo` sets up an environment that has it"
        ) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The same web server on asyncio and on oxloop.")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn of a server")
    parser.add_argument("--loops", default=",".join(LOOPS), help="packages with a run()")
    # What the demonstration tells its own processes.
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Be what the arguments say: the demonstration, or one of its processes."""
    arguments = _arguments()
    if arguments.serve is not None:
        server_process(arguments.serve, arguments.cpu)
        return 0
    if arguments.drive is not None:
        client_process(arguments.drive, arguments.seconds, arguments.cpu)
        return 0
    loops = arguments.loops.split(",")
    try:
        for package in (*loops, "uvicorn", "httptools"):
            _require(package)
        demonstrate(loops, arguments.seconds)
    except (DemoError, OSError, subprocess.TimeoutExpired) as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
