"""Unix stream sockets: the stream contract on them, and what is theirs alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import ssl
import stat
import struct
import tempfile
from typing import Any, Callable, Dict, Iterator, Tuple

import pytest
from support.backends import PY313, Backend
from support.contracts import Link, StreamContract
from support.recorders import Recorder
from support.reports import Reports
from support.running import Run, turns
from support.sockets import Peer, listener

pytestmark = pytest.mark.unix("AF_UNIX in Python's module socket")


@contextlib.contextmanager
def folder() -> Iterator[pathlib.Path]:
    """A folder with a short name, as paths of sockets have at most 107 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


@contextlib.contextmanager
def listening(path: Any) -> Iterator[socket.socket]:
    """A non-blocking listening socket at `path`."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(10)
        yield sock


def leave_socket(path: Any) -> None:
    """Leave at `path` what a process leaves that was killed."""
    with listening(str(path)):
        pass
    assert stat.S_ISSOCK(os.stat(path).st_mode)


class UnixContract(StreamContract):
    """The stream contract, with what is a reset between Unix sockets."""

    def test_a_peer_that_resets(self, run: Run) -> None:
        """unix(7) has no RST; a peer that closes with something unread is a reset."""

        async def main() -> None:
            async with self.link() as link:
                link.transport.write(b"unread")
                link.peer.close()
                assert isinstance(await link.protocol.lost(), ConnectionResetError)
                assert link.protocol.events == ["made", "lost"]
                assert link.transport.is_closing()

        run(main)


class TestConnected(UnixContract):
    """A transport that create_unix_connection() connected."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """Connect to a listener; the peer is what it accepts."""
        loop = asyncio.get_running_loop()
        with folder() as parent, listening(str(parent / "s")) as sock:
            connecting = asyncio.ensure_future(
                loop.create_unix_connection(factory, str(parent / "s"))
            )
            peer, _ = await loop.sock_accept(sock)
            transport, protocol = await connecting
        return Link(transport, protocol, Peer(peer))


class TestServed(UnixContract):
    """A transport that a server made."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """Connect to a server of our own, which closes at once; its connection stays."""
        loop = asyncio.get_running_loop()
        made: asyncio.Future[Any] = loop.create_future()

        def make() -> Any:
            protocol = factory()
            made.set_result(protocol)
            return protocol

        with folder() as parent:
            server = await loop.create_unix_server(make, str(parent / "s"))
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            await loop.sock_connect(client, str(parent / "s"))
            protocol = await made
            while protocol.transport is None:
                await turns(1)
            server.close()
            await turns(2)
        return Link(protocol.transport, protocol, Peer(client))


class TestAdopted(UnixContract):
    """A transport made from the user's own connected socket."""

    async def open(self, factory: Callable[[], Any]) -> Link:
        """Hand one of two connected sockets over."""
        left, right = socket.socketpair()
        right.setblocking(False)
        transport, protocol = await asyncio.get_running_loop().create_unix_connection(
            factory, sock=left
        )
        return Link(transport, protocol, Peer(right))


async def echo_once(path: Any, name: Any = None) -> Tuple[bytes, Any]:
    """Serve at `path` and send something there and back; the answer and the server's name."""
    loop = asyncio.get_running_loop()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())
            self.transport.close()

    server = await loop.create_unix_server(Echo, path)
    sockname = server.sockets[0].getsockname()
    transport, protocol = await loop.create_unix_connection(Recorder, name or path)
    assert transport.get_extra_info("peername") == sockname
    transport.write(b"echo")
    await protocol.lost()
    server.close()
    await server.wait_closed()
    await turns(2)
    return bytes(protocol.data), sockname


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path], ids=["str", "bytes", "PathLike"])
def test_a_path_of_every_kind(run: Run, kind: Callable[[Any], Any]) -> None:
    async def main() -> None:
        with folder() as parent:
            answer = await echo_once(kind(parent / "s"))
            assert answer == (b"ECHO", str(parent / "s"))

    run(main)


@pytest.mark.parametrize("kind", [str, bytes])
def test_abstract_names(run: Run, kind: type) -> None:
    name = f"\0oxloop-{os.getpid()}"
    given: Any = name if kind is str else os.fsencode(name)

    async def main() -> None:
        assert await echo_once(given) == (b"ECHO", os.fsencode(name))

    run(main)


def test_a_path_that_is_no_utf8(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            path = os.fsencode(parent) + b"/\xff"
            assert await echo_once(path) == (b"ECHO", os.fsdecode(path))

    run(main)


def test_the_credentials_of_the_peer(run: Run) -> None:
    """SO_PEERCRED through the socket object."""

    async def main() -> None:
        with folder() as parent:
            made = asyncio.get_running_loop().create_future()

            class Asking(Recorder):
                def connection_made(self, transport: Any) -> None:
                    super().connection_made(transport)
                    made.set_result(transport)

            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(Asking, str(parent / "s"))
            client, _ = await loop.create_unix_connection(Recorder, str(parent / "s"))
            sock = (await made).get_extra_info("socket")
            told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert struct.unpack("3i", told) == (os.getpid(), os.getuid(), os.getgid())
            assert sock.family == socket.AF_UNIX
            client.close()
            server.close()
            await turns(3)

    run(main)


def test_streams(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:

            async def answer(reader: Any, writer: Any) -> None:
                writer.write((await reader.readline()).upper())
                await writer.drain()
                writer.close()
                await writer.wait_closed()

            server = await asyncio.start_unix_server(answer, str(parent / "s"))
            reader, writer = await asyncio.open_unix_connection(str(parent / "s"))
            writer.write(b"line\n")
            assert await reader.read() == b"LINE\n"
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

    run(main)


# What stands at the path


def test_a_stale_socket_is_replaced(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            leave_socket(parent / "s")
            assert (await echo_once(str(parent / "s")))[0] == b"ECHO"

    run(main)


def test_a_file_is_not_replaced(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent:
            path = parent / "file"
            path.write_text("keep me", encoding="ascii")
            with pytest.raises(OSError, match="is already in use") as caught:
                await loop.create_unix_server(Recorder, path)
            assert caught.value.strerror == f"Address {str(path)!r} is already in use"
            assert path.read_text(encoding="ascii") == "keep me"
            assert caught.value.__cause__ is None
            assert caught.value.__suppress_context__
            assert isinstance(caught.value.__context__, OSError)

    run(main)


def test_an_abstract_name_in_use(run: Run) -> None:
    async def main() -> None:
        name = f"\0oxloop-used-{os.getpid()}"
        with listening(name), pytest.raises(OSError, match="is already in use") as caught:
            await asyncio.get_running_loop().create_unix_server(Recorder, name)
        assert caught.value.strerror == f"Address {name!r} is already in use"

    run(main)


def test_what_cannot_be_looked_at_is_logged(run: Run, reports: Reports) -> None:
    """asyncio: a directory may have permissions to create sockets only."""

    async def main() -> None:
        with folder() as parent:
            (parent / "file").touch()
            with pytest.raises(NotADirectoryError):
                await asyncio.get_running_loop().create_unix_server(
                    Recorder, str(parent / "file" / "s")
                )
            (message,) = reports.take_log()
            assert message.startswith("Unable to check or remove stale UNIX socket ")
            assert "NotADirectoryError" in message

    run(main)


def test_nothing_is_removed_that_was_bound_elsewhere(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            with listening(str(parent / "other")):
                assert (await echo_once(str(parent / "s")))[0] == b"ECHO"
            assert (parent / "other").exists()

    run(main)


def test_closing_removes_the_path_from_313_on(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent:
            path = parent / "s"
            server = await loop.create_unix_server(Recorder, path)
            server.close()
            server.close()
            assert path.exists() is not PY313
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(parent / "t"))
                server = await loop.create_unix_server(Recorder, sock=sock)
                server.close()
                assert (parent / "t").exists() is not PY313

    run(main)


def test_closing_removes_the_path_if_told_to(run: Run, backend: Backend) -> None:
    if backend.is_oracle and not PY313:
        pytest.skip("asyncio knows cleanup_socket from Python 3.13 on")

    async def main() -> None:
        with folder() as parent:
            server = await asyncio.get_running_loop().create_unix_server(
                Recorder, str(parent / "s"), cleanup_socket=True
            )
            server.close()
            assert not (parent / "s").exists()

    run(main)


@pytest.mark.skipif(not PY313, reason="new in Python 3.13")
def test_closing_leaves_the_path_if_told_to(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            server = await asyncio.get_running_loop().create_unix_server(
                Recorder, str(parent / "s"), cleanup_socket=False
            )
            server.close()
            assert (parent / "s").exists()

    run(main)


@pytest.mark.skipif(not PY313, reason="new in Python 3.13")
def test_closing_leaves_what_another_has_bound_since(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            path = parent / "s"
            loop = asyncio.get_running_loop()
            first = await loop.create_unix_server(Recorder, path)
            os.rename(path, parent / "moved")
            second = await loop.create_unix_server(Recorder, path)
            first.close()
            assert path.exists()
            path.unlink()
            second.close()

    run(main)


@pytest.mark.skipif(not PY313, reason="new in Python 3.13")
def test_a_path_that_cannot_be_removed_is_logged(run: Run, reports: Reports) -> None:
    async def main() -> None:
        with folder() as parent:
            inner = parent / "inner"
            inner.mkdir()
            server = await asyncio.get_running_loop().create_unix_server(Recorder, inner / "s")
            os.unlink(inner / "s")
            inner.rmdir()
            inner.touch()
            server.close()
            (message,) = reports.take_log()
            assert message.startswith("Unable to clean up listening UNIX socket ")

    run(main)


# Errors


def refused_clients() -> Dict[str, Tuple[Any, ...]]:
    """The arguments of create_unix_connection, the error and its text."""
    return {
        "nothing": ((), {}, ValueError, "no path and sock were specified"),
        "server_hostname": (
            ("path",),
            {"server_hostname": "name"},
            ValueError,
            "server_hostname is only meaningful with ssl",
        ),
        "handshake": (
            ("path",),
            {"ssl_handshake_timeout": 1},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
        "ssl without a name": (
            ("path",),
            {"ssl": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)},
            ValueError,
            "you have to pass server_hostname when using ssl",
        ),
        "a name of a wrong type": (("path",), {"server_hostname": 1}, AssertionError, "^$"),
        "a path of a wrong type": ((5,), {}, TypeError, "expected str, bytes or os.PathLike"),
        "nobody": (("no such path",), {}, FileNotFoundError, "No such file or directory"),
        "too long": (("x" * 200,), {}, OSError, "AF_UNIX path too long"),
    }


@pytest.mark.parametrize("name", list(refused_clients()))
def test_what_create_unix_connection_refuses(run: Run, name: str) -> None:
    arguments, keywords, error, text = refused_clients()[name]

    async def main() -> None:
        with pytest.raises(error, match=text):
            await asyncio.get_running_loop().create_unix_connection(
                Recorder, *arguments, **keywords
            )

    run(main)


def refused_servers() -> Dict[str, Tuple[Any, ...]]:
    """The arguments of create_unix_server, the error and its text."""
    wrong_tls = "ssl argument must be an SSLContext or None"
    return {
        "nothing": ((), {}, ValueError, "path was not specified, and no sock specified"),
        "ssl=True": (("path",), {"ssl": True}, TypeError, wrong_tls),
        "ssl=False": (("path",), {"ssl": False}, TypeError, wrong_tls),
        "handshake": (
            ("path",),
            {"ssl_handshake_timeout": 1},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
        "a path of a wrong type": ((5,), {}, TypeError, "expected str, bytes or os.PathLike"),
        "too long": (("x" * 200,), {}, OSError, "AF_UNIX path too long"),
    }


@pytest.mark.parametrize("name", list(refused_servers()))
def test_what_create_unix_server_refuses(run: Run, name: str) -> None:
    arguments, keywords, error, text = refused_servers()[name]

    async def main() -> None:
        with pytest.raises(error, match=text):
            await asyncio.get_running_loop().create_unix_server(Recorder, *arguments, **keywords)

    run(main)


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_sockets_that_are_refused(run: Run, method: str) -> None:
    async def main() -> None:
        call = getattr(asyncio.get_running_loop(), method)
        text = "A UNIX Domain Stream Socket was expected, got "
        with listener() as tcp, pytest.raises(ValueError, match=text):
            await call(Recorder, sock=tcp)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            with pytest.raises(ValueError, match=text):
                await call(Recorder, sock=datagrams)
            text = "path and sock can not be specified at the same time"
            with pytest.raises(ValueError, match=text):
                await call(Recorder, "path", sock=datagrams)

    run(main)


def test_connecting_to_a_stale_socket_is_refused(run: Run) -> None:
    async def main() -> None:
        with folder() as parent:
            leave_socket(parent / "s")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.get_running_loop().create_unix_connection(Recorder, str(parent / "s"))

    run(main)


def test_a_cancelled_connection_closes_its_socket(run: Run) -> None:
    """Nobody accepts, and the backlog is full."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent, socket.socket(socket.AF_UNIX) as sock:
            path = str(parent / "s")
            sock.bind(path)
            sock.listen(0)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(path)
                task = asyncio.ensure_future(loop.create_unix_connection(Recorder, path))
                await turns(3)
                task.cancel()
                with pytest.raises((asyncio.CancelledError, BlockingIOError)):
                    await task

    run(main)


def test_a_server_that_does_not_serve_yet(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with folder() as parent:
            path = str(parent / "s")
            server = await loop.create_unix_server(Recorder, path, start_serving=False)
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                await loop.create_unix_connection(Recorder, path)
            await server.start_serving()
            transport, protocol = await loop.create_unix_connection(Recorder, path)
            transport.close()
            await protocol.lost()
            server.close()
            await turns(3)

    run(main)
