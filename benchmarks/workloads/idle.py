"""What a connection costs that does nothing: resident memory."""

from __future__ import annotations

from workloads.model import IdleMemory, Workload
from workloads.tcp import Echo, echo_read, serve_protocol, serve_streams

CONNECTIONS = 4_000

WORKLOADS: tuple[Workload, ...] = (
    IdleMemory("idle_protocol", "memory", serve=serve_protocol(Echo), connections=CONNECTIONS),
    IdleMemory("idle_streams", "memory", serve=serve_streams(echo_read), connections=CONNECTIONS),
)
