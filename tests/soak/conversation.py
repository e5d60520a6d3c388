"""What happens on a connected stream transport, whatever it stands on: a few steps, then an end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any, Awaitable, Callable, List, Optional

from soak.lifecycle import Round

CHUNK = bytes(65536)


class Conversation:
    """A transport, its protocol, and the plain socket at the other end of it."""

    def __init__(self, round_: Round, transport: Any, protocol: Any, peer: Any) -> None:
        self.round = round_
        self.transport = transport
        self.protocol = protocol
        self.peer: Optional[socket.socket] = peer

    async def hold(self) -> None:
        """A few steps, then one of the ends, then make sure that there is one."""
        steps: List[Callable[[], Awaitable[None]]] = [
            self.write, self.write_much, self.write_lines, self.pause, self.hear, self.listen,
            self.limits, self.inspect, self.swap,
        ]  # fmt: skip
        ends: List[Callable[[], Awaitable[None]]] = [
            self.close, self.close, self.abort, self.leave, self.reset, self.half_close,
            self.shut_down, self.fail, self.close_unread,
        ]  # fmt: skip
        for _ in range(self.round.dice.randrange(6)):
            await self.round.choose(*steps)()
        await self.round.choose(*ends)()
        await self.round.turns()
        await self.round.end(self.transport, self.protocol)

    async def write(self) -> None:
        """Write bytes, or what may change afterwards."""
        data = self.round.data()
        self.transport.write(self.round.choose(data, bytearray(data), memoryview(data)))

    async def write_much(self) -> None:
        """Write more than the kernel takes, several times."""
        for _ in range(3):
            self.transport.write(bytes(400_000))

    async def write_lines(self) -> None:
        """Write a list."""
        self.transport.writelines([b"x" * 1000, bytearray(2000), memoryview(bytes(10))] * 5)

    async def pause(self) -> None:
        """Stop reading for a while, and perhaps for good."""
        if not self.transport.is_reading():
            return
        self.transport.pause_reading()
        await self.round.turns()
        if self.round.chance(0.8) and not self.transport.is_closing():
            self.transport.resume_reading()

    async def hear(self) -> None:
        """The peer sends."""
        if self.peer is not None:
            with contextlib.suppress(OSError):
                self.peer.send(self.round.data(70_000))
        await self.round.turns()

    async def listen(self) -> None:
        """The peer reads a part of what there is."""
        for _ in range(self.round.dice.randrange(30)):
            await asyncio.sleep(0)
            if self.peer is not None:
                with contextlib.suppress(OSError):
                    self.peer.recv(65536)

    async def limits(self) -> None:
        """Change when the protocol is told to pause."""
        high = self.round.choose(0, 1, 4096, 1 << 20)
        self.transport.set_write_buffer_limits(high=high)
        assert self.transport.get_write_buffer_limits()[1] == high
        assert self.transport.get_write_buffer_size() >= 0

    async def inspect(self) -> None:
        """Ask for what there is to know."""
        repr(self.transport)
        for name in ("socket", "sockname", "peername", "sslcontext", "pipe", "nothing"):
            self.transport.get_extra_info(name)

    async def swap(self) -> None:
        """Give it another protocol and take the first one back."""
        first = self.transport.get_protocol()
        self.transport.set_protocol(self.round.protocol("data"))
        self.transport.set_protocol(first)

    async def close(self) -> None:
        """Close, perhaps twice, and write afterwards."""
        self.transport.close()
        self.round.choose(
            self.transport.close, lambda: self.transport.write(b"too late"), lambda: None
        )()

    async def abort(self) -> None:
        """Abort."""
        self.transport.abort()

    async def leave(self) -> None:
        """The peer goes."""
        if self.peer is not None:
            self.peer.close()
        await self.round.turns(8)

    async def reset(self) -> None:
        """The peer resets the connection."""
        if self.peer is not None:
            if self.peer.family != socket.AF_UNIX:
                linger = struct.pack("ii", 1, 0)
                self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.peer.close()
        await self.write()
        await self.round.turns(8)

    async def half_close(self) -> None:
        """This end says that it will write no more, and still reads."""
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        await self.hear()

    async def shut_down(self) -> None:
        """The peer will write no more, and still reads."""
        if self.peer is not None:
            with contextlib.suppress(OSError):
                self.peer.shutdown(socket.SHUT_WR)
        await self.listen()

    async def fail(self) -> None:
        """Close while the protocol's last callback fails."""
        self.protocol.fails_in = "lost"
        self.transport.close()

    async def close_unread(self) -> None:
        """Close with a full buffer, and let the peer read a part of it."""
        await self.write_much()
        self.transport.close()
        await self.listen()
