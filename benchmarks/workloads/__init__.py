"""The registry: every workload, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloads import (
    clients,
    connections,
    datagrams,
    files,
    idle,
    pipes,
    processes,
    scheduling,
    sockets,
    tasks,
    tcp,
    threads,
    timers,
    tls,
    watching,
)

if TYPE_CHECKING:
    from workloads.model import Workload

WORKLOADS: tuple[Workload, ...] = (
    *scheduling.WORKLOADS,
    *timers.WORKLOADS,
    *tasks.WORKLOADS,
    *threads.WORKLOADS,
    *watching.WORKLOADS,
    *tcp.WORKLOADS,
    *tls.WORKLOADS,
    *sockets.WORKLOADS,
    *connections.WORKLOADS,
    *clients.WORKLOADS,
    *files.WORKLOADS,
    *datagrams.WORKLOADS,
    *pipes.WORKLOADS,
    *processes.WORKLOADS,
    *idle.WORKLOADS,
)


def named(name: str) -> Workload:
    """Return the workload of that name; KeyError if there is none."""
    return {workload.name: workload for workload in WORKLOADS}[name]


def matching(filters: list[str]) -> list[Workload]:
    """Return the workloads whose name or group contains one of the filters."""
    return [
        workload
        for workload in WORKLOADS
        if not filters or any(f in workload.name or f in workload.group for f in filters)
    ]
