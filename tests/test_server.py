"""create_server and the Server it makes: addresses, options, serving, closing, failing."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import re
import socket
import ssl
import struct
import sys
import warnings
import weakref
from asyncio.trsock import TransportSocket
from typing import Any, AsyncIterator, Callable, Dict, List, Optional

import pytest
from support.backends import PY312, PY313, Backend
from support.descriptors import few_descriptors, no_more_descriptors
from support.platforms import WINDOWS, says
from support.recorders import BufferedRecorder, Recorder
from support.reports import Reports
from support.running import Run, finish, turns
from support.sockets import LOCALHOST, listener, reset
from support.threads import call_while_waiting

# What 3.13 added; oxloop has it on each version.
new_in_313 = "new in Python 3.13"


class Accepted:
    """A protocol factory that keeps the protocols it made."""

    def __init__(self, make: Callable[[], Any] = Recorder) -> None:
        self.make = make
        self.protocols: List[Any] = []
        self.waiting: List[asyncio.Future[None]] = []

    def __call__(self) -> Any:
        """Make one more."""
        self.protocols.append(self.make())
        for waiter in self.waiting:
            if not waiter.done():
                waiter.set_result(None)
        return self.protocols[-1]

    async def count(self, number: int) -> List[Any]:
        """Wait until `number` protocols have their transports."""
        while len(self.protocols) < number:
            self.waiting.append(asyncio.get_running_loop().create_future())
            await self.waiting[-1]
        for protocol in self.protocols:
            await protocol.until_event("made")
        return self.protocols


async def client(server: Any) -> socket.socket:
    """A plain socket connected to the first address of `server`."""
    listening = server.sockets[0]
    sock = socket.socket(listening.family)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, listening.getsockname()[:2])
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.asynccontextmanager
async def serving(
    factory: Any = Recorder, host: Any = LOCALHOST, **options: Any
) -> AsyncIterator[Any]:
    """A server on a free port that is closed after the block."""
    loop: Any = asyncio.get_running_loop()
    server = await loop.create_server(factory, host, 0, **options)
    try:
        yield server
    finally:
        server.close()
        await turns(2)


def test_it_accepts_connections(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = Accepted()
        async with serving(accepted) as server:
            sock = await client(server)
            (protocol,) = await accepted.count(1)
            assert protocol.transport.get_extra_info("peername") == sock.getsockname()
            assert protocol.transport.get_extra_info("sockname") == sock.getpeername()
            await loop.sock_sendall(sock, b"data")
            assert await protocol.received(4) == b"data"
            protocol.transport.write(b"answer")
            assert await loop.sock_recv(sock, 10) == b"answer"
            sock.close()
            assert await protocol.lost() is None

    run(main)


def test_it_is_asyncios_server_to_isinstance(run: Run) -> None:
    """Types that pass asyncio's `isinstance` checks."""

    async def main() -> None:
        async with serving() as server:
            assert isinstance(server, asyncio.AbstractServer)
            assert server.get_loop() is asyncio.get_running_loop()
            assert server._ssl_context is None

    run(main)


def test_its_sockets_are_transport_sockets(run: Run) -> None:
    """`server.sockets` are `TransportSocket`s."""

    async def main() -> None:
        async with serving() as server:
            assert type(server.sockets) is tuple
            (sock,) = server.sockets
            assert type(sock) is TransportSocket
            assert sock.getsockname()[0] == LOCALHOST
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert server.sockets == ()

    run(main)


def test_its_repr_shows_its_sockets(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            assert repr(server) == f"<Server sockets={server.sockets!r}>"

    run(main)


def families_of(name: str) -> List[int]:
    """What the system's hosts file says of `name`."""
    return sorted({entry[0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})


@pytest.mark.parametrize(
    ("host", "families"),
    [
        (LOCALHOST, [socket.AF_INET]),
        ("::1", [socket.AF_INET6]),
        ([LOCALHOST, "::1"], [socket.AF_INET, socket.AF_INET6]),
        ((LOCALHOST, LOCALHOST), [socket.AF_INET]),
        (None, [socket.AF_INET, socket.AF_INET6]),
        ("", [socket.AF_INET, socket.AF_INET6]),
        ("0.0.0.0", [socket.AF_INET]),
        ("::", [socket.AF_INET6]),
        ("localhost", None),
    ],
    ids=repr,
)
def test_the_hosts_it_listens_on(run: Run, host: Any, families: List[Any]) -> None:
    async def main() -> None:
        async with serving(host=host) as server:
            found = sorted(sock.family for sock in server.sockets)
            assert found == (families or families_of(host))
            for sock in server.sockets:
                if sock.family == socket.AF_INET6:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1

    run(main)


def test_both_families_on_one_port(run: Run) -> None:
    """Dual stack: the IPv6 socket is IPv6 only, so that both can have the same port."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as probe:
            probe.bind((LOCALHOST, 0))
            port = probe.getsockname()[1]
        server = await loop.create_server(Recorder, None, port)
        assert {sock.getsockname()[1] for sock in server.sockets} == {port}
        for family, host in ((socket.AF_INET, LOCALHOST), (socket.AF_INET6, "::1")):
            with socket.socket(family) as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, (host, port))
        server.close()
        await server.wait_closed()

    run(main)


def test_the_family_restricts_it(run: Run) -> None:
    async def main() -> None:
        async with serving(host=None, family=socket.AF_INET6) as server:
            assert [sock.family for sock in server.sockets] == [socket.AF_INET6]

    run(main)


def test_a_socket_of_the_callers(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        sock = socket.socket()
        sock.bind((LOCALHOST, 0))
        accepted = Accepted()
        server = await loop.create_server(accepted, sock=sock)
        assert sock.gettimeout() == 0
        assert server.sockets[0].fileno() == sock.fileno()
        with await client(server):
            await accepted.count(1)
        server.close()
        assert sock.fileno() == -1, "the server owns the socket"
        await turns(2)

    run(main)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells of it")
@pytest.mark.parametrize("backlog", [None, 1, 7])
def test_the_backlog(run: Run, backlog: Optional[int]) -> None:
    """tcp(7): of a socket that listens, `tcpi_sacked` of TCP_INFO is what listen(2) was given."""
    options = {} if backlog is None else {"backlog": backlog}

    async def main() -> None:
        async with serving(Accepted(), **options) as server:
            told = server.sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            assert struct.unpack_from("I", told, 28) == (backlog or 100,)

    run(main)


def test_more_clients_than_the_backlog(run: Run) -> None:
    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted, backlog=1) as server:
            clients = [await client(server) for _ in range(20)]
            await accepted.count(20)
            for sock in clients:
                sock.close()

    run(main)


def test_so_reuseaddr_is_set_unless_refused(run: Run) -> None:
    async def main() -> None:
        for option, expected in ((None, not WINDOWS), (True, 1), (False, 0)):
            async with serving(reuse_address=option) as server:
                got = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
                assert got == expected

    run(main)


@pytest.mark.unix("SO_REUSEPORT")
def test_reuse_port_lets_two_servers_share_a_port(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving(reuse_port=True) as server:
            port = server.sockets[0].getsockname()[1]
            assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
            other = await loop.create_server(Recorder, LOCALHOST, port, reuse_port=True)
            other.close()
            await other.wait_closed()

    run(main)


@pytest.mark.parametrize("option", [None, True, False])
def test_keep_alive(run: Run, backend: Backend, option: Any) -> None:
    if backend.is_oracle and not PY313:
        pytest.skip(new_in_313)

    async def main() -> None:
        async with serving(keep_alive=option) as server:
            got = server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert got == bool(option)

    run(main)


def test_a_port_that_is_taken(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving() as server:
            address = server.sockets[0].getsockname()
            with pytest.raises(
                OSError, match="error while attempting to bind on address"
            ) as caught:
                await loop.create_server(Recorder, *address)
            assert caught.value.errno == errno.EADDRINUSE
            assert f"on address {address!r}: " in str(caught.value)
            assert re.search(says(errno.EADDRINUSE), str(caught.value), re.IGNORECASE)
            assert caught.value.__suppress_context__
            assert isinstance(caught.value.__context__, OSError)

    run(main)


def test_an_address_that_is_not_ours(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pytest.raises(OSError, match=r"could not bind on any address|assign requested"):
            await loop.create_server(Recorder, "192.0.2.1", 0)

    run(main)


def test_after_a_failed_bind_no_socket_is_left(run: Run) -> None:
    """The first of two hosts is bound before the second fails."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving() as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(OSError, match="error while attempting to bind"):
                await loop.create_server(Recorder, ["::1", LOCALHOST], port)

    run(main)


WRONG: Dict[str, Any] = {
    "nothing": ({}, ValueError, "Neither host/port nor sock were specified"),
    "both": (
        {"host": LOCALHOST, "port": 0, "sock": socket.SOCK_STREAM},
        ValueError,
        "host/port and sock can not be specified at the same time",
    ),
    "ssl": (
        {"host": LOCALHOST, "port": 0, "ssl": True},
        TypeError,
        "ssl argument must be an SSLContext or None",
    ),
    "ssl_handshake_timeout": (
        {"host": LOCALHOST, "port": 0, "ssl_handshake_timeout": 1},
        ValueError,
        "ssl_handshake_timeout is only meaningful with ssl",
    ),
    "datagrams": ({"sock": socket.SOCK_DGRAM}, ValueError, "A Stream Socket was expected, got "),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(run: Run, name: str) -> None:
    """Wrong arguments raise asyncio's exception with its text."""
    options, error, text = WRONG[name]

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        given = dict(options)
        with socket.socket(type=given.get("sock", socket.SOCK_STREAM)) as sock:
            if "sock" in given:
                given["sock"] = sock
            with pytest.raises(error) as caught:
                await loop.create_server(Recorder, **given)
        assert str(caught.value).startswith(text)

    run(main)


def test_a_tls_socket_is_refused(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(socket.socket()) as sock:
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                await loop.create_server(Recorder, sock=sock)

    run(main)


def test_the_host_must_be_text_or_a_sequence(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pytest.raises(TypeError):
            await loop.create_server(Recorder, 3.5, 0)
        with pytest.raises(TypeError):
            await loop.create_server(Recorder, LOCALHOST, 0, colour="red")

    run(main)


# Serving


def test_it_serves_at_once_by_default(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            assert server.is_serving()
        assert not server.is_serving()

    run(main)


def test_start_serving_later(run: Run) -> None:
    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted, start_serving=False) as server:
            assert not server.is_serving()
            sock = server.sockets[0]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
            with pytest.raises(ConnectionRefusedError):
                await client(server)
            assert await server.start_serving() is None
            assert server.is_serving()
            await server.start_serving()
            with await client(server):
                await accepted.count(1)

    run(main)


def test_serve_forever_serves_until_it_is_cancelled(run: Run) -> None:
    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted, start_serving=False) as server:
            task = asyncio.ensure_future(server.serve_forever())
            await turns(2)
            assert server.is_serving()
            sock = await client(server)
            await accepted.count(1)
            sock.close()
            await accepted.protocols[0].lost()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not server.is_serving()
            assert server.sockets == ()

    run(main)


def test_close_ends_serve_forever(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            task = asyncio.ensure_future(server.serve_forever())
            await turns(2)
            server.close()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


def test_serve_forever_twice_is_refused(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            task = asyncio.ensure_future(server.serve_forever())
            await turns(2)
            with pytest.raises(
                RuntimeError, match=r"is already being awaited on serve_forever\(\)"
            ):
                await server.serve_forever()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(RuntimeError, match=r"server <.*> is closed"):
                await server.serve_forever()

    run(main)


def test_a_server_as_a_context_manager(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        accepted = Accepted()
        server = await loop.create_server(accepted, LOCALHOST, 0)
        async with server as entered:
            assert entered is server
            sock = await client(server)
            await accepted.count(1)
            sock.close()
        assert server.sockets == ()

    run(main)


# Closing


def test_close_refuses_new_connections_at_once(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving() as server:
            address = server.sockets[0].getsockname()
            server.close()
            with socket.socket() as sock:
                sock.setblocking(False)
                with pytest.raises(ConnectionRefusedError):
                    await loop.sock_connect(sock, address)

    run(main)


@pytest.mark.parametrize("running", [True, False], ids=["running", "between runs"])
def test_close_frees_its_port_at_once(loop: Any, running: bool) -> None:
    """With no turn of the loop in between; nobody has connected, so there is no TIME_WAIT."""
    server = loop.run_until_complete(loop.create_server(Recorder, LOCALHOST, 0))
    address = server.sockets[0].getsockname()
    loop.run_until_complete(turns(3))

    def close() -> None:
        server.close()
        with socket.socket() as next_one:
            next_one.bind(address)
            next_one.listen()
        loop.stop()

    if running:
        loop.call_soon(close)
        loop.run_forever()
    else:
        close()


def test_a_client_that_connects_in_the_step_of_close(run: Run) -> None:
    """Whether it was accepted by then or not, it is not left to wait, and no descriptor stays."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for _ in range(5):
            async with serving() as server:
                await turns(3)
                clients = [socket.create_connection(server.sockets[0].getsockname())]
                clients.append(socket.create_connection(server.sockets[0].getsockname()))
                server.close()
                await turns(3)
                for client in clients:
                    client.setblocking(False)
                    with pytest.raises(ConnectionResetError):
                        await loop.sock_recv(client, 10)
                    client.close()

    run(main)


def test_close_can_be_repeated(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            for _ in range(3):
                server.close()
            await server.wait_closed()
            server.close()
            await server.wait_closed()

    run(main)


def test_close_leaves_its_clients_alone(run: Run) -> None:
    """Seen elsewhere: `Server.close()` kills its clients."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = Accepted()
        async with serving(accepted) as server:
            with await client(server) as sock:
                (protocol,) = await accepted.count(1)
                server.close()
                await turns(5)
                assert not protocol.transport.is_closing()
                await loop.sock_sendall(sock, b"alive")
                assert await protocol.received(5) == b"alive"
                protocol.transport.write(b"too")
                assert await loop.sock_recv(sock, 10) == b"too"
            await protocol.lost()

    run(main)


def test_wait_closed_waits_for_the_connections(run: Run, backend: Backend) -> None:
    """Seen elsewhere: `wait_closed()` returns early."""
    if not PY312:
        pytest.skip("asyncio's wait_closed() returns at once after close() before Python 3.12")

    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted) as server:
            sock = await client(server)
            (protocol,) = await accepted.count(1)
            waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(2)]
            await turns(5)
            assert not any(task.done() for task in waiting)
            server.close()
            await turns(5)
            assert not any(task.done() for task in waiting)
            sock.close()
            await protocol.lost()
            await asyncio.gather(*waiting)
            await server.wait_closed()

    run(main)


def test_wait_closed_before_close_waits(run: Run, backend: Backend) -> None:
    """Seen elsewhere: `wait_closed()` returns early."""

    async def main() -> None:
        async with serving() as server:
            task = asyncio.ensure_future(server.wait_closed())
            await turns(5)
            assert not task.done()
            server.close()
            await task

    run(main)


def test_wait_closed_after_all_clients_have_left(run: Run) -> None:
    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted) as server:
            sock = await client(server)
            (protocol,) = await accepted.count(1)
            sock.close()
            await protocol.lost()
            server.close()
            await server.wait_closed()

    run(main)


def test_cancelling_wait_closed(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            task = asyncio.ensure_future(server.wait_closed())
            await turns(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.close()
            await server.wait_closed()

    run(main)


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_the_clients_can_be_closed(run: Run, backend: Backend, method: str) -> None:
    if backend.is_oracle and not PY313:
        pytest.skip(new_in_313)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = Accepted()
        async with serving(accepted) as server:
            clients = [await client(server) for _ in range(3)]
            protocols = await accepted.count(3)
            server.close()
            assert getattr(server, method)() is None
            assert all(protocol.transport.is_closing() for protocol in protocols)
            assert all("lost" not in protocol.events for protocol in protocols)
            await server.wait_closed()
            for protocol in protocols:
                assert await protocol.lost() is None
            for sock in clients:
                with sock:
                    assert await loop.sock_recv(sock, 10) == b""
            getattr(server, method)()

    run(main)


def test_close_clients_flushes_and_abort_clients_drops(run: Run, backend: Backend) -> None:
    if backend.is_oracle and not PY313:
        pytest.skip(new_in_313)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for method in ("close_clients", "abort_clients"):
            accepted = Accepted()
            async with serving(accepted) as server:
                with await client(server) as sock:
                    (protocol,) = await accepted.count(1)
                    written = 0
                    while protocol.transport.get_write_buffer_size() <= 65536:
                        protocol.transport.write(b"x" * 1_000_000)
                        written += 1_000_000
                        await turns(1)
                    getattr(server, method)()
                    got = 0
                    with contextlib.suppress(ConnectionResetError):
                        while True:
                            chunk = await loop.sock_recv(sock, 1 << 20)
                            if not chunk:
                                break
                            got += len(chunk)
                    assert (got == written) is (method == "close_clients")
                await protocol.lost()

    run(main)


def test_a_dropped_server_leaves_its_socket_to_the_loop(run: Run) -> None:
    """A server nobody refers to goes on serving, as its socket is watched by the loop."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        accepted = Accepted()
        server = await loop.create_server(accepted, LOCALHOST, 0)
        address, sockets = server.sockets[0].getsockname(), server.sockets
        del server
        gc.collect()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await accepted.count(1)
        await accepted.protocols[0].lost()
        loop.remove_reader(sockets[0].fileno())

    with pytest.warns(ResourceWarning, match="unclosed"):
        run(main)
        gc.collect()


# What fails


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_factory_that_raises_does_not_stop_the_server(
    run: Run, reports: Reports, backend: Backend
) -> None:
    """Seen elsewhere: a protocol factory that raises kills the process, or is dropped."""
    made: List[Any] = []

    def factory() -> Any:
        made.append(Recorder())
        if len(made) == 1:
            raise ArithmeticError("in the factory")
        return made[-1]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # asyncio tells of it in debug mode only
        async with serving(factory) as server:
            with await client(server) as failed, await client(server) as served:
                while len(made) < 2:
                    await turns(1)
                await made[1].until_event("made")
                await loop.sock_sendall(served, b"data")
                assert await made[1].received(4) == b"data"
                context = reports.take_one()
                assert context["message"] == ("Error on transport creation for incoming connection")
                assert isinstance(context["exception"], ArithmeticError)
                if not backend.is_oracle:  # asyncio leaves the socket to the collector
                    with contextlib.suppress(ConnectionResetError):
                        assert await loop.sock_recv(failed, 10) == b""
            await made[1].lost()

    run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_factory_that_exits_leaves_the_loop(loop: Any, reports: Reports, error: Any) -> None:
    """Seen elsewhere: `sys.exit()` in a coroutine hangs."""

    def factory() -> Any:
        raise error("in the factory")

    async def main() -> None:
        async with serving(factory) as server:
            with await client(server):
                await loop.create_future()

    with pytest.raises(error, match="in the factory"):
        loop.run_until_complete(main())
    finish(loop)
    gc.collect()
    reports.take()  # the accepting task's exception is never retrieved


def test_the_context_of_a_servers_callbacks(run: Run) -> None:
    """asyncio watches the listener, and so accepts, in a copy of the context that starts serving."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: List[str] = []

    def factory() -> Any:
        seen.append(variable.get())
        return Recorder()

    async def main() -> None:
        variable.set("of who starts it")
        async with serving(factory) as server:
            variable.set("set later")
            with await client(server):
                while not seen:
                    await turns(1)
            await turns(5)

    run(main)
    assert seen == ["of who starts it"]


@pytest.mark.unix("a limit of descriptors")
def test_emfile_is_reported_and_the_listener_recovers(
    loop: Any, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen elsewhere: EMFILE on accept stalls the listener. Here it tries again later."""
    now = loop.time()
    loop.time = lambda: now  # a clock of our own, so that nobody waits for the retry

    async def main() -> None:
        nonlocal now
        accepted = Accepted()
        async with serving(accepted) as server:
            sock = socket.socket()
            sock.setblocking(False)
            reported = loop.create_future()

            def handler(loop: Any, context: Any) -> None:
                if not reported.done():
                    reported.set_result(context)

            loop.set_exception_handler(handler)
            with no_more_descriptors() as allow:
                await loop.sock_connect(sock, server.sockets[0].getsockname())
                context = await reported
                await turns(20)
                allow()
            assert context["message"] == "socket.accept() out of system resource"
            assert context["exception"].errno == errno.EMFILE
            assert type(context["socket"]) is TransportSocket
            await turns(20)
            assert accepted.protocols == [], "it backs off"
            now += 1.5
            await accepted.count(1)
            sock.close()
            await accepted.protocols[0].lost()

    with few_descriptors():
        loop.run_until_complete(main())
    del loop.time


@pytest.mark.unix("a limit of descriptors")
def test_a_limit_of_descriptors_that_is_lowered_later(loop: Any, backend: Backend) -> None:
    """An accept of io_uring's that is under way keeps to the limit of when it began."""
    if not backend.is_proactor:
        pytest.skip("accept(2) looks at the limit each time")

    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted) as server:
            await asyncio.sleep(0.001)  # a wait of the loop
            with socket.socket() as sock, no_more_descriptors():
                sock.setblocking(False)
                await loop.sock_connect(sock, server.sockets[0].getsockname())
                await accepted.count(1)
            await accepted.protocols[0].lost()

    loop.run_until_complete(main())


def test_the_peers_name_of_one_who_has_gone(run: Run, backend: Backend) -> None:
    """accept(2) tells the name with the connection, io_uring does not, and a reset has none."""

    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted) as server:
            sock = socket.create_connection(server.sockets[0].getsockname())
            name = sock.getsockname()
            reset(sock)
            (protocol,) = await accepted.count(1)
            found = protocol.transport.get_extra_info("peername")
            assert found == (None if backend.is_proactor else name)
            protocol.transport.abort()
            await protocol.until_event("lost")

    run(main)


@pytest.mark.unix("listening sockets that are shut down")
def test_a_listening_socket_that_listens_again(run: Run) -> None:
    """An error of accepting that passes is reported, and connections come as before."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reported = loop.create_future()

        def handler(loop: Any, context: Any) -> None:
            if not reported.done():
                reported.set_result(context)

        loop.set_exception_handler(handler)
        accepted = Accepted()
        listening = listener()
        server = await loop.create_server(accepted, sock=listening)
        await asyncio.sleep(0.001)
        listening.shutdown(socket.SHUT_RD)  # accept(2) answers EINVAL
        assert (await reported)["exception"].errno == errno.EINVAL
        listening.listen(10)
        with socket.create_connection(listening.getsockname()):
            await accepted.count(1)
        await accepted.protocols[0].lost()
        server.close()
        await server.wait_closed()

    run(main)


@pytest.mark.unix("a limit of descriptors")
def test_emfile_does_not_spin(loop: Any) -> None:
    """EMFILE on accept gives one report per retry, not one per turn."""
    now = loop.time()
    loop.time = lambda: now
    contexts: List[Any] = []

    async def main() -> None:
        async with serving() as server:
            sock = socket.socket()
            sock.setblocking(False)
            loop.set_exception_handler(lambda loop, context: contexts.append(context))
            with no_more_descriptors():
                await loop.sock_connect(sock, server.sockets[0].getsockname())
                await turns(50)
            sock.close()

    with few_descriptors():
        loop.run_until_complete(main())
    del loop.time
    # asyncio goes round its accepting loop `backlog` times, or once more, before it leaves it.
    assert 1 <= len(contexts) <= 101


@pytest.mark.unix("a limit of descriptors")
def test_closing_a_server_that_backs_off(loop: Any, backend: Backend) -> None:
    """The retry finds the server closed; nothing happens then."""
    if backend.is_oracle:
        pytest.skip("asyncio's retry fails with a closed socket")
    now = loop.time()
    loop.time = lambda: now

    async def main() -> None:
        nonlocal now
        async with serving() as server:
            sock = socket.socket()
            sock.setblocking(False)
            reported = loop.create_future()

            def handler(loop: Any, context: Any) -> None:
                if not reported.done():
                    reported.set_result(context)

            loop.set_exception_handler(handler)
            with no_more_descriptors():
                await loop.sock_connect(sock, server.sockets[0].getsockname())
                await reported
            failures: List[Any] = []
            loop.set_exception_handler(lambda loop, context: failures.append(context))
            server.close()
            now += 5
            await turns(5)
            assert failures == []
            sock.close()

    with few_descriptors():
        loop.run_until_complete(main())
    del loop.time


def test_a_client_that_is_gone_before_it_is_accepted(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = Accepted()
        async with serving(accepted, start_serving=True) as server:
            sock = socket.create_connection(server.sockets[0].getsockname())
            reset(sock)
            with await client(server) as good:
                await loop.sock_sendall(good, b"data")
                while not any(protocol.data for protocol in accepted.protocols):
                    await turns(1)
            for protocol in accepted.protocols:
                await protocol.until_event("lost")

    run(main)


def test_a_buffered_protocol_is_served(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = Accepted(BufferedRecorder)
        async with serving(accepted) as server:
            with await client(server) as sock:
                (protocol,) = await accepted.count(1)
                await loop.sock_sendall(sock, b"data")
                assert await protocol.received(4) == b"data"
            await protocol.lost()

    run(main)


def test_many_clients_at_the_same_time(run: Run) -> None:
    class Echo(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = Accepted(Echo)

        async def talk(server: Any, number: int) -> None:
            with await client(server) as sock:
                for count in range(5):
                    message = b"%04d-%d" % (number, count)
                    await loop.sock_sendall(sock, message)
                    assert await loop.sock_recv(sock, 100) == message

        async with serving(accepted) as server:
            await asyncio.gather(*(talk(server, number) for number in range(90)))
            for protocol in accepted.protocols:
                await protocol.lost()
        assert len(accepted.protocols) == 90

    run(main)


def test_an_accepted_socket_is_not_inheritable(run: Run) -> None:
    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted) as server:
            with await client(server):
                (protocol,) = await accepted.count(1)
                assert not protocol.transport.get_extra_info("socket").get_inheritable()
                assert not server.sockets[0].get_inheritable()
            await protocol.lost()

    run(main)


def test_the_protocol_of_an_accepted_socket(run: Run) -> None:
    """It is what a Python socket says that is made of the descriptor: on Windows 0."""

    async def main() -> None:
        accepted = Accepted()
        async with serving(accepted) as server:
            with await client(server):
                (protocol,) = await accepted.count(1)
                sock = protocol.transport.get_extra_info("socket")
                proto = server.sockets[0].proto
                same = socket.socket(sock.family, sock.type, proto, fileno=sock.fileno())
                same.detach()
                assert sock.proto == same.proto
                assert f"proto={same.proto}," in repr(sock)
            await protocol.lost()

    run(main)


def test_the_sockets_of_a_server_cannot_be_watched(run: Run) -> None:
    """asyncio lets add_reader() replace the accepting; the descriptor of a transport it refuses."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted = Accepted()
        async with serving(accepted) as server:
            with await client(server):
                (protocol,) = await accepted.count(1)
                with pytest.raises(RuntimeError, match="is used by transport"):
                    loop.add_reader(protocol.transport.get_extra_info("socket"), print)
            await protocol.lost()

    run(main)


@pytest.mark.parametrize("wrong", [None, object()], ids=["none", "object"])
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_factory_that_makes_no_protocol_does_not_stop_the_server(
    run: Run, reports: Reports, wrong: Any
) -> None:
    """asyncio: what connection_made() is missing from fails its connection, and the loop goes on."""
    made: List[Any] = []

    def factory() -> Any:
        made.append(Recorder() if made else wrong)
        return made[-1]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(factory) as server:
            with await client(server), await client(server) as served:
                while len(made) < 2:
                    await turns(1)
                await made[1].until_event("made")
                await loop.sock_sendall(served, b"data")
                assert await made[1].received(4) == b"data"
            await made[1].lost()
            await turns(5)

    run(main)
    gc.collect()
    reports.take()  # debug mode and versions differ in whether it is told


def test_each_factory_call_has_a_context_of_its_own(run: Run) -> None:
    """asyncio runs a task for each connection: what a factory sets is gone with it."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen: List[int] = []

    def factory() -> Any:
        seen.append(variable.get())
        variable.set(variable.get() + 1)
        return Recorder()

    async def main() -> None:
        accepted = Accepted(factory)
        async with serving(accepted) as server:
            for number in range(4):
                with await client(server):
                    await accepted.count(number + 1)
            for protocol in accepted.protocols:
                await protocol.lost()

    run(main)
    assert seen == [0, 0, 0, 0]


@pytest.mark.parametrize("truth", [1, "yes"], ids=repr)
@pytest.mark.parametrize(
    "option",
    [
        "reuse_address",
        pytest.param("reuse_port", marks=pytest.mark.unix("SO_REUSEPORT")),
        pytest.param("keep_alive", id=new_in_313),
    ],
)
def test_options_are_taken_by_their_truth(
    run: Run, backend: Backend, option: str, truth: Any
) -> None:
    if option == "keep_alive" and backend.is_oracle and not PY313:
        pytest.skip(new_in_313)
    numbers = {
        "reuse_address": socket.SO_REUSEADDR,
        "reuse_port": getattr(socket, "SO_REUSEPORT", 0),
        "keep_alive": socket.SO_KEEPALIVE,
    }

    async def main() -> None:
        async with serving(**{option: truth}) as server:
            (sock,) = server.sockets
            assert sock.getsockopt(socket.SOL_SOCKET, numbers[option]) != 0

    run(main)


@pytest.mark.parametrize("truth", [0, "", 1], ids=repr)
def test_start_serving_is_taken_by_its_truth(run: Run, truth: Any) -> None:
    async def main() -> None:
        async with serving(start_serving=truth) as server:
            assert server.is_serving() is bool(truth)

    run(main)


def test_start_serving_of_none_is_not_to_start(run: Run) -> None:
    async def main() -> None:
        async with serving(start_serving=None) as server:
            assert not server.is_serving()

    run(main)


def test_a_closed_server_does_not_serve_again(run: Run) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
        server.close()
        with pytest.raises(TypeError):
            await server.start_serving()
        await turns(2)

    run(main)


def test_a_server_knows_its_loop(run: Run) -> None:
    """Private in asyncio, but read by libraries from before `get_loop()`."""

    async def main() -> None:
        async with serving() as server:
            assert server._loop is asyncio.get_running_loop()

    run(main)


@pytest.mark.unix("a limit of descriptors")
def test_a_listening_socket_that_is_gone_when_the_server_tries_again(loop: Any) -> None:
    """The user closes it while the server waits for descriptors: the loop goes on."""
    now = loop.time()
    loop.time = lambda: now
    contexts: List[Any] = []

    async def main() -> None:
        nonlocal now
        listening = listener()
        server = await loop.create_server(Recorder, sock=listening)
        sock = socket.socket()
        sock.setblocking(False)
        reported = loop.create_future()

        def handler(loop: Any, context: Any) -> None:
            contexts.append(context)
            if not reported.done():
                reported.set_result(None)

        loop.set_exception_handler(handler)
        with no_more_descriptors():
            await loop.sock_connect(sock, listening.getsockname())
            await reported
        listening.close()
        now += 5
        await turns(5)
        with contextlib.suppress(ValueError):  # asyncio: the socket has no number any more
            server.close()
        sock.close()

    with few_descriptors():
        loop.run_until_complete(main())
    del loop.time
    assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"
    assert contexts[0]["message"] == "socket.accept() out of system resource"


def test_an_abandoned_server_whose_context_refers_to_it_is_collected(backend: Backend) -> None:
    """The listener runs in a context, a variable of which holds the server and its loop."""
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    def make() -> Any:
        loop = backend.new_loop()

        async def main() -> None:
            server = await loop.create_server(Recorder, sock=listener(), start_serving=False)
            variable.set((loop, server))
            await server.start_serving()

        loop.run_until_complete(main())
        return weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gone = make()
        gc.collect()
        gc.collect()
    assert gone() is None


def test_closing_from_another_thread_while_the_loop_waits(run: Run) -> None:
    """It is done, or it is refused and nothing has changed: the server can still be closed."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Recorder, LOCALHOST, 0)
        address = server.sockets[0].getsockname()
        refused = await call_while_waiting(server.close)
        assert server.is_serving() is bool(refused)
        server.close()
        assert not server.is_serving()
        await turns(3)
        await asyncio.wait_for(server.wait_closed(), 5)
        with socket.socket() as sock:
            assert sock.connect_ex(address) == errno.ECONNREFUSED

    run(main)
