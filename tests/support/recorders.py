"""Protocols that write down what a transport calls, and tell when something has happened."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, List, Optional


class Recording:
    """The events a transport caused, in order, and a way to wait for one of them."""

    def __init__(self) -> None:
        self.events: List[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.error: Optional[BaseException] = None
        self.keep_open = False
        self._waiters: List[asyncio.Future[None]] = []

    def record(self, event: str) -> None:
        """Add `event` and wake whoever waits for something to happen."""
        self.events.append(event)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds after some event."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def until_event(self, event: str) -> None:
        """Wait until `event` has happened."""
        await self.until(lambda: event in self.events)

    async def received(self, count: int) -> bytes:
        """Wait for at least `count` bytes; everything that has come so far."""
        await self.until(lambda: len(self.data) >= count)
        return bytes(self.data)

    async def lost(self) -> Optional[BaseException]:
        """Wait for connection_lost(); the exception it was given."""
        await self.until_event("lost")
        return self.error

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport
        self.record("made")

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        """Keep the reason."""
        self.error = exc
        self.record("lost")

    def pause_writing(self) -> None:
        """Note that the write buffer is over its high-water mark."""
        self.record("pause")

    def resume_writing(self) -> None:
        """Note that the write buffer is at or under its low-water mark."""
        self.record("resume")

    def eof_received(self) -> bool:
        """Answer what the test has set in `keep_open`."""
        self.record("eof")
        return self.keep_open


class Recorder(Recording, asyncio.Protocol):
    """A recording asyncio.Protocol."""

    def data_received(self, data: bytes) -> None:
        """Keep the bytes."""
        assert type(data) is bytes, type(data)
        self.data += data
        self.record("data")


class BufferedRecorder(Recording, asyncio.BufferedProtocol):
    """A recording asyncio.BufferedProtocol that reads into a buffer of its own."""

    def __init__(self, size: int = 4096) -> None:
        super().__init__()
        self.buffer = bytearray(size)
        self.hints: List[int] = []
        self.counts: List[int] = []

    def get_buffer(self, sizehint: int) -> Any:
        """Offer the whole buffer."""
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Keep what was read."""
        self.counts.append(nbytes)
        self.data += self.buffer[:nbytes]
        self.record("data")
