"""TLS: the user's contexts, the names and certificates that they check, and their sessions."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket
import ssl
from typing import Any, List, Optional

import pytest
from support.reports import Reports
from support.running import Run, turns
from support.sockets import LOCALHOST, tcp_pair
from support.tls import (
    CLIENT_NAME,
    EITHER_SIDE,
    NAME,
    OTHER_NAME,
    REFUSED,
    VERSIONS,
    Authority,
    Closing,
    Servant,
    TlsPeer,
    both_ends,
    client_of,
    connect,
    limited,
    only_task_left,
    port_of,
    server_of,
    serving,
)

# The name of the server


@pytest.mark.parametrize("host", [LOCALHOST, NAME])
def test_the_host_is_the_name_by_default(run: Run, authority: Authority, host: str) -> None:
    async def main() -> None:
        async with serving(Servant, authority.server()) as server:
            tls = await connect(server, host, ssl=authority.client())
            assert tls.server_hostname == host

    run(main)


def test_the_name_may_be_another_than_the_host(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with serving(Servant, authority.server(OTHER_NAME)) as server:
            tls = await connect(server, ssl=authority.client(), server_hostname=OTHER_NAME)
            assert tls.server_hostname == OTHER_NAME

    run(main)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("host", [LOCALHOST, NAME])
def test_a_wrong_name(
    run: Run, authority: Authority, reports: Reports, host: str, debug: bool
) -> None:
    protocols: List[Closing] = []

    def factory() -> Closing:
        protocols.append(Closing())
        return protocols[-1]

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving(Closing, authority.server(OTHER_NAME)) as server:
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                await loop.create_connection(
                    factory,
                    host,
                    port_of(server),
                    family=socket.AF_INET,
                    ssl=authority.client(),
                )
            # X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, x509_vfy.h.
            assert caught.value.verify_code == (62 if host == NAME else 64)
            while debug and not reports.contexts:  # the server's
                await turns(1)
            await turns(5)
        assert only_task_left()
        assert [protocol.events for protocol in protocols] == [[]]
        assert len(reports.take()) == debug

    run(main, debug=debug)


def test_an_untrusted_certificate(run: Run, authority: Authority) -> None:
    async def main() -> None:
        async with serving(Closing, authority.server()) as server:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(server, ssl=Authority().client())
            await turns(5)
        assert only_task_left()

    run(main)


@pytest.fixture
def trusted(
    authority: Authority, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Authority:
    """The authority, trusted by the default context: SSL_CERT_FILE, SSL_CTX_load_verify_locations(3)."""
    path = tmp_path / "authority.pem"
    authority.write(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return authority


def test_the_default_context(run: Run, trusted: Authority) -> None:
    async def main() -> None:
        async with serving(Servant, trusted.server()) as server:
            tls = await connect(server, ssl=True)
            assert tls.context.check_hostname
            assert tls.context.verify_mode == ssl.CERT_REQUIRED
        async with serving(Servant, trusted.server(OTHER_NAME)) as server:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(server, ssl=True)
            await turns(5)

    run(main)


def test_an_empty_name_is_not_checked(run: Run, trusted: Authority) -> None:
    """asyncio docs: "if server_hostname is an empty string, hostname matching is disabled"."""

    async def main() -> None:
        async with serving(Servant, trusted.server(OTHER_NAME)) as server:
            tls = await connect(server, ssl=True, server_hostname="")
            assert tls.server_hostname is None
            assert not tls.context.check_hostname
            assert tls.context.verify_mode == ssl.CERT_REQUIRED
            context = trusted.client()
            context.check_hostname = False
            tls = await connect(server, ssl=context, server_hostname="")
            assert tls.server_hostname is None

    run(main)


# The user's context. Seen elsewhere: its settings are ignored


@VERSIONS
@EITHER_SIDE
def test_the_versions_of_the_context(
    run: Run, authority: Authority, side: Any, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        ours = "client" if side is client_of else "server"
        context = limited(getattr(authority, ours)(), version)
        async with side(authority, **{ours: context}) as (end, peer):
            tls = end.transport.get_extra_info("ssl_object")
            assert tls.version() == peer.tls.version() == version.name.replace("_", ".")

    run(main)


@EITHER_SIDE
def test_the_ciphers_of_the_context(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        ours = "client" if side is client_of else "server"
        context = limited(getattr(authority, ours)(), ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        async with side(authority, **{ours: context}) as (end, peer):
            name, _, _ = end.transport.get_extra_info("cipher")
            assert name == "ECDHE-ECDSA-AES128-GCM-SHA256"

    run(main)


def test_no_version_in_common(run: Run, authority: Authority) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        server = limited(authority.server(), ssl.TLSVersion.TLSv1_2)
        client = limited(authority.client(), ssl.TLSVersion.TLSv1_3)
        left, right = tcp_pair()
        results = await asyncio.gather(
            loop.create_connection(Closing, sock=left, ssl=client, server_hostname=NAME),
            loop.connect_accepted_socket(Closing, right, ssl=server),
            return_exceptions=True,
        )
        assert isinstance(results[0], REFUSED)
        assert isinstance(results[1], ssl.SSLError)
        assert results[1].reason == "UNSUPPORTED_PROTOCOL"
        await turns(5)
        assert only_task_left()
        assert left.fileno() == right.fileno() == -1

    run(main)


@EITHER_SIDE
def test_alpn(run: Run, authority: Authority, side: Any) -> None:
    async def main() -> None:
        server, client = authority.server(), authority.client()
        server.set_alpn_protocols(["h2", "http/1.1"])
        client.set_alpn_protocols(["http/1.1", "other"])
        async with side(authority, server=server, client=client) as (end, peer):
            tls = end.transport.get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == "http/1.1"
            assert peer.tls.selected_alpn_protocol() == "http/1.1"

    run(main)


def test_the_servers_callback_sees_the_name_and_chooses_the_certificate(
    run: Run, authority: Authority
) -> None:
    async def main() -> None:
        context, other = authority.server(), authority.server(OTHER_NAME)
        seen: List[Any] = []

        def choose(tls: ssl.SSLObject, name: Optional[str], initial: ssl.SSLContext) -> None:
            seen.append((name, initial is context))
            if name == OTHER_NAME:
                tls.context = other

        context.sni_callback = choose
        async with serving(Servant, context) as server:
            for name in (NAME, OTHER_NAME):
                await connect(server, ssl=authority.client(), server_hostname=name)
            await connect(server, LOCALHOST, ssl=authority.client())
        assert seen == [(NAME, True), (OTHER_NAME, True), (None, True)]

    run(main)


def test_the_servers_callback_refuses_a_name(run: Run, authority: Authority) -> None:
    async def main() -> None:
        context = authority.server()
        context.sni_callback = lambda *args: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        async with serving(Closing, context) as server:
            with pytest.raises(REFUSED):
                await connect(server, NAME, ssl=authority.client())
            await turns(5)

    run(main)


def test_a_context_of_a_users_own_class(run: Run, authority: Authority) -> None:
    class Tls(ssl.SSLObject):
        pass

    class Context(ssl.SSLContext):
        sslobject_class = Tls
        names: List[Any]

        def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
            self.names = [kwargs.get("server_side"), kwargs.get("server_hostname")]
            return super().wrap_bio(*args, **kwargs)

    async def main() -> None:
        context = authority.client(make=Context)
        async with client_of(authority, client=context) as (end, peer):
            assert type(end.transport.get_extra_info("ssl_object")) is Tls
            assert context.names == [False, NAME]

    run(main)


# Certificates of clients


@VERSIONS
def test_a_clients_certificate(run: Run, authority: Authority, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        server = limited(authority.server(), version)
        server.verify_mode = ssl.CERT_REQUIRED
        client = authority.client(CLIENT_NAME)
        async with both_ends(authority, server=server, client=client) as (near, far):
            peercert = far.transport.get_extra_info("peercert")
            assert peercert["subjectAltName"] == (("email", CLIENT_NAME),)
            near.transport.write(b"data")
            assert await far.protocol.received(4) == b"data"

    run(main)


def test_a_server_refuses_a_client_without_certificate(run: Run, authority: Authority) -> None:
    async def main() -> None:
        context = limited(authority.server(), ssl.TLSVersion.TLSv1_2)
        context.verify_mode = ssl.CERT_REQUIRED
        async with serving(Closing, context) as server:
            with pytest.raises(REFUSED):
                await connect(server, ssl=authority.client())
            await turns(5)
        assert only_task_left()

    run(main)


def test_a_client_is_refused_after_its_handshake(run: Run, authority: Authority) -> None:
    """In TLS 1.3 a client is done before the server has seen its certificates."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        context = limited(authority.server(), ssl.TLSVersion.TLSv1_3)
        context.verify_mode = ssl.CERT_REQUIRED
        left, right = tcp_pair()
        with contextlib.closing(TlsPeer(right, context, server_side=True)) as peer:
            connecting = asyncio.ensure_future(
                loop.create_connection(
                    Closing, sock=left, ssl=authority.client(), server_hostname=NAME
                )
            )
            with pytest.raises(ssl.SSLError):
                await peer.handshake()
            _, protocol = await connecting
            error = await protocol.lost()
            assert isinstance(error, ssl.SSLError)
            assert error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"

    run(main)


# Sessions


@VERSIONS
def test_a_server_resumes_sessions(run: Run, authority: Authority, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        server, client = limited(authority.server(), version), authority.client()
        sessions: List[Any] = [None]
        for resumed in (False, True):
            async with server_of(authority, server=server, client=client, session=sessions[-1]) as (
                end,
                peer,
            ):
                end.transport.write(b"x")
                assert await peer.hear(1) == b"x"  # and TLS 1.3's tickets before it
                assert peer.tls.session_reused == resumed
                assert end.transport.get_extra_info("ssl_object").session_reused == resumed
                sessions.append(peer.tls.session)
                peer.encrypt(close_notify=True)  # else the session is not to be resumed

    run(main)


@VERSIONS
def test_a_client_resumes_sessions(run: Run, authority: Authority, version: ssl.TLSVersion) -> None:
    class Resuming(ssl.SSLContext):
        last: Any = None

        def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
            return super().wrap_bio(*args, **kwargs, session=self.last)

    async def main() -> None:
        context = authority.client(make=Resuming)
        async with serving(Servant, limited(authority.server(), version)) as server:
            loop: Any = asyncio.get_running_loop()
            for resumed in (False, True):
                transport, protocol = await loop.create_connection(
                    Closing, LOCALHOST, port_of(server), ssl=context
                )
                transport.write(b"x")
                await protocol.received(1)
                tls = transport.get_extra_info("ssl_object")
                assert tls.session_reused == resumed
                Resuming.last = tls.session
                transport.close()
                assert await protocol.lost() is None

    run(main)
    Resuming.last = None
