"""ProactorEventLoop: how it is made, why there may be none, and that nothing of it is left behind.

What it does as a loop the other tests hold, which run on it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Iterator, List

import pytest
from support.backends import GIL, proactor_unavailable
from support.children import environment_of, run_python
from support.open_files import open_files
from support.pipes import pipe_ends
from support.platforms import WINDOWS
from support.recorders import Recorder
from support.running import turns
from support.seccomp import FORBID, IO_URING_ENTER, IO_URING_REGISTER, IO_URING_SETUP
from support.sockets import LOCALHOST, bound_udp, fill, listener, tcp_pair

REASON = proactor_unavailable()
available = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def loop(oxloop: Any) -> Iterator[Any]:
    """One fresh proactor, which is closed after the test."""
    made = oxloop.ProactorEventLoop()
    yield made
    made.close()


async def echo_once(size: int = 100_000) -> int:
    """Send through a server of the running loop; the number of bytes that come back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, LOCALHOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x" * size)
    writer.write_eof()
    received = len(await reader.read())
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return received


# How it is made


class TestConfiguration:
    """IoUringProactor, which says how large a proactor is."""

    def test_its_defaults(self, oxloop: Any) -> None:
        proactor = oxloop.IoUringProactor()
        assert (proactor.entries, proactor.buffers, proactor.buffer_size) == (256, 1024, 32768)

    def test_its_values(self, oxloop: Any) -> None:
        proactor = oxloop.IoUringProactor(entries=8, buffers=16, buffer_size=1000)
        assert (proactor.entries, proactor.buffers, proactor.buffer_size) == (8, 16, 1000)
        assert repr(proactor) == "IoUringProactor(entries=8, buffers=16, buffer_size=1000)"

    def test_by_position(self, oxloop: Any) -> None:
        proactor = oxloop.IoUringProactor(8, 16, 1000)
        assert (proactor.entries, proactor.buffers, proactor.buffer_size) == (8, 16, 1000)

    def test_it_does_not_change(self, oxloop: Any) -> None:
        proactor = oxloop.IoUringProactor()
        for name in ("entries", "buffers", "buffer_size"):
            with pytest.raises(AttributeError):
                setattr(proactor, name, 1)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *[("entries", value) for value in (0, -1, 32769, 2**32, 2**64, -(2**64))],
            *[("buffers", value) for value in (0, -1, 3, 100, 32769, 65536, 2**16 + 1, 2**64)],
            *[("buffer_size", value) for value in (0, -1, 2**31, 2**32 + 1, 2**64)],
        ],
    )
    def test_sizes_out_of_range(self, oxloop: Any, name: str, value: int) -> None:
        with pytest.raises(ValueError, match="32768"):
            oxloop.IoUringProactor(**{name: value})

    @pytest.mark.parametrize("name", ["entries", "buffers", "buffer_size"])
    @pytest.mark.parametrize("wrong", ["1", 1.0, b"1", [1]], ids=repr)
    def test_wrong_types(self, oxloop: Any, name: str, wrong: Any) -> None:
        with pytest.raises(TypeError):
            oxloop.IoUringProactor(**{name: wrong})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("entries", 1),
            ("entries", 32768),
            ("buffers", 1),
            ("buffers", 32768),
            ("buffer_size", 1),
            ("buffer_size", 2**31 - 1),
        ],
    )
    def test_the_ends_of_the_ranges(self, oxloop: Any, name: str, value: int) -> None:
        assert getattr(oxloop.IoUringProactor(**{name: value}), name) == value


@available
class TestConstructor:
    """What ProactorEventLoop takes."""

    def test_it_is_a_loop_of_its_own_kind(self, oxloop: Any, loop: Any) -> None:
        assert isinstance(loop, oxloop.ProactorEventLoop)
        assert isinstance(loop, asyncio.AbstractEventLoop)
        assert not isinstance(loop, oxloop.SelectorEventLoop)
        assert loop.run_until_complete(echo_once()) == 100_000

    @pytest.mark.parametrize("keyword", [True, False], ids=["keyword", "position"])
    @pytest.mark.unix("io_uring")
    def test_a_proactor_of_the_users(self, oxloop: Any, keyword: bool) -> None:
        proactor = oxloop.IoUringProactor(entries=4, buffers=2, buffer_size=512)
        for _ in range(2):  # it is a description: a second loop can have it, too
            make = oxloop.ProactorEventLoop
            loop = make(proactor=proactor) if keyword else make(proactor)
            assert loop.run_until_complete(echo_once()) == 100_000
            loop.close()

    def test_none_is_the_default(self, oxloop: Any) -> None:
        loop = oxloop.ProactorEventLoop(None)
        assert loop.run_until_complete(echo_once(10)) == 10
        loop.close()

    @pytest.mark.parametrize("wrong", [1, "io_uring", []], ids=repr)
    def test_another_type_is_refused(self, oxloop: Any, wrong: Any) -> None:
        with pytest.raises(TypeError, match=r"proactor must be an \w+ or None"):
            oxloop.ProactorEventLoop(wrong)
        gc.collect()  # what was not made does not warn of not being closed

    def test_more_arguments_are_refused(self, oxloop: Any) -> None:
        with pytest.raises(TypeError):
            oxloop.ProactorEventLoop(None, None)
        with pytest.raises(TypeError):
            oxloop.ProactorEventLoop(selector=None)

    @pytest.mark.unix("io_uring")
    def test_a_subclass(self, oxloop: Any) -> None:
        class Loop(oxloop.ProactorEventLoop):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__(oxloop.IoUringProactor(entries=8))
                self.mine = True

        loop = Loop()
        assert loop.mine
        assert loop.run_until_complete(echo_once(10)) == 10
        loop.close()


# Why there may be none


ASK = """
import gc, os, subprocess, sys, warnings
warnings.simplefilter("error")
import oxloop
{limit}
def fds():
    return sorted(os.listdir("/proc/self/fd"))
before = fds()
for _ in range(3):
    try:
        loop = oxloop.ProactorEventLoop()
    except RuntimeError as error:
        print(error)
    else:
        loop.close()
        print("made")
gc.collect()
assert fds() == before, fds()
loop = oxloop.SelectorEventLoop()
loop.close()
"""

# Puts a file in the place of the kernel's setting, for this process alone.
COVER = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, BIND, PRIVATE = 0x20000, 0x1000, 0x44000  # sched.h, sys/mount.h
SETTING = b"/proc/sys/kernel/io_uring_disabled"
assert libc.unshare(NEW_MOUNTS) == 0, os.strerror(ctypes.get_errno())
assert libc.mount(b"none", b"/", None, PRIVATE, None) == 0, os.strerror(ctypes.get_errno())
assert libc.mount(b"{setting}", SETTING, None, BIND, None) == 0, os.strerror(ctypes.get_errno())
"""

INFO = """
from oxloop.__main__ import main
{limit}
main(["info"])
"""


def reasons(limit: str) -> List[str]:
    """What ProactorEventLoop() says under a limit, thrice, and what `oxloop info` says of it."""
    asked = run_python(ASK.replace("{limit}", limit))
    assert (asked.returncode, asked.stderr) == (0, ""), asked.stderr
    info = run_python(INFO.replace("{limit}", limit))
    assert info.returncode == 0, info.stderr
    line = next(line for line in info.stdout.splitlines() if "io_uring" in line)
    return [*asked.stdout.splitlines(), line]


class TestReasons:
    """ProactorEventLoop() raises RuntimeError, and `oxloop info` has the same reason."""

    def expect(self, limit: str, reason: str) -> None:
        """Each says `reason`."""
        said = reasons(limit)
        assert len(said) == 4
        assert all(reason in line for line in said), said
        assert len(set(said[:3])) == 1
        assert said[0] == f"ProactorEventLoop cannot be had: {said[3].partition('no: ')[2]}"

    @pytest.mark.unix("io_uring")
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            ("EPERM", "not permitted here (EPERM): a seccomp filter"),
            ("EACCES", "not permitted here (EPERM): a seccomp filter"),
            ("ENOSYS", "the kernel has no io_uring (ENOSYS)"),
            ("ENOMEM", "not enough memory for io_uring (ENOMEM)"),
            ("EMFILE", "Too many open files"),
            ("EINVAL", "no submission of whole batches: it takes Linux 5.19 or later"),
        ],
    )
    def test_what_the_system_call_answers(self, error: str, reason: str) -> None:
        """A sandbox answers in the kernel's place, as Docker's does by EPERM.

        And as an older kernel does, which knows none of the flags: EINVAL.
        """
        number = getattr(errno, error)
        self.expect(f"{FORBID}\nforbid({IO_URING_SETUP}, {number})", reason)

    @pytest.mark.unix("io_uring")
    @available
    @pytest.mark.parametrize("number", [IO_URING_ENTER, IO_URING_REGISTER])
    def test_a_ring_that_may_be_made_but_not_used(self, number: int) -> None:
        """Without io_uring_enter(2) nothing can be submitted; without io_uring_register(2) no buffers lent."""
        self.expect(f"{FORBID}\nforbid({number}, {errno.EPERM})", "not permitted here (EPERM)")

    @pytest.mark.unix("io_uring")
    @available
    def test_a_kernel_that_lends_no_buffers(self) -> None:
        """io_uring_register(2) of Linux 5.18 knows no buffer rings: EINVAL."""
        self.expect(
            f"{FORBID}\nforbid({IO_URING_REGISTER}, {errno.EINVAL})",
            "the kernel's io_uring has no buffer rings: it takes Linux 5.19 or later",
        )

    @pytest.mark.unix("io_uring")
    @available
    @pytest.mark.skipif(not GIL, reason="this interpreter's allocator needs the room first")
    def test_no_room_in_the_address_space(self) -> None:
        """mmap(2) of the buffers fails with ENOMEM."""
        child = run_python("""
import resource, oxloop
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmSize:"))
resource.setrlimit(resource.RLIMIT_AS, ((used + 65536) * 1024, resource.RLIM_INFINITY))
try:
    oxloop.ProactorEventLoop(oxloop.IoUringProactor(buffers=1024, buffer_size=1 << 20))
except RuntimeError as error:
    print(error)
""")
        assert "not enough memory for io_uring (ENOMEM)" in child.stdout, child.stderr
        assert child.stderr == ""

    @pytest.mark.unix("io_uring")
    @available
    def test_locked_memory(self, oxloop: Any) -> None:
        """The buffers count as locked memory of who has no CAP_IPC_LOCK; of root they do not."""
        limit = """
import os, resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
"""
        said = reasons(limit)
        if said[:3] == ["made"] * 3:
            pytest.skip("this kernel does not count what is lent to io_uring as locked")
        assert all("ulimit -l" in line for line in said), said

    @pytest.mark.unix("io_uring")
    @available
    def test_no_descriptor_left(self) -> None:
        """It is the error of any loop, whether the ring or what comes before it has none."""
        child = run_python("""
import errno, os, resource, oxloop
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
for room in range(4):
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
    try:
        oxloop.ProactorEventLoop().close()
    except OSError as error:
        print(errno.errorcode[error.errno])
    except RuntimeError as error:
        assert "Too many open files" in str(error)
        print("EMFILE")
    else:
        print("made")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    now = os.dup(0)
    os.close(now)
    assert now == lowest, "a descriptor is left"
""")
        assert (child.returncode, child.stderr) == (0, ""), child.stderr
        said = child.stdout.split()
        assert said[0] == "EMFILE"
        assert said[-1] == "made"
        assert said == sorted(said), "a loop that can be made with few can be made with more"

    @pytest.mark.unix("io_uring")
    @pytest.mark.parametrize("value", [1, 2])
    def test_disabled_on_this_system(self, tmp_path: Path, value: int) -> None:
        """sysctl kernel.io_uring_disabled: 2 for all, 1 for those without CAP_SYS_ADMIN.

        The setting is the machine's, and others use it: a file over it, in a mount namespace of the
        child's own, and a filter say what the kernel would.
        """
        setting = tmp_path / "io_uring_disabled"
        setting.write_text(f"{value}\n")
        disable = COVER.replace("{setting}", str(setting))
        if run_python(disable).returncode:
            pytest.skip("this user can mount nothing")
        limit = f"{disable}\n{FORBID}\nforbid({IO_URING_SETUP}, {errno.EPERM})"
        self.expect(
            limit, f"io_uring is disabled on this system (kernel.io_uring_disabled is {value})"
        )

    @pytest.mark.skipif(sys.platform in ("linux", "win32"), reason="it has a proactor")
    def test_another_system(self) -> None:
        self.expect("", "this system has no io_uring")


# How it is chosen


KIND = """
import asyncio, sys
async def main():
    return type(asyncio.get_running_loop()).__name__
"""

#: asyncio's default.
DEFAULT = "ProactorEventLoop" if WINDOWS else "SelectorEventLoop"


class TestEnvironment:
    """OXLOOP_LOOP."""

    WAYS: ClassVar[Dict[str, str]] = {
        "run": "import oxloop; print(oxloop.run(main()))",
        "new_event_loop": (
            "import oxloop; loop = oxloop.new_event_loop(); print(type(loop).__name__); loop.close()"
        ),
        "policy": (
            "import oxloop; loop = oxloop.DefaultEventLoopPolicy().new_event_loop(); "
            "print(type(loop).__name__); loop.close()"
        ),
        "install": "import oxloop; oxloop.install(); print(asyncio.run(main()))",
        "runner": (
            "import oxloop\n"
            "if sys.version_info < (3, 11): print(oxloop.run(main())); raise SystemExit\n"
            "with asyncio.Runner(loop_factory=oxloop.new_event_loop) as runner:\n"
            "    print(runner.run(main()))"
        ),
        "command line": "print(asyncio.run(main()))",
    }

    def run(self, way: str, value: Any, before: str = "") -> subprocess.CompletedProcess[str]:
        """Run the program in which a loop is made that way."""
        options = ["-m", "oxloop"] if way == "command line" else []
        environment = environment_of({} if value is None else {"OXLOOP_LOOP": value})
        return subprocess.run(
            [sys.executable, "-W", "error", *options, "-c", before + KIND + self.WAYS[way]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=25,
        )

    @pytest.mark.parametrize("way", list(WAYS))
    @pytest.mark.parametrize("value", [None, "", "selector"])
    def test_selector(self, way: str, value: Any) -> None:
        result = self.run(way, value)
        kind = DEFAULT if not value else "SelectorEventLoop"
        assert (result.stdout, result.stderr) == (f"{kind}\n", "")

    @available
    @pytest.mark.parametrize("way", list(WAYS))
    def test_proactor(self, way: str) -> None:
        result = self.run(way, "proactor")
        assert (result.stdout, result.stderr) == ("ProactorEventLoop\n", "")

    @pytest.mark.parametrize("way", list(WAYS))
    def test_neither(self, way: str) -> None:
        result = self.run(way, "Proactor")
        assert result.returncode in (1, 2)
        assert "OXLOOP_LOOP is 'Proactor'; it must be selector or proactor" in result.stderr
        assert ("ValueError" in result.stderr) is (way != "command line")

    @pytest.mark.parametrize("way", list(WAYS))
    @pytest.mark.unix("io_uring")
    def test_no_proactor_is_no_selector(self, way: str) -> None:
        """Who asks for a proactor does not silently get something else."""
        forbidden = f"{FORBID}\nforbid({IO_URING_SETUP}, {errno.EPERM})\n"
        result = self.run(way, "proactor", forbidden)
        assert (result.returncode, result.stdout) == (1, "")
        assert "RuntimeError: ProactorEventLoop cannot be had: " in result.stderr
        assert "EPERM" in result.stderr

    @available
    def test_is_read_when_a_loop_is_made(self, oxloop: Any, monkeypatch: Any) -> None:
        for value, kind in (
            ("proactor", oxloop.ProactorEventLoop),
            ("selector", oxloop.SelectorEventLoop),
        ):
            monkeypatch.setenv("OXLOOP_LOOP", value)
            loop = oxloop.new_event_loop()
            assert type(loop) is kind
            loop.close()

    def test_gives_way_to_the_program(self, oxloop: Any, monkeypatch: Any) -> None:
        monkeypatch.setenv("OXLOOP_LOOP", "neither")
        policy = oxloop.DefaultEventLoopPolicy(loop_factory=oxloop.SelectorEventLoop)
        loop = policy.new_event_loop()
        assert type(loop) is oxloop.SelectorEventLoop
        loop.close()
        oxloop.run(turns(1), loop_factory=oxloop.SelectorEventLoop)

    def test_is_shown(self, monkeypatch: Any) -> None:
        for value, shown in (
            ("proactor", "ProactorEventLoop, chosen by OXLOOP_LOOP"),
            ("selector", "SelectorEventLoop, chosen by OXLOOP_LOOP"),
            ("neither", "none: OXLOOP_LOOP is 'neither'; it must be selector or proactor"),
        ):
            result = subprocess.run(
                [sys.executable, "-m", "oxloop", "info"],
                env=environment_of({"OXLOOP_LOOP": value}),
                capture_output=True,
                text=True,
                timeout=25,
            )
            assert result.returncode == 0
            assert f"  default loop  {shown}\n" in result.stdout


@available
def test_a_policy_of_proactors(oxloop: Any) -> None:
    async def main() -> Any:
        assert await echo_once(1000) == 1000
        return type(asyncio.get_running_loop())

    policy = oxloop.DefaultEventLoopPolicy(loop_factory=oxloop.ProactorEventLoop)
    oxloop.set_event_loop_policy(policy)
    assert asyncio.run(main()) is oxloop.ProactorEventLoop
    assert oxloop.run(main()) is oxloop.ProactorEventLoop
    policy = oxloop.DefaultEventLoopPolicy(loop_factory=oxloop.ProactorEventLoop)
    loop = policy.get_event_loop()
    assert type(loop) is oxloop.ProactorEventLoop
    loop.close()


# What it leaves behind


def descriptors() -> List[str]:
    """What this process has open."""
    return sorted(str(one) for one in open_files().items())


async def in_flight(stack: contextlib.ExitStack) -> None:
    """Leave everything that a loop can be in the middle of."""
    loop: Any = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)

    def own(sock: Any) -> Any:
        return stack.enter_context(sock)

    watched, peer = (own(sock) for sock in tcp_pair())
    loop.add_reader(watched, id, None)
    fill(peer)
    loop.add_writer(peer, id, None)
    left, right = (own(sock) for sock in tcp_pair())
    filled, unread = (own(sock) for sock in tcp_pair())
    fill(filled)
    listening = own(listener())
    loop.tasks = [
        loop.create_task(loop.sock_recv(left, 10)),
        loop.create_task(loop.sock_recv_into(right, bytearray(10))),
        loop.create_task(loop.sock_sendall(filled, b"x" * 1_000_000)),
        loop.create_task(loop.sock_accept(listening)),
        loop.create_task(loop.sock_recvfrom(own(bound_udp()), 10)),
        loop.create_task(asyncio.sleep(1000)),
    ]
    await loop.create_server(Recorder, LOCALHOST, 0)
    for paused in (False, True):
        near, far = tcp_pair()
        own(far)
        transport, _ = await loop.create_connection(Recorder, sock=near)
        if paused:
            transport.pause_reading()
        transport.write(b"x" * 10_000_000)
        far.send(b"on its way")
    await loop.create_datagram_endpoint(Recorder, local_addr=(LOCALHOST, 0))
    reading, writing = pipe_ends()
    await loop.connect_read_pipe(Recorder, reading)
    await loop.connect_write_pipe(Recorder, writing)
    await turns(3)


def abandon(loop: Any) -> None:
    """Let go of what is left of a loop that was closed in the middle of everything."""
    for task in loop.__dict__.pop("tasks"):
        task._log_destroy_pending = False
        with contextlib.suppress(BaseException):
            task.get_coro().close()
        del task


@available
@pytest.mark.parametrize("how", ["running", "closed", "in another thread"])
def test_a_loop_that_is_closed_with_operations_in_flight(oxloop: Any, how: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        before = descriptors()
        with contextlib.ExitStack() as stack:
            loop = oxloop.ProactorEventLoop()
            loop.run_until_complete(in_flight(stack))
            if how == "in another thread":
                thread = threading.Thread(target=loop.close)
                thread.start()
                thread.join()
            else:
                loop.close()
            abandon(loop)
            del loop
            gc.collect()
        assert descriptors() == before


@available
def test_a_loop_that_is_dropped_with_operations_in_flight(oxloop: Any) -> None:
    before = descriptors()
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = oxloop.ProactorEventLoop()
        loop.run_until_complete(in_flight(stack))
        abandon(loop)
        del loop
        gc.collect()
        gc.collect()
    gc.collect()
    assert descriptors() == before


@available
def test_a_peer_of_a_closed_loops_transport(oxloop: Any) -> None:
    """What belongs to the user is the user's again: closed by him it is closed for the peer."""
    loop = oxloop.ProactorEventLoop()
    left, right = tcp_pair()
    task = loop.create_task(loop.sock_recv(left, 10))
    loop.run_until_complete(turns(3))
    loop.close()
    left.close()
    assert right.recv(10) == b""
    right.close()
    task._log_destroy_pending = False
    task.get_coro().close()


@available
def test_a_loop_of_three_threads(oxloop: Any) -> None:
    """It runs in one thread, then in another, and a third one closes it."""
    before = descriptors()
    loop = oxloop.ProactorEventLoop()
    left, right = tcp_pair()
    results: List[Any] = []
    protocols: List[Recorder] = []

    async def begin() -> None:
        _, protocol = await loop.create_connection(Recorder, sock=left)
        protocols.append(protocol)
        right.send(b"first ")
        await protocol.received(6)

    async def go_on() -> None:
        right.send(b"second ")
        await protocols[0].received(20)  # with what came between

    async def end() -> None:
        right.close()
        await protocols[0].lost()
        results.append(await echo_once())

    def in_a_thread(work: Callable[[], Any]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                results.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        thread.join()

    in_a_thread(lambda: loop.run_until_complete(begin()))
    right.send(b"between")
    in_a_thread(lambda: loop.run_until_complete(go_on()))
    in_a_thread(lambda: loop.run_until_complete(end()))
    in_a_thread(loop.close)
    assert results == [100_000]
    assert protocols[0].data == b"first betweensecond "
    assert loop.is_closed()
    assert descriptors() == before


@available
def test_many_threads_with_a_loop_each(oxloop: Any) -> None:
    before = descriptors()
    results: List[Any] = []
    start = threading.Barrier(16)

    def work() -> None:
        start.wait()
        try:
            for _ in range(3):
                results.append(oxloop.run(echo_once(), loop_factory=oxloop.ProactorEventLoop))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [100_000] * 48
    assert descriptors() == before


@available
def test_many_loops_one_after_the_other(oxloop: Any) -> None:
    """Nor is anything of a ring left that is no descriptor: mappings, locked memory."""

    def mappings() -> int:
        if WINDOWS:
            return 0
        with open("/proc/self/maps", encoding="ascii") as maps:
            return sum("io_uring" in line for line in maps)

    before = mappings(), descriptors()
    for _ in range(200):
        loop = oxloop.ProactorEventLoop()
        loop.run_until_complete(turns(1))
        loop.close()
    assert (mappings(), descriptors()) == before


FORK = """
import asyncio, gc, os, signal, sys, warnings
warnings.simplefilter("ignore")
import oxloop

async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()

async def exchange(reader, writer, count=20):
    for number in range(count):
        piece = b"%d" % number * 5000
        writer.write(piece)
        assert await reader.readexactly(len(piece)) == piece

async def work():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await exchange(reader, writer)
    writer.close()
    server.close()
    await asyncio.sleep(0)

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await exchange(reader, writer)
    loop = asyncio.get_running_loop()
    writer.write(b"on its way while the process forks")
    timer = loop.call_later(0.005, lambda: None)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)
            child(loop)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    code = await loop.run_in_executor(None, os.waitpid, pid, 0)
    assert code == (pid, 0), code
    expected = b"on its way while the process forks"
    assert await reader.readexactly(len(expected)) == expected
    await exchange(reader, writer)
    await asyncio.sleep(0.01)
    process = await asyncio.create_subprocess_exec("/bin/true")
    assert await process.wait() == 0
    writer.close()
    server.close()
    await asyncio.sleep(0)
    print("unharmed")

def child(parents):
    {child}

oxloop.run(main(), loop_factory=oxloop.ProactorEventLoop)
"""


@pytest.mark.unix("fork")
@available
@pytest.mark.parametrize(
    "child",
    [
        "asyncio._set_running_loop(None); oxloop.run(work(), loop_factory=oxloop.ProactorEventLoop)",
        "asyncio._set_running_loop(None); oxloop.run(work(), loop_factory=oxloop.SelectorEventLoop)",
        "parents.call_soon_threadsafe(print)",
        "gc.collect()",
    ],
    ids=["proactor", "selector", "parent's loop", "nothing"],
)
def test_a_process_that_forks_in_its_loop(child: str) -> None:
    """The child makes a loop of its own; that of its parent is none of its business."""
    if not GIL and "loop" in child:
        pytest.skip("CPython 3.14.0 without a GIL: a forked child hangs in any loop's first run")
    result = run_python(FORK.replace("{child}", child))
    assert (result.stdout, result.returncode) == ("unharmed\n", 0), result.stderr


LEFT = """
import gc, os, signal, sys, warnings
warnings.simplefilter("ignore")
import asyncio, oxloop, socket

left, right = socket.socketpair()
left.setblocking(False)
loop = oxloop.ProactorEventLoop()
got = []
loop.add_reader(left, lambda: got.append(left.recv(10)))
loop.run_until_complete(asyncio.sleep(0.001))
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    try:
        {child}
    except RuntimeError as error:
        pass
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
right.send(b"data")
loop.run_until_complete(asyncio.sleep(0.001))
assert got == [b"data"], got
loop.call_soon_threadsafe(loop.stop)
loop.run_forever()
loop.remove_reader(left)
left.close()
assert right.recv(10) == b""
loop.close()
right.close()
print("unharmed")
"""


@pytest.mark.unix("fork")
@available
@pytest.mark.parametrize("child", ["loop.close()", "del loop; gc.collect()", "os._exit(0)"])
def test_a_forked_child_that_ends_its_parents_loop(child: str) -> None:
    """It has the same ring, in which its parent's operations are under way."""
    result = run_python(LEFT.replace("{child}", child))
    assert (result.stdout, result.returncode) == ("unharmed\n", 0), result.stderr


# Shortages of its own


SMALL = [(1, 1, 64), (1, 1, 4096), (2, 2, 512), (4, 4, 65536)]


@available
@pytest.mark.parametrize("sizes", SMALL, ids=str)
@pytest.mark.unix("io_uring")
def test_more_connections_than_buffers(oxloop: Any, sizes: Any) -> None:
    """They share, in turn; one with much to receive does not keep the others waiting."""
    data = bytes(range(256)) * 400

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        flooded, flood = tcp_pair()
        _, flooding = await loop.create_connection(Recorder, sock=flooded)
        ends = []
        for _ in range(20):
            left, right = tcp_pair()
            _, protocol = await loop.create_connection(Recorder, sock=left)
            ends.append((protocol, right))
        endless = asyncio.ensure_future(loop.sock_sendall(flood, data * 100))
        for number in range(10):
            for protocol, right in ends:
                right.send(b"%d" % number)
            for protocol, right in ends:
                await protocol.received(number + 1)
        if not endless.done():
            assert len(flooding.data) < len(data) * 100, "it was not at the expense of the others"
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)
        for protocol, right in ends:
            assert protocol.data == b"0123456789"
            right.close()
            assert await protocol.lost() is None
        flood.close()
        await flooding.lost()
        assert bytes(flooding.data) == (data * 100)[: len(flooding.data)]

    loop = oxloop.ProactorEventLoop(oxloop.IoUringProactor(*sizes))
    loop.run_until_complete(main())
    loop.close()


@available
@pytest.mark.unix("io_uring")
def test_paused_connections_keep_no_buffer_from_others(oxloop: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        paused = []
        for _ in range(20):
            left, right = tcp_pair()
            transport, protocol = await loop.create_connection(Recorder, sock=left)
            await turns(2)
            right.send(b"x" * 1000)
            transport.pause_reading()
            paused.append((protocol, right))
        await turns(3)
        assert await echo_once() == 100_000
        for protocol, right in paused:
            assert protocol.events == ["made"]
            protocol.transport.resume_reading()
            assert await protocol.received(1000) == b"x" * 1000
            right.close()
            await protocol.lost()

    loop = oxloop.ProactorEventLoop(oxloop.IoUringProactor(buffers=2, buffer_size=512))
    loop.run_until_complete(main())
    loop.close()


@available
@pytest.mark.parametrize("entries", [1, 2, 256])
@pytest.mark.unix("io_uring")
def test_more_operations_than_entries(oxloop: Any, entries: int) -> None:
    """They begin in one turn, and end in one."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        pairs = [tcp_pair() for _ in range(300)]
        reading = [asyncio.ensure_future(loop.sock_recv(left, 10)) for left, _ in pairs]
        await turns(3)
        for number, (_, right) in enumerate(pairs):
            right.send(b"%d" % number)
        assert await asyncio.gather(*reading) == [b"%d" % number for number in range(300)]
        reading = [asyncio.ensure_future(loop.sock_recv(left, 10)) for left, _ in pairs]
        await turns(3)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for left, right in pairs:
            left.close()
            assert right.recv(10) == b""
            right.close()

    loop = oxloop.ProactorEventLoop(oxloop.IoUringProactor(entries=entries))
    loop.run_until_complete(main())
    loop.close()


MANY = 10_000


@available
@pytest.mark.unix("a limit of descriptors")
def test_ten_thousand_connections(oxloop: Any) -> None:
    """All that the limit allows are open at once; afterwards no descriptor is left, and no slot."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = descriptors()
    batch = min(MANY, (hard - len(before) - 100) // 2)
    loop = oxloop.ProactorEventLoop()
    ends = 0

    class Served(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def connection_lost(self, exc: Any) -> None:
            nonlocal ends
            ends += 1

    async def one_batch(address: Any, count: int) -> None:
        protocols = []
        for start in range(0, count, 100):
            made = await asyncio.gather(
                *[
                    loop.create_connection(Recorder, *address)
                    for _ in range(min(100, count - start))
                ]
            )
            protocols += [protocol for _, protocol in made]
        for number, protocol in enumerate(protocols):
            protocol.transport.write(b"%d" % number)
        for number, protocol in enumerate(protocols):
            assert await protocol.received(len(b"%d" % number)) == b"%d" % number
        for protocol in protocols:
            protocol.transport.close()
        for protocol in protocols:
            await protocol.lost()

    async def main() -> None:
        server = await loop.create_server(Served, LOCALHOST, 0, backlog=1000)
        address = server.sockets[0].getsockname()
        left = MANY
        while left:
            count = min(batch, left)
            await one_batch(address, count)
            left -= count
            while ends < MANY - left:
                await asyncio.sleep(0.001)
        server.close()
        await turns(3)

    try:
        loop.run_until_complete(main())
        loop.close()
        assert ends == MANY
        assert descriptors() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@available
@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.unix("io_uring")
def test_what_came_before_another_thread_runs_the_loop(oxloop: Any, buffers: int) -> None:
    """All buffers are full then, and the new ring must have none of them before they are told."""
    config = oxloop.IoUringProactor(entries=1, buffers=buffers, buffer_size=64)
    loop = oxloop.ProactorEventLoop(config)
    protocol = Recorder()
    left, right = tcp_pair()

    async def first() -> None:
        await loop.create_connection(lambda: protocol, sock=left)
        await asyncio.sleep(0.001)
        right.send(b"1" * 64 * buffers)

    async def second() -> None:
        assert await protocol.received(64 * buffers + 6) == b"1" * 64 * buffers + b"SECOND"
        protocol.transport.abort()
        await protocol.until_event("lost")

    errors: List[BaseException] = []

    def run_again() -> None:
        try:
            loop.run_until_complete(asyncio.wait_for(second(), 10))
        except BaseException as error:
            errors.append(error)

    loop.run_until_complete(first())
    right.send(b"SECOND")
    thread = threading.Thread(target=run_again)
    thread.start()
    thread.join()
    loop.close()
    right.close()
    assert errors == []


@pytest.mark.unix("a limit of descriptors")
@available
def test_another_thread_without_descriptors(oxloop: Any) -> None:
    """The ring of the thread that ran the loop before leaves its descriptor to the next one."""
    child = run_python(
        f"import sys; sys.path.append({str(Path(__file__).parent)!r})"
        """
import asyncio, threading, oxloop
from support.descriptors import few_descriptors, no_more_descriptors
loop = oxloop.ProactorEventLoop()
loop.run_until_complete(asyncio.sleep(0.001))
with few_descriptors(), no_more_descriptors():
    run = lambda: print(loop.run_until_complete(asyncio.sleep(0.001, "ran")))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
loop.close()
"""
    )
    assert (child.stdout, child.returncode) == ("ran\n", 0), child.stderr
