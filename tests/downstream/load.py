"""``python -m tests.downstream.load``: a real uvicorn and a real aiohttp under load, for minutes.

Each is a process of its own on the loop that is named. Many clients, on the same kind of loop, ask both at once: small
answers, large ones, uploads, echoes that come while they are being sent, and some leave in the middle. Each answer is
compared with what was asked for. Every few seconds all clients leave, and the server must have as many descriptors as
before; in the end it must not have grown, and SIGTERM ends it without a word.

Exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import hashlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import AsyncIterator, Awaitable, Callable, Counter, Dict, List, Tuple

from . import place, services
from .http_client import connected
from .libraries import LOOPS, kind_of
from .place import body, soon, until
from .processes import listens

Address = Tuple[str, int]

PROGRAMS = {
    "uvicorn": """
import uvicorn
uvicorn.run(
    "tests.downstream.application:application", port={port}, log_level="warning",
    loop="{loops}:new_event_loop",
)
""",
    "aiohttp": """
import {loops} as loops
from aiohttp import web
from tests.downstream.with_aiohttp import new_application
web.run_app(
    new_application(), host="127.0.0.1", port={port}, loop=loops.new_event_loop(), print=None
)
""",
}

SIZES = (0, 1, 1000, 1000, 1000, 20_000, 65_536, 300_000, 2 << 20)
BURST = 5.0  # seconds, after which all clients leave
TOLERANCE = 0.5  # by how much of itself a server may have grown after its warm-up
ENOUGH = 60  # bursts, to say so


@dataclass
class Server:
    """A server's process, and what it held when nobody was connected, burst after burst."""

    name: str
    process: asyncio.subprocess.Process
    address: Address
    descriptors: int = 0
    resident: List[int] = field(default_factory=list)

    def count_descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def rest(self) -> None:
        """Wait until nobody's connection is left, and note how large it is."""
        await until(lambda: self.count_descriptors() <= self.descriptors, f"{self.name}'s rest")
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            self.resident.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    def growth(self) -> float:
        """By how much of itself it has grown, from the first third after the warm-up to the last.

        The least of each third counts: what waits for the garbage collector comes and goes.
        """
        counted = self.resident[len(self.resident) // 4 :]
        third = max(len(counted) // 3, 1)
        return min(counted[-third:]) / min(counted[:third]) - 1


# What a client does


async def _answers(address: Address, dice: random.Random) -> None:
    """Requests one after the other on one connection."""
    async with connected(*address) as client:
        for _ in range(dice.randrange(1, 50)):
            size = dice.choice(SIZES)
            answer = await client.ask(f"/bytes?n={size}")
            assert (answer.status, answer.body) == (200, body(size)), size


async def _pipelined(address: Address, dice: random.Random) -> None:
    """Requests that do not wait for the answers before them."""
    async with connected(*address) as client:
        sizes = [dice.randrange(3000) for _ in range(20)]
        for size in sizes:
            await client.send(f"/bytes?n={size}")
        for size in sizes:
            assert (await client.receive()).body == body(size), size


async def _uploads(address: Address, dice: random.Random) -> None:
    async with connected(*address) as client:
        content = body(dice.choice(SIZES))
        answer = await client.ask("/digest", content, method="POST")
        digest = hashlib.sha256(content).hexdigest()
        assert answer.json() == {"length": len(content), "sha256": digest}, len(content)


async def _echoes(address: Address, dice: random.Random) -> None:
    pieces = [body(dice.randrange(1, 100_000)) for _ in range(dice.randrange(1, 20))]
    async with connected(*address) as client:
        sending = asyncio.ensure_future(client.send_chunks("/echo", pieces))
        answer = await client.receive()
        await sending
        assert answer.body == b"".join(pieces)


async def _leaves(address: Address, dice: random.Random) -> None:
    """Asks for much, reads a little of it, and goes; by a reset, or not."""
    async with connected(*address) as client:
        await client.send(f"/bytes?n={8 << 20}")
        await soon(client.reader.read(dice.randrange(1, 100_000)))
        if dice.random() < 0.5:
            client.writer.transport.abort()


ACTIONS: Dict[str, Callable[[Address, random.Random], Awaitable[None]]] = {
    "answers": _answers,
    "pipelined": _pipelined,
    "uploads": _uploads,
    "echoes": _echoes,
    "leaves": _leaves,
}


async def _client(servers: List[Server], end: float, seed: int, done: Counter[str]) -> None:
    """One client until `end`, of `time.monotonic()`."""
    dice = random.Random(seed)
    while time.monotonic() < end:
        server, name = dice.choice(servers), dice.choice(list(ACTIONS))
        await ACTIONS[name](server.address, dice)
        done[f"{server.name} {name}"] += 1


# The servers


@contextlib.asynccontextmanager
async def _serving(name: str) -> AsyncIterator[Server]:
    """A server of the library `name`, which ends by SIGTERM and has nothing to say."""
    port = services.free_port()
    program = PROGRAMS[name].format(loops=place.loop_package(), port=port)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        # Large blocks are mappings of their own, which go back at once: what stays is held, and no fragment.
        env={**place.environment(), "MALLOC_MMAP_THRESHOLD_": "65536"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    output = asyncio.ensure_future(process.stdout.read())
    server = Server(name, process, ("127.0.0.1", port))
    try:
        await until(lambda: listens(server.address) or output.done(), f"{name}'s socket")
        await _answers(server.address, random.Random(0))
        server.descriptors = server.count_descriptors()
        yield server
        process.send_signal(signal.SIGTERM)
        code = await soon(process.wait())
        assert code in (0, -signal.SIGTERM), code
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        text = (await soon(output)).decode()
    assert not text, text


async def load(names: List[str], minutes: float, clients: int, seed: int) -> None:
    """Serve by all of them, burst after burst; AssertionError tells of what is wrong."""
    done: Counter[str] = collections.Counter()
    end = time.monotonic() + minutes * 60
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(_serving(name)) for name in names]
        while (now := time.monotonic()) < end:
            seed += clients
            seeds = range(seed, seed + clients)
            burst_end = min(now + BURST, end)
            await asyncio.gather(*[_client(servers, burst_end, one, done) for one in seeds])
            for server in servers:
                await server.rest()
    for action, count in sorted(done.items()):
        print(f"{action:20} {count}")
    for server in servers:
        print(
            f"{server.name}: {server.descriptors} descriptors as before, {server.growth():+.1%} of",
            *(f"{size >> 20}" for size in server.resident),
            "MiB",
        )
        if len(server.resident) >= ENOUGH:
            assert server.growth() < TOLERANCE, f"{server.name} grows"


def main() -> None:
    """Load what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.downstream.load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--loop", choices=LOOPS, default=LOOPS[-1], help=f"default: {LOOPS[-1]}")
    parser.add_argument("--clients", type=int, default=50, help="at the same time (default: 50)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("servers", nargs="*", choices=[[], *PROGRAMS], metavar="server")
    options = parser.parse_args()
    os.environ["DOWNSTREAM_LOOP"] = options.loop
    os.environ["OXLOOP_LOOP"] = kind_of(options.loop)
    print(f"{options.loop}, seed {options.seed}: {options.minutes:g} minutes", flush=True)
    loop = place.loop_factory()()
    names = options.servers or list(PROGRAMS)
    try:
        loop.run_until_complete(load(names, options.minutes, options.clients, options.seed))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
