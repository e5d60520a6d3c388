"""One measurement in a fresh process: `worker.py --loop uvloop --workload call_soon_chain`.

A workload that needs nobody else is run for a while and its result printed as a line of JSON. A
server prints `{"listening": address}` and serves until it is killed; its CPU time is read from
outside, so that nothing but the workload runs in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
import time
from typing import Callable

import loops
import workloads
from workloads.model import AroundLoop, IdleMemory, InLoop, Lateness, Listening, Server

# Seconds; a server whose parent died must not live on.
SERVER_LIFETIME = 300


def _age_allocator() -> None:
    """Bring glibc's malloc into the state of a process that has lived for a while.

    Blocks above a threshold are mapped for each allocation and cost page faults; the first one
    freed raises the threshold for good (mallopt(3), M_MMAP_THRESHOLD). Whether that has happened
    decides what receiving into 256 KiB costs, 3 or 20 us, and would depend on what was imported.
    """
    block = bytearray(2**20)
    del block


def _repeat(batch: Callable[[], None], operations: int, seconds: float) -> dict[str, float]:
    """Run batches for about that many seconds after one to warm up; CPU is user plus system."""
    batch()
    gc.collect()
    count = 0
    started, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        batch()
        count += operations
    cpu, wall = time.process_time() - used, time.perf_counter() - started
    return {"cpu_us": cpu / count * 1e6, "rate": count / wall}


def _in_loop(workload: InLoop, make: loops.LoopFactory, seconds: float) -> dict[str, float]:
    loop = make()
    result = _repeat(
        lambda: loop.run_until_complete(workload.body(workload.batch)), workload.batch, seconds
    )
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return result


def _lateness(workload: Lateness, make: loops.LoopFactory, seconds: float) -> dict[str, float]:
    """Sleep again and again; the median of how late it woke, and the earliest."""
    late: list[float] = []

    async def sleeps() -> None:
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            started = time.monotonic()
            await asyncio.sleep(workload.delay)
            late.append(time.monotonic() - started - workload.delay)

    loop = make()
    loop.run_until_complete(sleeps())
    loop.close()
    late.sort()
    return {
        "late_us": late[len(late) // 2] * 1e6,
        "earliest_us": late[0] * 1e6,
        "p99_us": late[len(late) * 99 // 100] * 1e6,
    }


def _address(listening: Listening) -> object:
    if isinstance(listening, socket.socket):
        return listening.getsockname()
    return listening.sockets[0].getsockname()


def _serve(workload: Server | IdleMemory, make: loops.LoopFactory) -> None:
    signal.alarm(SERVER_LIFETIME)
    loop = make()
    listening = loop.run_until_complete(workload.serve())
    gc.collect()
    print(json.dumps({"listening": _address(listening)}), flush=True)
    loop.run_forever()


def _measure(arguments: argparse.Namespace) -> dict[str, float]:
    workload = workloads.named(arguments.workload)
    make = loops.factory(arguments.loop)
    if isinstance(workload, InLoop):
        return _in_loop(workload, make, arguments.seconds)
    if isinstance(workload, AroundLoop):
        return _repeat(
            lambda: workload.body(make, workload.batch), workload.batch, arguments.seconds
        )
    if isinstance(workload, Lateness):
        return _lateness(workload, make, arguments.seconds)
    assert isinstance(workload, (Server, IdleMemory))
    _serve(workload, make)
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure one workload on one loop, here.")
    parser.add_argument("--loop", required=True)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--cpu", type=int, help="the core to stay on")
    arguments = parser.parse_args()
    if arguments.cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.cpu})
    _age_allocator()
    try:
        result = _measure(arguments)
    except (NotImplementedError, ImportError) as error:
        print(json.dumps({"unsupported": f"{type(error).__name__}: {error}"}), flush=True)
        return 0
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
