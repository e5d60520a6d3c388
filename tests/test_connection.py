"""create_connection and connect_accepted_socket: addresses, happy eyeballs, errors, arguments."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest
from support.backends import PY311, PY312, Backend
from support.platforms import says
from support.recorders import Recorder
from support.releases import since
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, listener, refusing_address, tcp_pair

Info = Tuple[Any, Any, int, str, Any]


def info(address: Any) -> Info:
    """What getaddrinfo() says of `address`."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)


def resolve_to(loop: Any, *addresses: Any) -> None:
    """Make every name of `loop` stand for `addresses`."""

    async def getaddrinfo(*args: Any, **kwargs: Any) -> List[Info]:
        return [info(address) for address in addresses]

    loop.getaddrinfo = getaddrinfo


async def close(transport: Any, protocol: Any) -> None:
    """Close a transport and wait until it is gone."""
    transport.close()
    await protocol.lost()
    await turns(1)


@contextlib.contextmanager
def full_listener() -> Any:
    """A listener that accepts nobody and whose backlog is full: connecting to it waits."""
    with listener(backlog=0) as listening, contextlib.ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(listening.getsockname())
        yield listening.getsockname()


def test_it_connects_to_a_host_and_a_port(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            transport, protocol = await loop.create_connection(Recorder, *listening.getsockname())
            peer, address = listening.accept()
            assert isinstance(protocol, Recorder)
            assert protocol.transport is transport
            assert transport.get_extra_info("peername") == listening.getsockname()
            assert transport.get_extra_info("sockname") == address
            peer.close()
            await protocol.lost()

    run(main)


@pytest.mark.parametrize("port", [str, int, lambda port: str(port).encode()])
def test_the_port_can_be_text(run: Run, port: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with listener() as listening:
            host, number = listening.getsockname()
            await close(*await loop.create_connection(Recorder, host, port(number)))

    run(main)


def test_it_connects_to_a_name(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            port = listening.getsockname()[1]
            transport, protocol = await loop.create_connection(Recorder, "localhost", port)
            await close(transport, protocol)

    run(main)


def test_no_host_is_this_host(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with listener() as listening:
            port = listening.getsockname()[1]
            transport, protocol = await loop.create_connection(
                Recorder, None, port, family=socket.AF_INET
            )
            assert transport.get_extra_info("peername") == (LOCALHOST, port)
            await close(transport, protocol)

    run(main)


def test_it_connects_by_ipv6(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener(socket.AF_INET6, "::1") as listening:
            port = listening.getsockname()[1]
            transport, protocol = await loop.create_connection(Recorder, "::1", port)
            assert transport.get_extra_info("peername") == ("::1", port, 0, 0)
            assert transport.get_extra_info("socket").family is socket.AF_INET6
            await close(transport, protocol)

    run(main)


def test_the_family_chooses_among_addresses(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            port = listening.getsockname()[1]
            with pytest.raises(socket.gaierror):
                await loop.create_connection(
                    Recorder, LOCALHOST, port, family=socket.AF_INET6, flags=socket.AI_NUMERICHOST
                )
            await close(
                *await loop.create_connection(Recorder, LOCALHOST, port, family=socket.AF_INET)
            )

    run(main)


def test_a_socket_of_the_callers(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        assert transport.get_extra_info("socket").fileno() == left.fileno()
        await close(transport, protocol)
        right.close()

    run(main)


def test_the_local_address(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            transport, protocol = await loop.create_connection(
                Recorder, *listening.getsockname(), local_addr=("127.0.0.2", 0)
            )
            assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
            await close(transport, protocol)

    run(main)


def test_a_local_address_that_is_not_ours(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            with pytest.raises(
                OSError, match="error while attempting to bind on address "
            ) as caught:
                await loop.create_connection(
                    Recorder, *listening.getsockname(), local_addr=("192.0.2.1", 0)
                )
            assert caught.value.errno == errno.EADDRNOTAVAIL
            assert re.search(says(errno.EADDRNOTAVAIL), str(caught.value), re.IGNORECASE)
            assert "('192.0.2.1', 0): " in str(caught.value)

    run(main)


@pytest.mark.skipif(not PY312, reason="told since Python 3.12")
def test_a_local_address_of_the_other_family(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            with pytest.raises(OSError, match="no matching local address with family="):
                await loop.create_connection(
                    Recorder, *listening.getsockname(), local_addr=("::1", 0)
                )

    run(main)


def test_a_port_that_refuses(run: Run) -> None:
    async def main() -> None:
        with refusing_address() as address:
            with pytest.raises(ConnectionRefusedError) as caught:
                await asyncio.get_running_loop().create_connection(Recorder, *address)
            assert caught.value.errno == errno.ECONNREFUSED
            assert (
                str(caught.value) == f"[Errno {errno.ECONNREFUSED}] Connect call failed {address}"
            )

    run(main)


def test_the_next_address_is_tried(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as refusing, listener() as listening:
            resolve_to(loop, refusing, listening.getsockname())
            transport, protocol = await loop.create_connection(Recorder, "name", 80)
            assert transport.get_extra_info("peername") == listening.getsockname()
            await close(transport, protocol)

    run(main)


def test_different_errors_are_told_together(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as one, refusing_address() as two:
            resolve_to(loop, one, two)
            with pytest.raises(OSError, match="Multiple exceptions: ") as caught:
                await loop.create_connection(Recorder, "name", 80)
            assert str(caught.value) == (
                f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] Connect call failed {one}, "
                f"[Errno {errno.ECONNREFUSED}] Connect call failed {two}"
            )
            assert type(caught.value) is OSError

    run(main)


def test_equal_errors_are_told_once(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as address:
            resolve_to(loop, address, address)
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.create_connection(Recorder, "name", 80)
            assert (
                str(caught.value) == f"[Errno {errno.ECONNREFUSED}] Connect call failed {address}"
            )

    run(main)


@pytest.mark.skipif(not PY312, reason="all_errors is new in Python 3.12")
def test_all_errors_in_a_group(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with refusing_address() as one, refusing_address() as two:
            resolve_to(loop, one, two)
            with pytest.raises(ExceptionGroup) as caught:  # noqa: F821
                await loop.create_connection(Recorder, "name", 80, all_errors=True)
            assert caught.value.message == "create_connection failed"
            assert [type(error) for error in caught.value.exceptions] == [
                ConnectionRefusedError
            ] * 2
            with pytest.raises(ExceptionGroup) as caught:  # noqa: F821
                await loop.create_connection(Recorder, *one, all_errors=True)
            assert len(caught.value.exceptions) == 1

    run(main)


@pytest.mark.parametrize("delay", [None, 0, 0.001, 10])
def test_happy_eyeballs_connects(run: Run, delay: Optional[float]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as refusing, listener() as listening:
            resolve_to(loop, refusing, listening.getsockname())
            transport, protocol = await loop.create_connection(
                Recorder, "name", 80, happy_eyeballs_delay=delay
            )
            assert transport.get_extra_info("peername") == listening.getsockname()
            await close(transport, protocol)

    run(main)


def test_happy_eyeballs_does_not_wait_for_an_address_that_hangs(run: Run) -> None:
    """RFC 8305: the next attempt starts after the delay; the first to connect wins."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with full_listener() as hanging, listener() as listening:
            resolve_to(loop, hanging, listening.getsockname())
            transport, protocol = await loop.create_connection(
                Recorder, "name", 80, happy_eyeballs_delay=0.005
            )
            assert transport.get_extra_info("peername") == listening.getsockname()
            await close(transport, protocol)
            await turns(3)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


def test_happy_eyeballs_goes_on_at_once_after_a_failure(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as refusing, listener() as listening:
            resolve_to(loop, refusing, listening.getsockname())
            before = loop.time()
            transport, protocol = await loop.create_connection(
                Recorder, "name", 80, happy_eyeballs_delay=3600
            )
            assert loop.time() - before < 20
            await close(transport, protocol)

    run(main)


def test_happy_eyeballs_tells_all_failures(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as one, refusing_address() as two:
            resolve_to(loop, one, two)
            with pytest.raises(OSError, match="Multiple exceptions: ") as caught:
                await loop.create_connection(Recorder, "name", 80, happy_eyeballs_delay=0.01)
            for address in (one, two):
                assert f"Connect call failed {address}" in str(caught.value)

    run(main)


async def order_of_attempts(
    loop: Any, addresses: Sequence[Any], options: Dict[str, Any]
) -> List[Any]:
    """The addresses that sock_connect() is asked for while connecting to `addresses` fails."""
    attempts: List[Any] = []

    async def sock_connect(sock: Any, address: Any) -> None:
        attempts.append(address)
        raise OSError(errno.ENETUNREACH, "not from here")

    resolve_to(loop, *addresses)
    loop.sock_connect = sock_connect
    with pytest.raises(OSError, match="not from here"):
        await loop.create_connection(Recorder, "name", 80, **options)
    return attempts


V6 = [(f"2001:db8::{n}", 80, 0, 0) for n in range(1, 4)]
V4 = [(f"192.0.2.{n}", 80) for n in range(1, 4)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [*V6, *V4]),
        ({"interleave": 0}, [*V6, *V4]),
        ({"interleave": 1}, [V6[0], V4[0], V6[1], V4[1], V6[2], V4[2]]),
        ({"interleave": 2}, [V6[0], V6[1], V4[0], V6[2], V4[1], V4[2]]),
        ({"interleave": 3}, [*V6, *V4]),
        ({"happy_eyeballs_delay": 10}, [V6[0], V4[0], V6[1], V4[1], V6[2], V4[2]]),
        ({"happy_eyeballs_delay": 10, "interleave": 2}, [V6[0], V6[1], V4[0], V6[2], *V4[1:]]),
        ({"happy_eyeballs_delay": 10, "interleave": 0}, [*V6, *V4]),
    ],
    ids=repr,
)
def test_addresses_are_interleaved(run: Run, options: Dict[str, Any], expected: List[Any]) -> None:
    """asyncio docs, interleave: "First Address Family Count" of RFC 8305.

    The attempts go through the loop's own sock_connect(), which a user may have replaced.
    """

    async def main() -> List[Any]:
        return await order_of_attempts(asyncio.get_running_loop(), [*V6, *V4], options)

    assert run(main) == expected


WRONG = {
    "nothing": ({}, ValueError, "host and port was not specified and no sock specified"),
    "both": (
        {"host": LOCALHOST, "port": 80, "sock": "given"},
        ValueError,
        "host/port and sock can not be specified at the same time",
    ),
    "server_hostname": (
        {"host": LOCALHOST, "port": 80, "server_hostname": "name"},
        ValueError,
        "server_hostname is only meaningful with ssl",
    ),
    "ssl_handshake_timeout": (
        {"host": LOCALHOST, "port": 80, "ssl_handshake_timeout": 1},
        ValueError,
        "ssl_handshake_timeout is only meaningful with ssl",
    ),
    "ssl without host": (
        {"sock": "given", "ssl": True},
        ValueError,
        "You must set server_hostname when using ssl without a host",
    ),
}
if PY311:
    WRONG["ssl_shutdown_timeout"] = (
        {"host": LOCALHOST, "port": 80, "ssl_shutdown_timeout": 1},
        ValueError,
        "ssl_shutdown_timeout is only meaningful with ssl",
    )


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(run: Run, name: str) -> None:
    """Wrong arguments raise asyncio's exception with its text."""
    options, error, text = WRONG[name]

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with socket.socket() as sock:
            given = {**options, "sock": sock} if "sock" in options else options
            with pytest.raises(error) as caught:
                await loop.create_connection(Recorder, **given)
        assert str(caught.value) == text

    run(main)


def test_a_datagram_socket_is_refused(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            for method in ("create_connection", "connect_accepted_socket"):
                with pytest.raises(ValueError, match="A Stream Socket was expected, got "):
                    await getattr(loop, method)(Recorder, sock=sock)

    run(main)


def test_a_tls_socket_is_refused(run: Run) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        loop: Any = asyncio.get_running_loop()
        with context.wrap_socket(socket.socket()) as sock:
            for method in ("create_connection", "connect_accepted_socket"):
                with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                    await getattr(loop, method)(Recorder, sock=sock)

    run(main)


def test_unknown_keywords_are_refused(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pytest.raises(TypeError):
            await loop.create_connection(Recorder, LOCALHOST, 80, colour="red")
        with pytest.raises(TypeError):
            await loop.create_connection(Recorder, LOCALHOST, 80, None)

    run(main)


def test_a_socket_that_is_not_connected(run: Run) -> None:
    """asyncio makes a transport of it all the same, whose peername is None; reading then fails."""

    async def main() -> None:
        with socket.socket() as sock:
            transport, protocol = await asyncio.get_running_loop().create_connection(
                Recorder, sock=sock
            )
            assert transport.get_extra_info("peername") is None
            transport.abort()
            await protocol.until_event("lost")
            await turns(1)

    run(main)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_factory_that_raises(run: Run, of_one_release: None) -> None:
    """Seen elsewhere: a protocol factory that raises kills the process, or is dropped.

    From Python 3.14.8 on the user's socket is closed, too.
    """

    def factory() -> Any:
        raise ArithmeticError("in the factory")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            with pytest.raises(ArithmeticError, match="in the factory"):
                await loop.create_connection(factory, *listening.getsockname())
        left, right = tcp_pair()
        with pytest.raises(ArithmeticError, match="in the factory"):
            await loop.create_connection(factory, sock=left)
        assert (left.fileno() == -1) is since((3, 14, 8))
        left.close()
        right.close()

    run(main)


def test_a_factory_that_raises_leaves_no_socket(run: Run, backend: Backend) -> None:
    if backend.is_oracle and not since((3, 14, 8)):
        pytest.skip("asyncio leaves it to the collector until Python 3.14.8 (gh-153133)")

    def factory() -> Any:
        raise ArithmeticError

    async def main() -> None:
        with listener() as listening:
            with pytest.raises(ArithmeticError):
                await asyncio.get_running_loop().create_connection(
                    factory, *listening.getsockname()
                )
            accepted, _ = listening.accept()
            assert accepted.recv(1) == b""
            accepted.close()

    run(main)


def test_a_factory_is_called_once_and_only_when_connected(run: Run) -> None:
    calls: List[int] = []

    def factory() -> Any:
        calls.append(1)
        return Recorder()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with refusing_address() as address:
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(factory, *address)
            assert calls == []
        with listener() as listening:
            await close(*await loop.create_connection(factory, *listening.getsockname()))
        assert calls == [1]

    run(main)


def test_cancelling_while_it_connects(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with full_listener() as hanging:
            task = asyncio.ensure_future(loop.create_connection(Recorder, *hanging))
            await turns(5)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


def test_cancelling_while_happy_eyeballs_run(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with full_listener() as hanging:
            resolve_to(loop, hanging, hanging)
            task = asyncio.ensure_future(
                loop.create_connection(Recorder, "name", 80, happy_eyeballs_delay=0.001)
            )
            await asyncio.sleep(0.005)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns(5)

    run(main)


def test_cancelling_while_it_resolves(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        asked = asyncio.Event()

        async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            asked.set()
            await loop.create_future()

        loop.getaddrinfo = getaddrinfo
        task = asyncio.ensure_future(loop.create_connection(Recorder, "name", 80))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_wait_for_cancels_a_connect(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with full_listener() as hanging, pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_connection(Recorder, *hanging), 0.01)

    run(main)


def test_the_socket_of_a_connection(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            address = listening.getsockname()
            transport, protocol = await loop.create_connection(Recorder, *address)
            with listening.accept()[0] as accepted:
                assert transport.get_extra_info("sockname") == accepted.getpeername()
                assert transport.get_extra_info("peername") == address
                sock = transport.get_extra_info("socket")
                assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
                assert sock.proto == socket.IPPROTO_TCP
                assert f"proto={sock.proto}," in repr(sock)
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                assert sock.gettimeout() == 0
                assert sock.getpeername() == address
                assert not sock.get_inheritable()
            await close(transport, protocol)

    run(main)


def test_a_socket_class_of_the_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies and test tools put a class of their own in the place of `socket.socket`."""

    class Counted(socket.socket):
        connected = 0

        def connect(self, address: Any) -> None:
            Counted.connected += 1
            super().connect(address)

    async def main() -> None:
        with listener() as listening:
            monkeypatch.setattr(socket, "socket", Counted)
            loop = asyncio.get_running_loop()
            connecting = loop.create_connection(Recorder, *listening.getsockname())
            transport, protocol = await connecting
            monkeypatch.undo()
            await close(transport, protocol)

    run(main)
    assert Counted.connected == 1


def test_a_connect_of_the_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that forbid some addresses replace the method alone."""

    def connect(sock: socket.socket, address: Any) -> None:
        raise PermissionError(f"not to {address[0]}")

    async def main() -> None:
        with listener() as listening:
            monkeypatch.setattr(socket.socket, "connect", connect)
            connecting = asyncio.get_running_loop().create_connection(
                Recorder, *listening.getsockname()
            )
            with pytest.raises(PermissionError, match=f"not to {LOCALHOST}"):
                await connecting
            monkeypatch.undo()

    run(main)


@pytest.mark.parametrize("on", ["class", "instance"])
def test_a_sock_connect_of_the_users(run: Run, monkeypatch: pytest.MonkeyPatch, on: str) -> None:
    asked: List[Any] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        original = loop.sock_connect

        async def sock_connect(sock: socket.socket, address: Any) -> None:
            asked.append(address)
            await original(sock, address)

        def method(self: Any, sock: socket.socket, address: Any) -> Any:
            return sock_connect(sock, address)

        with listener() as listening, monkeypatch.context() as patch:
            patch.setattr(
                *(
                    (loop, "sock_connect", sock_connect)
                    if on == "instance"
                    else (type(loop), "sock_connect", method)
                )
            )
            address = listening.getsockname()
            await close(*await loop.create_connection(Recorder, *address))
            assert asked == [address]

    run(main)


#: Where an audit hook notes the events of sockets; a hook stays as long as the process.
audited: Optional[List[str]] = None


def audit(event: str, args: Any) -> None:
    if audited is not None and event.startswith("socket."):
        audited.append(event)


@pytest.mark.differs("a connection has no Python socket that could raise audit events")
def test_a_connection_is_audited(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.addaudithook(audit)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            address = listening.getsockname()
            events: List[str] = []
            with monkeypatch.context() as patch:
                patch.setitem(globals(), "audited", events)
                connected = await loop.create_connection(Recorder, *address)
            await close(*connected)
            assert "socket.__new__" in events
            assert "socket.connect" in events

    run(main)


def test_connect_accepted_socket(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.connect_accepted_socket(Recorder, left)
        assert protocol.events == ["made"]
        right.send(b"data")
        assert await protocol.received(4) == b"data"
        right.close()
        await protocol.lost()

    run(main)


def test_two_transports_of_one_socket_are_refused(run: Run, backend: Backend) -> None:
    if backend.is_oracle and not PY312:
        pytest.skip("asyncio looks at that since Python 3.12")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport"):
            await loop.create_connection(Recorder, sock=left)
        await close(transport, protocol)
        right.close()

    run(main)


def test_a_watched_socket_can_be_adopted_after_its_removal(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = tcp_pair()
        loop.add_reader(left, print)
        loop.remove_reader(left)
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        right.send(b"data")
        assert await protocol.received(4) == b"data"
        await close(transport, protocol)
        right.close()

    run(main)


def test_connections_at_the_same_time(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            connections = await asyncio.gather(
                *(loop.create_connection(Recorder, *listening.getsockname()) for _ in range(50))
            )
            peers = [listening.accept()[0] for _ in range(50)]
        for peer in peers:
            peer.send(b"x")
            peer.close()
        for _, protocol in connections:
            assert await protocol.lost() is None
            assert protocol.data == b"x"

    run(main)


def test_a_connection_in_debug_mode(run: Run, reports: Reports, backend: Backend) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with listener() as listening:
            transport, protocol = await loop.create_connection(Recorder, *listening.getsockname())
            peer, _ = listening.accept()
            peer.send(b"data")
            assert await protocol.received(4) == b"data"
            peer.close()
            await protocol.lost()

    run(main, debug=True)
