"""TLS: echo, handshakes, and what an idle connection holds."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import ssl
from typing import Callable

from workloads.model import IdleMemory, Listening, Load, Server, Workload
from workloads.tcp import KIB, BufferedEcho, Echo, echo_read

# A key and a certificate that nobody trusts: P-256, "localhost", for benchmarks alone.
CERTIFICATE = pathlib.Path(__file__).with_name("localhost.pem")
CONNECTIONS = 1_000


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


async def _serve(factory: Callable[[], asyncio.BaseProtocol]) -> Listening:
    loop = asyncio.get_running_loop()
    return await loop.create_server(factory, "127.0.0.1", 0, backlog=1024, ssl=_context())


async def _serve_protocol() -> Listening:
    return await _serve(Echo)


async def _serve_buffered() -> Listening:
    return await _serve(BufferedEcho)


async def _serve_streams() -> Listening:
    return await asyncio.start_server(echo_read, "127.0.0.1", 0, backlog=1024, ssl=_context())


async def _echo_by_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo by three writes a message, as servers of HTTP write head and body."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(64 * KIB):
            writer.write(data[:20])
            writer.write(data[20:100])
            writer.write(data[100:])
            await writer.drain()
    writer.close()


async def _serve_parts() -> Listening:
    return await asyncio.start_server(_echo_by_parts, "127.0.0.1", 0, backlog=1024, ssl=_context())


def _load(size: int, mode: str = "echo", connections: int = 10) -> Load:
    return Load(mode, size, connections, tls=True)


WORKLOADS: tuple[Workload, ...] = (
    Server("tls_protocol_1k_c10", "tls", serve=_serve_protocol, load=_load(KIB)),
    Server("tls_protocol_64k_c10", "tls", serve=_serve_protocol, load=_load(64 * KIB)),
    Server("tls_buffered_1k_c10", "tls", serve=_serve_buffered, load=_load(KIB)),
    Server("tls_streams_1k_c10", "tls", serve=_serve_streams, load=_load(KIB)),
    Server("tls_streams_parts_1k_c10", "tls", serve=_serve_parts, load=_load(KIB)),
    Server("tls_handshake", "tls", serve=_serve_protocol, load=_load(64, "connect")),
    Server("tls_upload", "tls", serve=_serve_protocol, load=_load(256 * KIB, "upload", 1)),
    IdleMemory("idle_tls", "tls", serve=_serve_protocol, connections=CONNECTIONS, tls=True),
)
