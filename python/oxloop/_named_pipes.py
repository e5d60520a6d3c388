"""Named pipes: ``start_serving_pipe`` and ``create_pipe_connection``, on Windows alone.

asyncio's ``ProactorEventLoop`` has these methods, and so have both loops here. A server is
asyncio's own ``PipeServer``, whose ``close()`` cancels what it waits for.
"""

# ruff: noqa: E402 - type checkers have to be told first where this is

from __future__ import annotations

import sys

assert sys.platform == "win32"  # type checkers stop here elsewhere

import _overlapped  # type: ignore[import-not-found]
import asyncio
from asyncio.log import logger
from asyncio.windows_events import PipeServer
from asyncio.windows_utils import PipeHandle
from typing import Any, Callable, Optional

_ERROR_PIPE_BUSY = 231  # winerror.h
_FIRST_DELAY = 0.001  # seconds until a busy pipe is tried again
_LONGEST_DELAY = 0.1


class NamedPipes(asyncio.AbstractEventLoop):
    """What a loop of Windows can do with named pipes."""

    async def create_pipe_connection(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], address: str
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        r"""Connect to the named pipe *address* (``\\.\pipe\name``); return (transport, protocol).

        While all instances of the pipe are busy it is tried again. Raises ``FileNotFoundError``
        if there is no such pipe, ``NotImplementedError`` on a loop that waits in a selector.
        """
        _check_pipes(self)
        delay = _FIRST_DELAY
        while True:
            try:
                pipe = PipeHandle(_overlapped.ConnectPipe(address))
                break
            except OSError as error:
                if error.winerror != _ERROR_PIPE_BUSY:
                    raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
        protocol = protocol_factory()
        return _connected(self, pipe, protocol, address), protocol

    async def start_serving_pipe(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], address: str
    ) -> list[PipeServer]:
        r"""Serve the named pipe *address* (``\\.\pipe\name``); return a list of one server.

        Each client gets a protocol and a transport that reads and writes. Raises
        ``PermissionError`` if somebody else serves it, ``NotImplementedError`` on a loop that waits
        in a selector.
        """
        _check_pipes(self)
        server = PipeServer(address)
        self.call_soon(_Acceptor(self, server, protocol_factory, address).accept)
        return [server]


def _check_pipes(loop: Any) -> None:
    if loop._backend != "iocp":
        raise NotImplementedError("this event loop waits in a selector, which has no pipes")


def _connected(loop: Any, pipe: PipeHandle, protocol: Any, address: str) -> asyncio.Transport:
    transport: asyncio.Transport = loop._make_duplex_pipe_transport(
        pipe, protocol, {"addr": address}
    )
    return transport


class _Acceptor:
    """Puts up one instance of a pipe after the other, and serves who connects."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, server: Any, factory: Any, address: str
    ) -> None:
        self._loop = loop
        self._server = server
        self._factory = factory
        self._address = address

    def accept(self) -> None:
        pipe = None
        try:
            pipe = self._server._get_unconnected_pipe()
            if pipe is None:
                return  # closed
            connection = _Connection(pipe, self._loop)
        except OSError as error:
            self._failed(pipe, error)
        else:
            self._server._accept_pipe_future = connection
            connection.add_done_callback(self._accepted)

    def _accepted(self, connection: _Connection) -> None:
        pipe = connection.pipe
        try:
            connection.result()
            self._server._free_instances.discard(pipe)
            if self._server.closed():
                pipe.close()  # the client came too late
                return
            _connected(self._loop, pipe, self._factory(), self._address)
        except asyncio.CancelledError:
            pipe.close()
        except OSError as error:
            self._failed(pipe, error)
        else:
            self.accept()

    def _failed(self, pipe: Optional[PipeHandle], error: OSError) -> None:
        if pipe is not None and pipe.handle is not None:
            if not isinstance(error, BrokenPipeError):  # else the client has gone again
                self._loop.call_exception_handler(
                    {"message": "Pipe accept failed", "exception": error, "pipe": pipe}
                )
            pipe.close()
        elif self._loop.get_debug():
            logger.warning("Accept pipe failed on pipe %r", pipe, exc_info=error)
        self._loop.call_soon(self.accept)


class _Connection(asyncio.Future[None]):
    """Done when a client has connected to *pipe*."""

    def __init__(self, pipe: PipeHandle, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.pipe = pipe
        # With an event: the handle belongs to no completion port before it is read from.
        self._overlapped = _overlapped.Overlapped()
        if self._overlapped.ConnectNamedPipe(pipe.fileno()):
            self.set_result(None)
        else:
            loop.add_reader(self._overlapped.event, self._ended)

    def _ended(self) -> None:
        self.get_loop().remove_reader(self._overlapped.event)
        if self.done():
            return
        try:
            self._overlapped.getresult()
        except OSError as error:
            self.set_exception(error)
        else:
            self.set_result(None)

    def cancel(self, msg: Optional[Any] = None) -> bool:
        if not self.done():
            self.get_loop().remove_reader(self._overlapped.event)
            self._overlapped.cancel()
        return super().cancel(msg)
