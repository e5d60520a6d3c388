"""Named pipes: ``start_serving_pipe`` and ``create_pipe_connection``, on Windows alone.

asyncio's ``ProactorEventLoop`` has these methods, and so have both loops here. A server is
asyncio's own ``PipeServer``, whose ``close()`` cancels what waits for clients.
"""

# ruff: noqa: E402 - type checkers have to be told first where this is

from __future__ import annotations

import sys

assert sys.platform == "win32"  # type checkers stop here elsewhere

import _overlapped  # type: ignore[import-not-found]
import _winapi
import asyncio
from asyncio.log import logger
from asyncio.windows_events import PipeServer
from asyncio.windows_utils import PipeHandle
from typing import Any, Callable, Optional

_ERROR_BAD_PIPE = 230  # winerror.h
_ERROR_PIPE_BUSY = 231
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


def _check_client(pipe: PipeHandle) -> None:
    """Raise ``BrokenPipeError`` if a client has come and gone, and has written nothing."""
    try:
        _winapi.PeekNamedPipe(pipe.fileno(), 0)
    except OSError as error:
        if error.winerror != _ERROR_BAD_PIPE:  # else nobody has come yet
            raise


def _connected(loop: Any, pipe: PipeHandle, protocol: Any, address: str) -> asyncio.Transport:
    transport: asyncio.Transport = loop._make_duplex_pipe_transport(
        pipe, protocol, {"addr": address}
    )
    return transport


class _Acceptor:
    """Puts up one instance of a pipe after the other, and serves who connects."""

    def __init__(self, loop: Any, server: Any, factory: Any, address: str) -> None:
        self._loop = loop
        self._server = server
        self._factory = factory
        self._address = address
        self._pipe: Optional[PipeHandle] = None

    def accept(self) -> None:
        pipe = None
        try:
            pipe = self._server._get_unconnected_pipe()
            if pipe is None:
                return  # closed
            _check_client(pipe)
            # The next instance is put up in the step in which the loop hears of a client: whoever
            # comes then finds it.
            self._loop._add_signalled(pipe.fileno(), self._accepted)
        except OSError as error:
            self._failed(pipe, error)
        else:
            self._pipe = pipe
            self._server._accept_pipe_future = self

    def cancel(self) -> None:
        """Wait for no more clients: the server closes."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._loop.remove_reader(pipe.fileno())
            pipe.close()

    def _accepted(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return
        try:
            self._loop.remove_reader(pipe.fileno())
            self._server._free_instances.discard(pipe)
            _connected(self._loop, pipe, self._factory(), self._address)
        except Exception as error:  # noqa: BLE001 - the factory may raise anything
            self._failed(pipe, error)
        else:
            self.accept()

    def _failed(self, pipe: Optional[PipeHandle], error: Exception) -> None:
        if pipe is not None and pipe.handle is not None:
            if not isinstance(error, BrokenPipeError):  # else the client has gone again
                self._loop.call_exception_handler(
                    {"message": "Pipe accept failed", "exception": error, "pipe": pipe}
                )
            pipe.close()
        elif self._loop.get_debug():
            logger.warning("Accept pipe failed on pipe %r", pipe, exc_info=error)
        self._loop.call_soon(self.accept)
