"""getaddrinfo and getnameinfo, and who asks them."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, Dict, List, Tuple

import pytest
from support.backends import Backend
from support.platforms import WINDOWS
from support.recorders import Recorder
from support.running import Run
from support.sockets import LOCALHOST, listener

QUERIES: List[Tuple[Any, Any, Dict[str, Any]]] = [
    ("127.0.0.1", 80, {}),
    ("127.0.0.1", 80, {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", "80", {"type": socket.SOCK_DGRAM}),
    ("127.0.0.1", None, {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", "", {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", b"80", {"type": socket.SOCK_STREAM}),
    (b"127.0.0.1", 80, {"type": socket.SOCK_STREAM}),
    ("127.1", 80, {"type": socket.SOCK_STREAM}),
    ("0x7f.1", 80, {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", 80, {"proto": socket.IPPROTO_TCP}),
    ("127.0.0.1", 80, {"proto": socket.IPPROTO_UDP}),
    ("127.0.0.1", 80, {"family": socket.AF_INET, "type": socket.SOCK_STREAM}),
    ("127.0.0.1", 80, {"type": socket.SOCK_STREAM, "flags": socket.AI_CANONNAME}),
    ("127.0.0.1", 80, {"family": socket.AF_INET6, "flags": socket.AI_V4MAPPED, "type": 1}),
    ("::1", 80, {}),
    ("::1", 80, {"type": socket.SOCK_STREAM}),
    ("::", 80, {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE}),
    ("::ffff:127.0.0.1", 80, {"type": socket.SOCK_STREAM}),
    ("fe80::1%lo", 80, {"type": socket.SOCK_STREAM}),
    ("fe80::1%1", 80, {"type": socket.SOCK_STREAM}),
    ("fe80::1", 80, {"type": socket.SOCK_STREAM}),
    ("localhost", 80, {"type": socket.SOCK_STREAM}),
    ("localhost", 80, {"family": socket.AF_INET}),
    (None, 80, {"type": socket.SOCK_STREAM}),
    (None, 80, {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE}),
    ("127.0.0.1", None, {"type": socket.SOCK_RAW}),
    ("127.0.0.1", 0, {"type": socket.SOCK_STREAM, "flags": socket.AI_NUMERICHOST}),
    ("127.0.0.1", 65535, {"type": socket.SOCK_STREAM, "flags": socket.AI_NUMERICSERV}),
]

FAILURES: List[Tuple[Any, Any, Dict[str, Any]]] = [
    ("name", 80, {"flags": socket.AI_NUMERICHOST}),
    ("127.0.0.1", 80, {"type": socket.SOCK_RAW}),
    ("", 80, {"type": socket.SOCK_STREAM}),
    ("127.0.0.1", "no such service", {"type": socket.SOCK_STREAM}),
    ("::1", 80, {"family": socket.AF_INET}),
    ("127.0.0.1", 80, {"family": socket.AF_INET6}),
    ("127.0.0.1", 80, {"family": 12345}),
    ("127.0.0.1", 80, {"type": 12345}),
    ("127.0.0.1", 80, {"flags": 1 << 30}),
    ("256.256.256.256", 80, {"flags": socket.AI_NUMERICHOST}),
    (None, None, {}),
    ("a\0b", 80, {}),
    (3, 80, {}),
    ("127.0.0.1", 1.5, {}),
    ("127.0.0.1", 80, {"family": "inet"}),
    ("127.0.0.1", 1 << 80, {}),
]


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_getaddrinfo_answers_what_the_socket_module_answers(run: Run, query: Any) -> None:
    """Seen elsewhere: `getaddrinfo` drops the IPv6 zone."""
    host, port, options = query
    expected = socket.getaddrinfo(host, port, **options)

    async def main() -> Any:
        return await asyncio.get_running_loop().getaddrinfo(host, port, **options)

    got = run(main)
    assert got == expected
    assert [tuple(map(type, entry)) for entry in got] == [
        tuple(map(type, entry)) for entry in expected
    ]


@pytest.mark.parametrize("query", FAILURES, ids=repr)
def test_getaddrinfo_fails_as_the_socket_module_fails(run: Run, query: Any) -> None:
    host, port, options = query
    with pytest.raises(Exception) as expected:  # noqa: PT011
        socket.getaddrinfo(host, port, **options)

    async def main() -> None:
        await asyncio.get_running_loop().getaddrinfo(host, port, **options)

    with pytest.raises(expected.type) as caught:
        run(main)
    assert caught.type is expected.type
    assert str(caught.value) == str(expected.value)


def test_getaddrinfo_takes_options_by_keyword_only(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with pytest.raises(TypeError):
            await loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET)

    run(main)


@pytest.mark.parametrize(
    ("address", "flags"),
    [
        (("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        (("127.0.0.1", 80), socket.NI_NUMERICSERV),
        (("::1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        (("::1", 80, 0, 0), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        (("fe80::1", 80, 0, 1), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
    ],
)
def test_getnameinfo_answers_what_the_socket_module_answers(
    run: Run, address: Any, flags: int
) -> None:
    """Seen elsewhere: `getaddrinfo` drops the IPv6 zone."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        assert await loop.getnameinfo(address, flags=flags) == await loop.getnameinfo(
            address, flags
        )
        return await loop.getnameinfo(address, flags)

    assert run(main) == socket.getnameinfo(address, flags)


@pytest.mark.parametrize("address", [("localhost name", 80), ("127.0.0.1",), "127.0.0.1", None])
def test_getnameinfo_fails_as_the_socket_module_fails(run: Run, address: Any) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011
        socket.getnameinfo(address, 0)

    async def main() -> None:
        await asyncio.get_running_loop().getnameinfo(address)

    with pytest.raises(expected.type) as caught:
        run(main)
    assert str(caught.value) == str(expected.value)


class Answers:
    """A user's getaddrinfo: it notes the questions and sends every name to one address."""

    def __init__(self, address: Tuple[str, int]) -> None:
        self.address = address
        self.questions: List[Any] = []

    async def __call__(self, host: Any, port: Any, **options: Any) -> Any:
        """Answer like loop.getaddrinfo()."""
        self.questions.append((host, port, options))
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", self.address)]


@pytest.mark.parametrize("how", ["attribute", "subclass"])
def test_create_connection_asks_the_users_getaddrinfo(backend: Backend, how: str) -> None:
    """Seen elsewhere: a user's override of `loop.getaddrinfo` is ignored by `create_connection`."""
    base = backend.loop_class()

    with listener() as listening:
        answers = Answers(listening.getsockname())

        class Loop(base):  # type: ignore[misc,valid-type]
            async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
                return await answers(host, port, **options)

        loop: Any = Loop() if how == "subclass" else base()
        if how == "attribute":
            loop.getaddrinfo = answers

        async def main() -> None:
            transport, protocol = await loop.create_connection(Recorder, "no.such.name", 7)
            assert transport.get_extra_info("peername") == answers.address
            transport.close()
            await protocol.lost()

        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
    assert len(answers.questions) == 1
    host, port, options = answers.questions[0]
    assert (host, port) == ("no.such.name", 7)
    assert options == {"family": 0, "type": socket.SOCK_STREAM, "proto": 0, "flags": 0}


def test_create_server_asks_the_users_getaddrinfo(loop: Any) -> None:
    answers = Answers((LOCALHOST, 0))
    loop.getaddrinfo = answers

    async def main() -> None:
        server = await loop.create_server(Recorder, "some.name", 0)
        assert server.sockets[0].getsockname()[0] == LOCALHOST
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert [question[:2] for question in answers.questions] == [("some.name", 0)]


def test_sock_connect_asks_the_users_getaddrinfo(loop: Any) -> None:
    async def main() -> None:
        with listener() as listening, socket.socket() as sock:
            answers = Answers(listening.getsockname())
            loop.getaddrinfo = answers
            sock.setblocking(False)
            await loop.sock_connect(sock, ("some.name", 7))
            assert sock.getpeername() == listening.getsockname()
            assert [question[:2] for question in answers.questions] == [("some.name", 7)]

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", ["127.0.0.1", b"127.0.0.1"])
def test_create_connection_to_a_number_asks_nobody(loop: Any, host: Any) -> None:
    """asyncio's shortcut for a host that is an address already."""

    async def main() -> None:
        with listener() as listening:
            loop.getaddrinfo = Answers(listening.getsockname())
            transport, protocol = await loop.create_connection(
                Recorder, host, listening.getsockname()[1]
            )
            transport.close()
            await protocol.lost()
            assert loop.getaddrinfo.questions == []

    loop.run_until_complete(main())


def test_a_zone_reaches_the_users_getaddrinfo(loop: Any) -> None:
    """Seen elsewhere: `getaddrinfo` drops the IPv6 zone: a host with one is no plain number."""

    async def main() -> None:
        with listener() as listening:
            answers = Answers(listening.getsockname())
            loop.getaddrinfo = answers
            transport, protocol = await loop.create_connection(Recorder, "::1%lo", 7)
            transport.close()
            await protocol.lost()
            assert [question[0] for question in answers.questions] == ["::1%lo"]

    loop.run_until_complete(main())


def test_a_zone_is_kept_by_sock_connect(loop: Any) -> None:
    """Seen elsewhere: `getaddrinfo` drops the IPv6 zone."""

    async def main() -> None:
        asked: List[Any] = []

        async def answer(host: Any, port: Any, **options: Any) -> Any:
            asked.append(host)
            return [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", port, 0, 0))]

        loop.getaddrinfo = answer
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("fe80::1%lo", 9))
            assert sock.getpeername()[0] == "::1"
        assert asked == ["fe80::1%lo"]

    loop.run_until_complete(main())


def test_a_scope_id_is_kept_by_sock_connect(loop: Any) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            loopback = socket.if_nameindex()[0] if WINDOWS else (socket.if_nametoindex("lo"), "lo")
            await loop.sock_connect(sock, ("::1", 9, 0, loopback[0]))
            assert sock.getpeername()[:2] == ("::1", 9)

    loop.run_until_complete(main())


def test_an_empty_answer_is_an_error(loop: Any) -> None:
    async def nobody(*args: Any, **kwargs: Any) -> List[Any]:
        return []

    loop.getaddrinfo = nobody

    async def main() -> None:
        with pytest.raises(OSError, match=r"getaddrinfo\(\) returned empty list"):
            await loop.create_connection(Recorder, "some.name", 80)
        with pytest.raises(OSError, match=r"getaddrinfo\('some\.name'\) returned empty list"):
            await loop.create_server(Recorder, "some.name", 80)

    loop.run_until_complete(main())


def test_a_failing_answer_is_the_error(loop: Any) -> None:
    async def failing(*args: Any, **kwargs: Any) -> List[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    loop.getaddrinfo = failing

    async def main() -> None:
        with pytest.raises(socket.gaierror, match="no such name"):
            await loop.create_connection(Recorder, "some.name", 80)

    loop.run_until_complete(main())


def test_queries_are_logged_in_debug_mode(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        loop.run_until_complete(loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM))
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.startswith("Get address info localhost:80, type=") for message in messages)
    assert any(message.startswith("Getting address info localhost:80") for message in messages)


@pytest.mark.parametrize("port", [80, "80", b"80"], ids=repr)
@pytest.mark.parametrize("family", [0, socket.AF_INET, socket.AF_INET6], ids=str)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_where_a_numeric_address_leads(
    run: Run, monkeypatch: pytest.MonkeyPatch, host: str, family: int, port: Any
) -> None:
    """As `_ipaddr_info` of asyncio.base_events has it, which nobody needs to ask."""
    expected = asyncio.base_events._ipaddr_info(  # type: ignore[attr-defined]
        host, port, family, socket.SOCK_STREAM, 0
    )
    if expected is None:
        pytest.skip("the resolver decides")
    asked: List[Any] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        async def sock_connect(sock: socket.socket, address: Any) -> None:
            asked.append((sock.family, sock.type, sock.proto, "", address))
            raise ConnectionRefusedError

        monkeypatch.setattr(loop, "sock_connect", sock_connect, raising=False)
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, host, port, family=family)

    run(main)
    assert asked == [expected]


def test_a_reader_of_addresses_of_the_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who replaces the function of asyncio's own that reads numeric addresses is asked."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with listener() as listening:
            port = listening.getsockname()[1]

            def read(host: Any, *_: Any) -> Any:
                return (
                    socket.AF_INET,
                    socket.SOCK_STREAM,
                    0,
                    "",
                    (LOCALHOST if host == "192.0.2.1" else host, port),
                )

            with monkeypatch.context() as patch:
                patch.setattr(asyncio.base_events, "_ipaddr_info", read)
                transport, protocol = await loop.create_connection(Recorder, "192.0.2.1", port)
            assert transport.get_extra_info("peername") == (LOCALHOST, port)
            transport.close()
            await protocol.lost()

    run(main)


@pytest.mark.parametrize(
    ("method", "arguments", "keywords"),
    [
        ("getaddrinfo", (LOCALHOST, 80), ("family", "type", "proto", "flags")),
        ("create_connection", (Recorder, LOCALHOST, 1), ("family", "proto")),
        ("create_connection", (Recorder, "localhost", 1), ("family", "proto", "flags")),
        ("create_server", (Recorder, LOCALHOST, 0), ("family",)),
        ("create_server", (Recorder, "localhost", 0), ("family", "flags")),
        ("create_datagram_endpoint", (Recorder, (LOCALHOST, 0)), ("family", "proto")),
        ("create_datagram_endpoint", (Recorder, ("localhost", 0)), ("family", "proto", "flags")),
    ],
    ids=repr,
)
def test_a_hint_that_is_none(
    run: Run, method: str, arguments: Tuple[Any, ...], keywords: Tuple[str, ...]
) -> None:
    """`None` is no number: it does not stand for the default."""

    async def main() -> None:
        for keyword in keywords:
            with pytest.raises(TypeError):
                await getattr(asyncio.get_running_loop(), method)(*arguments, **{keyword: None})

    run(main)
