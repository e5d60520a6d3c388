# The types of the Rust half; stubtest holds them against the built module.

import asyncio
import ssl as _ssl
from asyncio import Future, Task, Transport
from collections.abc import Awaitable, Callable, Generator, Sequence
from collections.abc import Coroutine as _Coroutine
from concurrent.futures import Executor
from contextvars import Context
from os import PathLike
from selectors import BaseSelector
from socket import AddressFamily, SocketKind, socket
from typing import IO, Any, Literal, TypeVar, final

from typing_extensions import Buffer, Self, TypeAlias, TypeVarTuple, Unpack, disjoint_base

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_P = TypeVar("_P", bound=asyncio.BaseProtocol)
_SP = TypeVar("_SP", bound=asyncio.SubprocessProtocol)
_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
_File: TypeAlias = int | IO[Any] | None
_Address: TypeAlias = tuple[Any, ...] | str | bytes
_FileDescriptorLike: TypeAlias = Any  # an int, or what has fileno()
_ExceptionHandler: TypeAlias = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]
_TaskFactory: TypeAlias = Callable[..., Future[Any]]
_SSL: TypeAlias = bool | _ssl.SSLContext | None
_AddressInfo: TypeAlias = tuple[
    AddressFamily, SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]
]

__all__ = [
    "Coroutine",
    "DatagramTransport",
    "DuplexPipeTransport",
    "EventLoop",
    "Handle",
    "IoUringProactor",
    "IocpProactor",
    "ReadPipeTransport",
    "Server",
    "StreamTransport",
    "SubprocessTransport",
    "TimerHandle",
    "TlsTransport",
    "WritePipeTransport",
    "__version__",
    "build_info",
    "proactor_unavailable",
    "selectors_available",
]

__version__: str

def build_info() -> dict[str, str]: ...
def selectors_available() -> list[str]: ...
def proactor_unavailable() -> str | None: ...

@final
class IoUringProactor:
    def __new__(
        cls, entries: int | None = None, buffers: int | None = None, buffer_size: int | None = None
    ) -> Self: ...
    @property
    def entries(self) -> int: ...
    @property
    def buffers(self) -> int: ...
    @property
    def buffer_size(self) -> int: ...

@final
class IocpProactor:
    def __new__(cls, concurrency: int = 4294967295) -> Self: ...
    @property
    def concurrency(self) -> int: ...

class EventLoop:
    def __init__(self, selector: BaseSelector | None = None) -> None: ...
    def __del__(self) -> None: ...
    def _init_proactor(self, proactor: IoUringProactor | IocpProactor) -> None: ...

    # Running
    def run_forever(self) -> None: ...
    def run_until_complete(self, future: Generator[Any, None, _T] | Awaitable[_T]) -> _T: ...
    def stop(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def close(self) -> None: ...
    async def shutdown_asyncgens(self) -> None: ...
    async def shutdown_default_executor(self, timeout: float | None = None) -> None: ...

    # Scheduling
    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def time(self) -> float: ...

    # Futures and tasks
    def create_future(self) -> Future[Any]: ...
    def create_task(
        self, coro: Generator[Any, None, _T] | _Coroutine[Any, Any, _T], **kwargs: Any
    ) -> Task[_T]: ...
    def set_task_factory(self, factory: _TaskFactory | None) -> None: ...
    def get_task_factory(self) -> _TaskFactory | None: ...

    # Threads and names
    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[_Ts]], _T],
        *args: Unpack[_Ts],
    ) -> Future[_T]: ...
    def set_default_executor(self, executor: Executor) -> None: ...
    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[_AddressInfo]: ...
    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int = 0
    ) -> tuple[str, str]: ...

    # Network
    async def create_connection(
        self,
        protocol_factory: Callable[[], _P],
        host: str | None = None,
        port: int | str | None = None,
        *,
        ssl: _SSL = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[Transport, _P]: ...
    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Sequence[str] | None = None,
        port: int | str | None = None,
        *,
        family: int = ...,
        flags: int = ...,
        sock: socket | None = None,
        backlog: int = 100,
        ssl: _SSL = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Server: ...
    async def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], _P],
        sock: socket,
        *,
        ssl: _SSL = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[Transport, _P]: ...
    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: _ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Transport: ...

    # Pipes
    async def connect_read_pipe(
        self, protocol_factory: Callable[[], _P], pipe: Any
    ) -> tuple[asyncio.ReadTransport, _P]: ...
    async def connect_write_pipe(
        self, protocol_factory: Callable[[], _P], pipe: Any
    ) -> tuple[asyncio.WriteTransport, _P]: ...

    # Processes
    async def subprocess_exec(
        self,
        protocol_factory: Callable[[], _SP],
        program: _Path,
        *args: _Path,
        stdin: _File = -1,
        stdout: _File = -1,
        stderr: _File = -1,
        universal_newlines: Literal[False] = False,
        shell: Literal[False] = False,
        bufsize: Literal[0] = 0,
        encoding: None = None,
        errors: None = None,
        text: Literal[False] | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, _SP]: ...
    async def subprocess_shell(
        self,
        protocol_factory: Callable[[], _SP],
        cmd: str | bytes,
        *,
        stdin: _File = -1,
        stdout: _File = -1,
        stderr: _File = -1,
        universal_newlines: Literal[False] = False,
        shell: Literal[True] = True,
        bufsize: Literal[0] = 0,
        encoding: None = None,
        errors: None = None,
        text: Literal[False] | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, _SP]: ...
    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], _P],
        path: _Path | None = None,
        *,
        ssl: _SSL = None,
        sock: socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[Transport, _P]: ...
    async def create_unix_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: _Path | None = None,
        *,
        sock: socket | None = None,
        backlog: int = 100,
        ssl: _SSL = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = True,
    ) -> Server: ...
    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], _P],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket | None = None,
    ) -> tuple[DatagramTransport, _P]: ...

    # Watching
    def add_reader(
        self,
        fd: _FileDescriptorLike,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
    ) -> None: ...
    def remove_reader(self, fd: _FileDescriptorLike) -> bool: ...
    def add_writer(
        self,
        fd: _FileDescriptorLike,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
    ) -> None: ...
    def remove_writer(self, fd: _FileDescriptorLike) -> bool: ...

    # Sockets
    async def sock_recv(self, sock: socket, n: int) -> bytes: ...
    async def sock_recv_into(self, sock: socket, buf: Buffer) -> int: ...
    async def sock_recvfrom(self, sock: socket, bufsize: int) -> tuple[bytes, Any]: ...
    async def sock_recvfrom_into(
        self, sock: socket, buf: Buffer, nbytes: int = 0
    ) -> tuple[int, Any]: ...
    async def sock_sendall(self, sock: socket, data: Buffer) -> None: ...
    async def sock_sendto(self, sock: socket, data: Buffer, address: _Address) -> int: ...
    async def sock_connect(self, sock: socket, address: _Address) -> None: ...
    async def sock_accept(self, sock: socket) -> tuple[socket, Any]: ...

    # Files
    async def sock_sendfile(
        self,
        sock: socket,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int: ...
    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int: ...

    # Signals
    def add_signal_handler(
        self, sig: int, callback: Callable[[Unpack[_Ts]], object], *args: Unpack[_Ts]
    ) -> None: ...
    def remove_signal_handler(self, sig: int) -> bool: ...

    # Errors and debugging
    def set_exception_handler(self, handler: _ExceptionHandler | None) -> None: ...
    def get_exception_handler(self) -> _ExceptionHandler | None: ...
    def default_exception_handler(self, context: dict[str, Any]) -> None: ...
    def call_exception_handler(self, context: dict[str, Any]) -> None: ...
    def get_debug(self) -> bool: ...
    def set_debug(self, enabled: bool) -> None: ...
    slow_callback_duration: float

@disjoint_base
class Handle(asyncio.Handle):
    def get_context(self) -> Context: ...

@final
class TimerHandle(asyncio.TimerHandle):
    def __eq__(self, value: object, /) -> bool: ...
    def __ge__(self, value: asyncio.TimerHandle, /) -> bool: ...
    def __gt__(self, value: asyncio.TimerHandle, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __le__(self, value: asyncio.TimerHandle, /) -> bool: ...
    def __lt__(self, value: asyncio.TimerHandle, /) -> bool: ...

@final
class DatagramTransport(asyncio.DatagramTransport):
    def sendto(self, data: Buffer, addr: _Address | None = None) -> None: ...  # type: ignore[override, unused-ignore]
    def is_reading(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_write_buffer_limits(self) -> tuple[int, int]: ...
    def get_write_buffer_size(self) -> int: ...

@final
class StreamTransport(Transport):
    def write(self, data: Buffer) -> None: ...  # type: ignore[override, unused-ignore]

@final
class TlsTransport(Transport):
    def write(self, data: Buffer) -> None: ...  # type: ignore[override, unused-ignore]
    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_read_buffer_limits(self) -> tuple[int, int]: ...
    def get_read_buffer_size(self) -> int: ...

@final
class ReadPipeTransport(asyncio.ReadTransport): ...

class WritePipeTransport(asyncio.WriteTransport):
    def write(self, data: Buffer) -> None: ...  # type: ignore[override, unused-ignore]

@final
class DuplexPipeTransport(WritePipeTransport, Transport): ...

@final
class SubprocessTransport(asyncio.SubprocessTransport): ...

@final
class Coroutine(_Coroutine[Any, Any, Any]):
    __name__: str
    __qualname__: str
    @property
    def cr_await(self) -> Any: ...
    @property
    def cr_frame(self) -> Any: ...
    @property
    def cr_running(self) -> bool: ...
    @property
    def cr_suspended(self) -> bool: ...
    @property
    def cr_code(self) -> Any: ...
    @property
    def cr_origin(self) -> Any: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, exception: Any, value: Any = None, traceback: Any = None) -> Any: ...
    def close(self) -> None: ...

@final
class Server(asyncio.AbstractServer):
    def close(self) -> None: ...
    def close_clients(self) -> None: ...
    def abort_clients(self) -> None: ...
    def get_loop(self) -> asyncio.AbstractEventLoop: ...
    def is_serving(self) -> bool: ...
    async def start_serving(self) -> None: ...
    async def serve_forever(self) -> None: ...
    async def wait_closed(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...
    @property
    def sockets(self) -> tuple[socket, ...]: ...
