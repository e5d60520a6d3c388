"""What ``get_extra_info("socket")`` of a transport gives."""

from __future__ import annotations

import weakref
from asyncio import trsock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket


class TransportSocket(trsock.TransportSocket):
    """asyncio's class; whatever is done to the socket comes after what was written before.

    A transport may keep what a callback writes until the callback ends.
    """

    __slots__ = ("_protocol", "_transport")

    def __init__(self, sock: socket.socket, transport: Any, protocol: int | None) -> None:
        """Stand for *sock*, which belongs to *transport* and was made with *protocol*."""
        super().__init__(sock)
        self._transport = weakref.ref(transport)
        self._protocol = protocol

    def _send_kept(self, *, for_good: bool) -> None:
        transport = self._transport()
        if transport is not None:
            transport._send_kept(for_good)

    @property
    def proto(self) -> int:
        """The protocol's number, which a socket that is made of a descriptor lacks on Windows."""
        if self._protocol is not None:
            return self._protocol
        number: int = super().proto
        return number

    def fileno(self) -> int:
        """Return the descriptor, to which its holder may write himself."""
        self._send_kept(for_good=True)
        return super().fileno()

    def dup(self) -> socket.socket:
        """Return another socket for the same connection."""
        self._send_kept(for_good=True)
        return super().dup()

    def shutdown(self, how: int) -> None:
        """Shut down one direction or both."""
        self._send_kept(for_good=False)
        super().shutdown(how)

    def setsockopt(self, *args: Any, **kwargs: Any) -> None:
        """Set an option, for what is written from now on."""
        self._send_kept(for_good=False)
        super().setsockopt(*args, **kwargs)
