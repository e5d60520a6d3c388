"""What patch releases have changed in asyncio, each with its issue: the same on oxloop from that release on.

Where asyncio hung or failed before, and oxloop never did, asyncio is left out on the releases before.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import io
import socket
import ssl
import sys
import weakref
from typing import Any, List, Tuple

import pytest
from support.backends import PY311, PY312, Backend
from support.recorders import Recorder
from support.releases import LIBRARY_IS_AHEAD, ONE_CONTEXT, since
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, Peer, listener, tcp_pair
from support.tls import Authority, Closing, TlsPeer, client_of, server_of

pytestmark = pytest.mark.usefixtures("of_one_release")

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


# Contexts: gh-140947, in 3.15.0


class Setting(Recorder):
    """Writes down what it finds in its context, and leaves there what was called last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: List[Tuple[str, str]] = []
        self.find("init")

    def find(self, event: str) -> None:
        self.found.append((event, VARIABLE.get()))
        VARIABLE.set(event)

    def record(self, event: str) -> None:
        self.find(event)
        super().record(event)


def test_the_context_of_an_accepted_connection(run: Run) -> None:
    """From 3.15 on it is one, a copy of the server's; before, each is of where its cause was."""
    protocols: List[Setting] = []

    def factory() -> Setting:
        protocols.append(Setting())
        return protocols[-1]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        VARIABLE.set("created")
        server = await loop.create_server(factory, LOCALHOST, 0, start_serving=False)
        VARIABLE.set("started")
        await server.start_serving()
        for _ in range(2):
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.sendall(b"x")
                client.shutdown(socket.SHUT_WR)
                while not protocols or "made" not in protocols[-1].events:
                    await turns(1)
                await protocols[-1].lost()
            if ONE_CONTEXT:
                expected = [("init", "created"), ("made", "init"), ("data", "made")]
            else:
                expected = [("init", "started"), ("made", "init"), ("data", "init")]
            assert protocols[-1].found == [*expected, ("eof", "data"), ("lost", "eof")]
            protocols.clear()
        server.close()
        await server.wait_closed()

    run(main)


@pytest.mark.parametrize("accepted", [False, True], ids=["connected", "accepted"])
def test_the_context_of_a_connection(run: Run, accepted: bool) -> None:
    """From 3.15 on it is a copy of the one that asked for it, before the factory was called."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        VARIABLE.set("caller")
        if accepted:
            transport, protocol = await loop.connect_accepted_socket(Setting, left)
        else:
            transport, protocol = await loop.create_connection(Setting, sock=left)
        assert VARIABLE.get() == "init"
        VARIABLE.set("later")
        right.send(b"x")
        await protocol.received(1)
        transport.abort()
        await protocol.lost()
        right.close()
        if ONE_CONTEXT:
            expected = [("made", "caller"), ("data", "made"), ("lost", "data")]
        else:
            expected = [("made", "init"), ("data", "init"), ("lost", "later")]
        assert protocol.found == [("init", "caller"), *expected]

    run(main)


def test_the_context_of_what_is_told_of_the_write_buffer(run: Run) -> None:
    """The protocol is resumed in the connection's context, or in that of the write that had to wait."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Setting, sock=left)
        VARIABLE.set("writer")
        size = 0
        while "pause" not in protocol.events:
            transport.write(bytes(1 << 20))
            size += 1 << 20
            await turns(1)
        VARIABLE.set("reader")
        peer = Peer(right)
        await peer.receive(size)
        await protocol.until_event("resume")
        assert protocol.found[-1] == ("resume", "made" if ONE_CONTEXT else "writer")
        transport.abort()
        await protocol.lost()
        peer.close()

    run(main)


@pytest.mark.parametrize("server_side", [False, True], ids=["client", "server"])
def test_the_context_of_a_connection_with_tls(
    run: Run, authority: Authority, server_side: bool
) -> None:
    class Closed(Setting):
        def connection_lost(self, exc: Any) -> None:
            super().connection_lost(exc)
            if not PY311:
                self.transport.close()

    async def main() -> None:
        VARIABLE.set("caller")
        ending = (server_of if server_side else client_of)(authority, Closed)
        async with ending as (end, peer):
            VARIABLE.set("later")
            await peer.say(b"x")
            await end.protocol.received(1)
            await peer.send(peer.encrypt(close_notify=True))
            await end.protocol.lost()
        if ONE_CONTEXT:
            assert end.protocol.found[:3] == [
                ("init", "caller"),
                ("made", "caller"),
                ("data", "made"),
            ]
        else:
            assert [event for event, _ in end.protocol.found[:3]] == ["init", "made", "data"]
            assert end.protocol.found[2] != ("data", "later")

    run(main)


# Files: gh-150107, in 3.13.14 and 3.14.6

SEEKS = (3, 13, 14), (3, 14, 6)


def test_sendfile_begins_at_0_wherever_the_file_is(run: Run) -> None:
    """Where the file is read, which asyncio's began where it was."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        peer = Peer(right)
        file = io.BytesIO(b"0123456789")
        file.seek(4)
        expected = b"0123456789" if since(*SEEKS) else b"456789"
        assert await loop.sock_sendfile(left, file) == len(expected)
        assert await peer.receive(len(expected)) == expected
        transport, protocol = await loop.create_connection(Closing, sock=left)
        file.seek(4)
        assert await loop.sendfile(transport, file) == len(expected)
        assert await peer.receive(len(expected)) == expected
        transport.close()
        await protocol.lost()
        peer.close()

    run(main)


def test_sendfile_of_nothing_leaves_the_file_at_the_offset(run: Run, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with path.open("rb") as file, left, right:
            file.seek(2)
            assert await loop.sock_sendfile(left, file, 4) == 0
            assert file.tell() == (4 if since(*SEEKS) else 2)

    run(main)


# Servers: gh-123720, in 3.13.15 and 3.14.7


def test_a_cancelled_serve_forever_closes_its_clients(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocols: List[Recorder] = []

        def factory() -> Recorder:
            protocols.append(Recorder())
            return protocols[-1]

        server = await loop.create_server(factory, LOCALHOST, 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            while not protocols or "made" not in protocols[0].events:
                await turns(1)
            serving = asyncio.ensure_future(server.serve_forever())
            await turns(2)
            serving.cancel()
            if since((3, 13, 15), (3, 14, 7)):
                with pytest.raises(asyncio.CancelledError):
                    await serving
                assert "lost" in protocols[0].events
                assert client.recv(1) == b""
            else:
                await turns(5)
                assert "lost" not in protocols[0].events
                protocols[0].transport.close()
                with pytest.raises(asyncio.CancelledError):
                    await serving
                await protocols[0].lost()

    run(main)


# Processes: gh-119710, in 3.13.15 and 3.14.7; gh-103847 and gh-145551, in 3.13.13 and 3.14.4


@pytest.mark.unix("pass_fds")
def test_wait_ends_with_the_process(run: Run) -> None:
    """A pipe that somebody else has keeps the transport only."""
    source = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin={})\n"
    )

    async def main() -> None:
        reader, writer = socket.socketpair()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-c",
            source.format(reader.fileno()),
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[reader.fileno()],
        )
        waiting = asyncio.ensure_future(process.wait())
        while process.returncode is None:
            await turns(1)
        await turns(5)
        assert waiting.done() is (not PY311 or since((3, 13, 15), (3, 14, 7)))
        writer.send(b"end\n")
        assert await waiting == 0
        assert process.stdout is not None
        assert await process.stdout.read() == b""
        reader.close()
        writer.close()

    run(main)


def test_cancelling_the_start_of_a_process(run: Run, backend: Backend) -> None:
    """However far it has come, there is no process and no error in the end."""
    if backend.is_oracle and not since((3, 13, 13), (3, 14, 4)):
        pytest.skip("asyncio may hang, or report InvalidStateError")

    async def main() -> None:
        for count in range(6):
            starting = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    sys.executable,
                    "-S",
                    "-c",
                    "input()",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            )
            await turns(count)
            if starting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await starting
            else:
                process = await starting
                await process.communicate(b"\n")
        await turns(5)

    run(main)


# Connections


@pytest.mark.parametrize("delay", [None, 0.01])
def test_create_connection_without_any_error_of_the_system(
    run: Run, backend: Backend, delay: Any
) -> None:
    """gh-135836: what else a race of attempts ends by is no error of a list that is empty."""
    if backend.is_oracle and not since((3, 13, 6)):
        pytest.skip("asyncio raises IndexError")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        async def refuse(sock: Any, address: Any) -> None:
            raise ArithmeticError

        loop.sock_connect = refuse
        with listener() as listening:
            error = ArithmeticError if delay is None else TimeoutError
            with pytest.raises(error) as caught:
                await loop.create_connection(
                    Recorder, *listening.getsockname(), happy_eyeballs_delay=delay
                )
            if delay is not None:
                assert str(caught.value) == "create_connection failed"
        del loop.sock_connect

    run(main)


def test_an_accept_that_is_cancelled_when_somebody_has_come(run: Run, backend: Backend) -> None:
    """gh-153761: in the turn in which the loop has heard of it; who has come is not dropped."""
    if backend.is_oracle and not since((3, 13, 15), (3, 14, 7)):
        pytest.skip("asyncio drops the connection")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            for _ in range(3):
                task = asyncio.ensure_future(loop.sock_accept(listening))
                await turns(3)
                with socket.create_connection(listening.getsockname()) as client:
                    loop.call_soon(task.cancel)
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    accepted, address = await loop.sock_accept(listening)
                    with accepted:
                        assert address == client.getsockname()

    run(main)


def test_writelines_to_a_connection_that_has_failed(
    run: Run, backend: Backend, log: List[str]
) -> None:
    """gh-136234: it is dropped, as what `write` is given."""
    if backend.is_oracle and PY312 and not since((3, 13, 10), (3, 14, 1)):
        pytest.skip("asyncio fails with an error of its own")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        right.close()
        transport.abort()
        for _ in range(6):
            transport.writelines([b"x", b"y"])
        await protocol.lost()
        transport.writelines([b"x"])
        assert log.count("WARNING socket.send() raised exception.") == 3

    run(main)


# TLS


IS_CLOSING_ASKS_BELOW = since((3, 12, 8), (3, 13, 1))


def test_a_transport_closes_with_the_one_below(run: Run, authority: Authority) -> None:
    """gh-118950, in 3.12.8 and 3.13.1: an error of the system ends the connection below first."""

    async def main() -> None:
        async with client_of(authority) as (end, peer):
            peer.reset()
            # More than is kept for the end of the turn: this is refused at once.
            end.transport.write(bytes(1 << 20))
            assert "lost" not in end.protocol.events
            assert end.transport.is_closing() is IS_CLOSING_ASKS_BELOW
            await end.protocol.lost()
            assert end.transport.is_closing()

    run(main)


CHECKS_NAME = (3, 13, 16), (3, 14, 8)


@pytest.mark.skipif(LIBRARY_IS_AHEAD, reason="it is the library's module ssl that looks")
@pytest.mark.parametrize("upgrade", [False, True], ids=["create_connection", "start_tls"])
def test_a_context_that_checks_names_needs_one(
    run: Run, authority: Authority, upgrade: bool
) -> None:
    """gh-156793: a connection would be made to whoever has a certificate."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, authority.server(), server_side=True)) as peer:
            context = authority.client()
            if upgrade:
                plain = await loop.create_connection(Closing, sock=left)
                opening = loop.start_tls(*plain, context)
            else:
                opening = loop.create_connection(
                    Closing, sock=left, ssl=context, server_hostname=""
                )
            task = asyncio.ensure_future(opening)
            if since(*CHECKS_NAME):
                with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
                    await task
                if upgrade:
                    plain[0].abort()
                await turns(5)
                assert left.fileno() == -1
            else:
                await peer.handshake()
                made = await task
                transport = made if upgrade else made[0]
                transport.abort()
                await turns(5)

    run(main)


def test_start_tls_takes_what_a_stream_has_read(run: Run, authority: Authority) -> None:
    """gh-142352: a ClientHello that comes in one piece with what is before it."""
    if not since((3, 13, 13), (3, 14, 4)):
        pytest.skip("the handshake would wait for it for ever")

    async def serve(reader: asyncio.StreamReader, writer: Any) -> None:
        assert await reader.readline() == b"PROXY\n"
        await writer.start_tls(authority.server())
        writer.write((await reader.readline()).upper())
        writer.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(serve, LOCALHOST, 0)
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, server.sockets[0].getsockname())
        with contextlib.closing(TlsPeer(sock, authority.client())) as peer:
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            await peer.send(b"PROXY\n" + peer.encrypt())
            await peer.handshake()
            await peer.say(b"hello\n")
            assert await peer.hear(6) == b"HELLO\n"
        server.close()
        await turns(10)

    run(main)


def test_no_cycles_are_left_of_a_handshake_that_failed(
    run: Run, backend: Backend, authority: Authority
) -> None:
    """gh-159049: the exception is gone with its last name."""
    if backend.is_oracle and not since((3, 14, 9), (3, 15, 1)):
        pytest.skip("asyncio leaves cycles")

    async def attempt() -> Any:
        loop: Any = asyncio.get_running_loop()
        left, right = tcp_pair()
        peer = TlsPeer(right, authority.server(), server_side=True)
        opening = loop.create_connection(
            Closing, sock=left, ssl=authority.client(), server_hostname="other.example"
        )
        shaking = asyncio.ensure_future(peer.handshake())
        try:
            await opening
        except ssl.SSLCertVerificationError as error:
            return weakref.ref(error)
        finally:
            await asyncio.wait([shaking])
            shaking.exception()
            peer.close()

    async def main() -> None:
        gc.disable()
        try:
            error = await attempt()
            await turns(5)
            assert error is not None
            assert error() is None
        finally:
            gc.enable()

    run(main)


def test_the_end_of_tls_takes_no_longer_than_it_may(
    run: Run, backend: Backend, authority: Authority, reports: Reports
) -> None:
    """gh-160520, in 3.14.10 and 3.15.2: the peer has said goodbye, and does not read what is queued."""
    if not since((3, 14, 10), (3, 15, 2)):
        pytest.skip("closing waits for the peer")

    async def main() -> None:
        async with client_of(authority, ssl_shutdown_timeout=0.05) as (end, peer):
            end.transport.write(bytes(1 << 24))
            await peer.send(peer.encrypt(close_notify=True))
            error = await end.protocol.lost()
            assert isinstance(error, asyncio.TimeoutError)
            assert str(error) == "SSL shutdown timed out"

    run(main)
