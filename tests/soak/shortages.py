"""What goes beyond one loop: no descriptors left, forks, other loops, abandoned things."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from typing import Any, Awaitable, Callable, Iterator, List

from support.backends import GIL
from support.descriptors import no_more_descriptors
from support.sockets import LOCALHOST, bound_udp, listener

from soak.lifecycle import Round, closing_all, lifecycle


async def refused(awaitable: Awaitable[Any]) -> None:
    """Find that there is no descriptor for this."""
    try:
        await awaitable
    except OSError:
        return
    raise AssertionError("made without a descriptor")


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let no number below those in use be free first: poll(2) refuses more descriptors than the limit."""
    gc.collect()
    gc.disable()  # or it would free some in the middle
    held: List[int] = []
    try:
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        while not held or held[-1] < used:
            held.append(os.dup(0))
        with no_more_descriptors():
            yield
    finally:
        gc.enable()
        for number in held:
            os.close(number)


@lifecycle(alone=True)
async def no_descriptors(round_: Round) -> None:
    """Whatever needs a descriptor raises, and leaves nothing half made."""
    loop = round_.loop
    with listener() as listening, bound_udp() as udp:
        address = listening.getsockname()
        attempts: List[Callable[[], Awaitable[Any]]] = [
            lambda: loop.create_connection(round_.protocol, *address),
            lambda: loop.create_connection(round_.protocol, *address, happy_eyeballs_delay=0.01),
            lambda: loop.create_unix_connection(round_.protocol, "/nonexistent"),
            lambda: loop.create_datagram_endpoint(round_.protocol, remote_addr=udp.getsockname()),
            lambda: asyncio.create_subprocess_exec("true", stdin=-1, stdout=-1, stderr=-1),
        ]
        with no_descriptors_left():
            for attempt in round_.dice.sample(attempts, 3):
                await refused(attempt())
            with contextlib.suppress(OSError):
                server = await loop.create_server(round_.protocol, LOCALHOST, 0)
                assert not server.sockets  # asyncio took it for a family that there is not
                server.close()
            try:
                round_.new_loop().close()
            except (OSError, RuntimeError) as error:
                # A proactor says why it cannot be had.
                assert isinstance(error, OSError) or "Too many open files" in str(error)
            else:
                raise AssertionError("a loop was made without descriptors")


# asyncio's server reports that its socket is gone by the time that it would try again.
@lifecycle(alone=True, tolerates=(OSError, ValueError))
async def accept_without_descriptors(round_: Round) -> None:
    """A listener that cannot accept: it tells, and is closed or goes on in a second."""
    protocols: List[Any] = []

    def factory() -> Any:
        protocols.append(round_.protocol("data"))
        return protocols[-1]

    server = await round_.loop.create_server(factory, LOCALHOST, 0)
    with closing_all() as sockets:
        sockets.append(socket.socket())
        sockets[0].setblocking(False)
        with no_descriptors_left():
            sockets[0].connect_ex(server.sockets[0].getsockname())
            await round_.turns(8)
        if round_.chance(0.02):
            while not protocols:
                await asyncio.sleep(0.01)
        server.close()
        await round_.turns(4)
        for protocol in protocols:
            await protocol.until_event("made")
            await round_.end(protocol.transport, protocol)
    await server.wait_closed()


@lifecycle(alone=True)
async def fork(round_: Round) -> None:
    """A child is forked while the loop runs, and runs a loop of its own."""
    if not GIL:
        return  # CPython 3.14.0 without a GIL: no forked child gets beyond asyncio's own first loop
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            status = in_the_child(round_)
        finally:
            os._exit(status)
    os.close(writing)
    ended = round_.loop.create_future()
    round_.loop.add_reader(reading, ended.set_result, None)
    await ended
    round_.loop.remove_reader(reading)
    os.close(reading)
    assert os.waitpid(pid, 0)[1] == 0


def in_the_child(round_: Round) -> int:
    """Run a fresh loop in a forked child; its exit status."""

    async def main() -> int:
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        with left, right:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(left, b"x")
            return len(await loop.sock_recv(right, 10)) - 1

    asyncio._set_running_loop(None)  # asyncio's is still that of the parent on some versions
    loop = round_.new_loop()
    status: int = loop.run_until_complete(main())
    if round_.chance(0.5):
        loop.close()
    return status


class Referring(asyncio.Protocol):
    """A protocol that refers to its loop, so that both are part of a cycle."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop


@lifecycle()
async def another_loop(round_: Round) -> None:
    """A loop in another thread: run, left with things in flight, closed or abandoned."""

    def use_a_loop() -> None:
        loop = round_.new_loop()
        loop.call_later(3600, id, loop)
        loop.call_soon_threadsafe(id, loop)
        loop.run_until_complete(asyncio.sleep(0))
        left, right = socket.socketpair()
        left.setblocking(False)
        protocol = Referring(loop)
        loop.run_until_complete(loop.create_connection(lambda: protocol, sock=left))
        loop.add_reader(right, id, loop)
        if round_.chance(0.7):
            loop.close()
            try:
                loop.call_soon_threadsafe(id, None)
            except RuntimeError:
                pass
            else:
                raise AssertionError("a closed loop took a callback")
        right.close()

    await round_.loop.run_in_executor(None, use_a_loop)
