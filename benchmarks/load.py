"""The load generator in Python, for machines where the native one is not built.

Same options and same line of JSON as `cargo run --release -p oxloop-engine --example load`, but
slower than some of the servers it drives: rates are then its own limit, and only the server's CPU
per operation says something. It alone speaks TLS (`--tls`).
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import ssl
import sys
import time
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Iterator

Address = Union[tuple[str, int], str]

# What a socket that does not block raises, with TLS or without.
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """One client: a message out, its echo in, again; `latencies` in seconds."""

    def __init__(self, address: Address, message: bytes, once: bool) -> None:
        self.address = address
        self.message = memoryview(message)
        self.once = once
        self.latencies: list[float] = []
        self.errors = 0
        self.open()

    def open(self) -> None:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.started = time.perf_counter()
        self.socket.connect(self.address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent, self.missing = 0, len(self.message)

    def send(self) -> bool:
        """Send what is left of the message; return whether it is all out."""
        try:
            while self.unsent < len(self.message):
                self.unsent += self.socket.send(self.message[self.unsent :])
        except NOT_NOW:
            return False
        return True

    def receive(self, scratch: bytearray) -> bool:
        """Take a part of the echo; return whether it is complete."""
        got = self.socket.recv_into(scratch)
        if not got:
            raise ConnectionResetError("the server closed the connection")
        self.missing -= got
        if self.missing:
            return False
        self.latencies.append(time.perf_counter() - self.started)
        self.unsent, self.missing = 0, len(self.message)
        self.started = time.perf_counter()
        return True


class TlsConnection(Connection):
    """A client that speaks TLS, and believes whatever certificate it is shown."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def open(self) -> None:
        super().open()
        self.socket.setblocking(True)
        self.socket = self.context.wrap_socket(self.socket)
        self.socket.setblocking(False)

    def receive(self, scratch: bytearray) -> bool:
        """Take all of the echo that has come: the selector does not see what TLS has buffered."""
        while not super().receive(scratch):
            pass
        return True


class Generator:
    """Drives all connections from one thread until the time is up."""

    def __init__(
        self, address: Address, connections: int, size: int, mode: str, *, tls: bool
    ) -> None:
        # The native generator's: a line feed is its eleventh byte, and every 251st after it.
        message = bytes(index % 251 for index in range(size))
        self.upload = mode == "upload"
        self.sent = 0
        self.scratch = bytearray(256 * 1024)
        self.selector = selectors.DefaultSelector()
        kind = TlsConnection if tls else Connection
        self.clients = [kind(address, message, once=mode == "connect") for _ in range(connections)]

    def run(self, seconds: float) -> float:
        """Drive for that long; return how long it took."""
        started = time.perf_counter()
        for client in self.clients:
            self._begin(client)
        while time.perf_counter() - started < seconds:
            for key, events in self.selector.select(timeout=0.1):
                self._advance(key.data, events)
        took = time.perf_counter() - started
        for client in self.clients:
            client.socket.close()
        self.selector.close()
        return took

    def _begin(self, client: Connection) -> None:
        waits = 0 if self.upload else selectors.EVENT_READ
        if not client.send() or self.upload:
            waits |= selectors.EVENT_WRITE
        self.selector.register(client.socket, waits, client)

    def _advance(self, client: Connection, events: int) -> None:
        try:
            if self.upload:
                self.sent += client.socket.send(client.message)
                return
            if events & selectors.EVENT_WRITE and client.send():
                self.selector.modify(client.socket, selectors.EVENT_READ, client)
            if events & selectors.EVENT_READ and client.receive(self.scratch):
                self._again(client)
        except NOT_NOW:
            pass
        except OSError:
            client.errors += 1
            self._reopen(client)

    def _again(self, client: Connection) -> None:
        if client.once:
            self._reopen(client)
        elif not client.send():
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self.selector.modify(client.socket, both, client)

    def _reopen(self, client: Connection) -> None:
        self.selector.unregister(client.socket)
        client.socket.close()
        client.open()
        self._begin(client)

    def report(self, seconds: float) -> dict[str, float]:
        """Return what the line of JSON says."""
        latencies = sorted(self._latencies())
        size = len(self.clients[0].message)
        messages = self.sent / size if self.upload else len(latencies)
        return {
            "messages": messages,
            "seconds": seconds,
            "rate": messages / seconds,
            "p50_us": latencies[len(latencies) // 2] * 1e6 if latencies else 0.0,
            "p99_us": latencies[len(latencies) * 99 // 100] * 1e6 if latencies else 0.0,
            "errors": sum(client.errors for client in self.clients),
        }

    def _latencies(self) -> Iterator[float]:
        for client in self.clients:
            yield from client.latencies


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Drive an echo server over loopback.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", metavar="HOST:PORT")
    where.add_argument("--unix", metavar="PATH")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--size", type=int, default=1024, help="bytes in a message")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.0, help="seconds that do not count")
    parser.add_argument("--mode", choices=("echo", "connect", "upload"), default="echo")
    parser.add_argument("--pin", type=int, metavar="CPU")
    parser.add_argument("--tls", action="store_true")
    return parser.parse_args()


def _address(connect: str | None, unix: str | None) -> Address:
    if unix is not None:
        return unix
    assert connect is not None
    host, _, port = connect.rpartition(":")
    return host, int(port)


def main() -> int:
    arguments = _arguments()
    if arguments.pin is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.pin})
    address = _address(arguments.connect, arguments.unix)
    for seconds in filter(None, (arguments.warmup, arguments.seconds)):
        generator = Generator(
            address, arguments.connections, arguments.size, arguments.mode, tls=arguments.tls
        )
        took = generator.run(seconds)
    print(json.dumps(generator.report(took)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
