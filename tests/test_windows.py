"""Windows: the platform section of asyncio's chapter, with its limits lifted, on both loop classes.

Where asyncio's own loop raises NotImplementedError the test is skipped on it, which says so: that is a
limit that oxloop lifts. Pipes, processes and signals have files of their own, beside this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import itertools
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any, List, Tuple

import pytest
from support.backends import Backend
from support.children import environment_of
from support.platforms import WINDOWS
from support.recorders import Recorder
from support.running import Run
from support.sockets import LOCALHOST, listener, tcp_pair

pytestmark = pytest.mark.skipif(not WINDOWS, reason="for Windows")


# Watching sockets


def test_what_is_no_socket_is_not_watched(loop: Any, backend: Backend, tmp_path: Path) -> None:
    """The chapter: they "only accept file descriptors of sockets"."""
    if backend.is_oracle or backend.name == "user":
        pytest.skip("asyncio's next select() fails")
    with open(tmp_path / "file", "wb") as file:
        for method in (loop.add_reader, loop.add_writer):
            with pytest.raises((OSError, ValueError)):
                method(file, print)


@pytest.mark.parametrize("count", [600])
def test_more_than_512_sockets(loop: Any, backend: Backend, count: int) -> None:
    """The chapter: "SelectSelector is used which only supports sockets and is limited to 512"."""
    if backend.name in ("asyncio-selector", "user"):
        pytest.skip("select.select() raises ValueError: too many file descriptors")
    with contextlib.ExitStack() as stack:
        pairs = [tcp_pair() for _ in range(count)]
        for sock in itertools.chain.from_iterable(pairs):
            stack.callback(sock.close)
        watch_all(loop, pairs)


def watch_all(loop: Any, pairs: List[Tuple[socket.socket, socket.socket]]) -> None:
    """Each pair's first socket becomes readable, and is seen once."""
    seen = set()

    def readable(number: int) -> None:
        pairs[number][0].recv(1)
        seen.add(number)
        if len(seen) == len(pairs):
            loop.stop()

    for number, (left, _) in enumerate(pairs):
        loop.add_reader(left, readable, number)
    for _, right in pairs:
        right.send(b"x")
    loop.run_forever()
    assert seen == set(range(len(pairs)))
    for left, _ in pairs:
        assert loop.remove_reader(left)


def test_more_than_512_connections(run: Run, backend: Backend) -> None:
    if backend.name in ("asyncio-selector", "user"):
        pytest.skip("select.select() raises ValueError: too many file descriptors")
    count = 300  # each has two sockets here

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, LOCALHOST, 0, backlog=count)
        address = server.sockets[0].getsockname()
        streams = [await asyncio.open_connection(*address) for _ in range(count)]
        for number, (_, writer) in enumerate(streams):
            writer.write(b"%d\n" % number)
        for number, (reader, _) in enumerate(streams):
            assert await reader.readline() == b"%d\n" % number
        for _, writer in streams:
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main)


# Timers


def test_timers_are_finer_than_the_clock_of_windows(run: Run, backend: Backend) -> None:
    """The chapter: "The resolution of the monotonic clock on Windows is usually around 15.6 msec".

    Timers that are due one millisecond after the other come in different turns, and none too soon.
    """
    if backend.is_oracle:
        pytest.skip("asyncio rounds to what its clock says")
    delays = [number / 1000 for number in range(1, 21)]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        start = loop.time()
        seen: List[Tuple[float, float]] = []
        turn = itertools.count()

        def due(delay: float) -> None:
            seen.append((delay, loop.time() - start))
            if len(seen) == len(delays):
                done.set_result(next(turn))

        for delay in reversed(delays):
            loop.call_at(start + delay, due, delay)
        await done
        assert [delay for delay, _ in seen] == delays
        assert all(passed >= delay for delay, passed in seen), seen

    run(main)


def test_the_clock_of_the_loop_is_fine(loop: Any, backend: Backend) -> None:
    if backend.is_oracle:
        pytest.skip("asyncio's is time.monotonic(), in steps of 15.6 ms before Python 3.13")
    before = loop.time()
    while (after := loop.time()) == before:
        pass
    assert after - before < 0.005


def test_the_resolution_of_the_system_is_left_alone(backend: Backend) -> None:
    """Nobody else's timers get finer, which costs power: winmm's timeBeginPeriod() is not there."""
    source = backend.source + (
        "import asyncio, ctypes\n"
        "def loaded(name): return ctypes.WinDLL('kernel32').GetModuleHandleW(name)\n"
        "before = loaded('winmm.dll')\n"
        "loop = new_loop()\nloop.run_until_complete(asyncio.sleep(0.002))\nloop.close()\n"
        "print(before or not loaded('winmm.dll'))\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=25
    )
    assert (child.stdout, child.stderr) == ("True\n", "")


# Policies, child watchers and what Windows does not have


def windows_events() -> Any:
    """asyncio's module, which imports nowhere else."""
    return importlib.import_module("asyncio.windows_events")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["Selector", "Proactor"])
def test_the_policies(package: Any, kind: str) -> None:
    policy = getattr(package, f"Windows{kind}EventLoopPolicy")()
    loop = policy.new_event_loop()
    assert isinstance(loop, getattr(package, f"{kind}EventLoop"))
    loop.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_default_policy_makes_proactors(package: Any) -> None:
    """As asyncio's since Python 3.8."""
    loop = package.DefaultEventLoopPolicy().new_event_loop()
    assert isinstance(loop, package.ProactorEventLoop)
    loop.close()
    loop = package.new_event_loop()
    assert isinstance(loop, package.ProactorEventLoop)
    loop.close()


def test_asyncios_names(oxloop: Any) -> None:
    """Those of `asyncio.windows_events`; 3.14 has put an underscore before its policies."""
    names = {name.lstrip("_") for name in windows_events().__all__} - {"EventLoop"}
    assert len(names) == 6
    assert names <= set(oxloop.__all__)


def test_an_iocp_proactor_as_the_argument(oxloop: Any) -> None:
    """asyncio's constructor takes an IocpProactor."""
    proactor = oxloop.IocpProactor()
    loop = oxloop.ProactorEventLoop(proactor)
    assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
    loop.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["get_child_watcher", "set_child_watcher"])
def test_there_are_no_child_watchers(oxloop: Any, name: str) -> None:
    """The chapter: "EventLoopPolicy.set_child_watcher() is not supported"."""
    arguments = () if name.startswith("get") else (None,)
    for owner in (oxloop, oxloop.get_event_loop_policy()):
        with pytest.raises(NotImplementedError):
            getattr(owner, name)(*arguments)


@pytest.mark.skipif(hasattr(socket, "AF_UNIX"), reason="this Python has AF_UNIX")
@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_there_are_no_unix_sockets(run: Run, backend: Backend, tmp_path: Path, method: str) -> None:
    """The chapter: they "are not supported"; oxloop says what is missing."""
    reason = None if backend.is_oracle else r"this Python has no Unix sockets \(socket\.AF_UNIX\)"

    async def main() -> None:
        with pytest.raises(NotImplementedError, match=reason):
            await getattr(asyncio.get_running_loop(), method)(Recorder, str(tmp_path / "s"))

    run(main)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this Python has no AF_UNIX")
def test_unix_sockets(run: Run, backend: Backend, tmp_path: Path) -> None:
    """They work where Python has AF_UNIX."""
    if backend.is_oracle:
        pytest.skip("asyncio raises NotImplementedError all the same")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(Recorder, str(tmp_path / "s"))
        transport, protocol = await loop.create_unix_connection(Recorder, str(tmp_path / "s"))
        transport.close()
        await protocol.lost()
        server.close()
        await server.wait_closed()

    run(main)


def test_a_listener_is_shared(run: Run, backend: Backend) -> None:
    """Processes that serve one socket, as uvicorn's workers: it can have one completion port only."""
    if backend.name == "asyncio":
        pytest.skip("asyncio's proactor: WinError 87")
    source = """
import asyncio, socket, sys
async def serve(reader, writer):
    writer.write(b"child")
    writer.close()
async def main():
    sock = socket.fromshare(bytes.fromhex(sys.stdin.readline()))
    await asyncio.start_server(serve, sock=sock)
    print("serving", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
new_loop().run_until_complete(main())
"""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"parent")
        writer.close()

    async def main(sock: socket.socket) -> None:
        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            answer = await reader.read()
            writer.close()
            return answer

        assert {await ask() for _ in range(5)} == {b"child"}
        async with await asyncio.start_server(serve, sock=sock):
            answers = await asyncio.gather(*(ask() for _ in range(20)))
            assert set(answers) <= {b"child", b"parent"}
            await asyncio.get_running_loop().run_in_executor(None, child.communicate)
            assert {await ask() for _ in range(5)} == {b"parent"}

    with (
        subprocess.Popen(
            [sys.executable, "-c", backend.source + source],
            env=environment_of(),
            stdin=PIPE,
            stdout=PIPE,
            text=True,
        ) as child,
        listener() as sock,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(sock.share(child.pid).hex() + "\n")
        child.stdin.flush()
        assert child.stdout.readline() == "serving\n"
        run(lambda: main(sock))


def test_many_loops_leave_no_handle(backend: Backend) -> None:
    """Completion ports, wake-ups and what watches sockets are closed with their loop."""

    def once() -> None:
        loop = backend.new_loop()
        left, right = tcp_pair()
        with left, right:
            loop.run_until_complete(loop.sock_sendall(left, b"x"))
            loop.run_until_complete(loop.sock_recv(right, 1))
        loop.close()

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]

    def lowest_free() -> int:
        """The number of a new handle: the lowest free one is taken."""
        handle = kernel.CreateEventW(None, False, False, None)
        kernel.CloseHandle(handle)
        return int(handle)

    for _ in range(5):
        once()
    before = lowest_free()
    for _ in range(30):
        once()
    assert lowest_free() <= before + 8
