"""httpx, over anyio and httpcore: HTTP/1.1 and HTTP/2 against hypercorn."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import tempfile
from typing import AsyncIterator, List

import httpx

from . import place, proxy
from .application import events
from .place import body, soon, until
from .with_hypercorn import serving

SIZES = (0, 1, 1000, 100_000, 2 << 20)


@contextlib.asynccontextmanager
async def _client(
    *, http2: bool = False, tls: bool = False, limit: int = 100, timeout: float = place.PATIENCE
) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(tls=tls) as (_, port):
        url = f"{'https' if tls else 'http'}://localhost:{port}"
        limits = httpx.Limits(max_connections=limit)
        verify = place.client_context() if tls else True
        async with httpx.AsyncClient(
            http2=http2, verify=verify, base_url=url, limits=limits, timeout=timeout
        ) as client:
            yield client


async def _bodies(client: httpx.AsyncClient) -> None:
    for size in SIZES:
        answer = await client.get(f"/bytes?n={size}")
        assert answer.content == body(size)
        told = (await client.post("/digest", content=body(size))).json()
        assert told == {"length": size, "sha256": hashlib.sha256(body(size)).hexdigest()}


async def check_bodies() -> None:
    async with _client() as client:
        await _bodies(client)


async def check_bodies_tls() -> None:
    async with _client(tls=True) as client:
        await _bodies(client)


async def check_bodies_http2() -> None:
    async with _client(tls=True, http2=True) as client:
        await _bodies(client)
        assert (await client.get("/about")).http_version == "HTTP/2"


async def _at_the_same_time(client: httpx.AsyncClient) -> None:
    sizes = [number * 100 for number in range(200)]
    answers = await asyncio.gather(*[client.get(f"/bytes?n={size}") for size in sizes])
    assert [len(answer.content) for answer in answers] == sizes


async def check_many_requests() -> None:
    async with _client(limit=10) as client:
        await _at_the_same_time(client)


async def check_many_requests_http2() -> None:
    async with _client(tls=True, http2=True) as client:
        await _at_the_same_time(client)


async def _uploads(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield body(number * 100)

    answer = await client.post("/echo", content=pieces())
    assert answer.content == b"".join([piece async for piece in pieces()])
    with tempfile.TemporaryFile() as file:
        file.write(body(1 << 20))
        file.seek(0)
        answer = await client.post("/digest", files={"file": ("name", file)}, data={"a": "b"})
        assert answer.json()["length"] > 1 << 20


async def check_uploads() -> None:
    async with _client() as client:
        await _uploads(client)


async def check_uploads_http2() -> None:
    async with _client(tls=True, http2=True) as client:
        await _uploads(client)


async def check_streaming() -> None:
    async with _client() as client:
        async with client.stream("GET", f"/stream?n={8 << 20}") as answer:
            got = b"".join([piece async for piece in answer.aiter_bytes()])
            assert got == body(8 << 20)
        async with client.stream("GET", f"/stream?n={32 << 20}") as answer:
            async for _ in answer.aiter_bytes():
                break  # and give up the rest
        assert (await client.get("/bytes?n=3")).content == body(3)


async def check_timeouts() -> None:
    async with _client() as client:
        for _ in range(5):
            try:
                await client.post("/wait", timeout=0.05)
            except httpx.ReadTimeout:
                pass
            else:
                raise AssertionError("no timeout")
        await until(lambda: len(events) >= 10, "the server's notice of it")
        assert (await client.get("/bytes?n=3")).content == body(3)


async def check_cancellation() -> None:
    async with _client(limit=2) as client:
        for _ in range(10):
            asking = asyncio.ensure_future(client.post("/wait"))
            before = events.count("waiting")
            await until(lambda before=before: events.count("waiting") > before)  # type: ignore[misc]
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
        assert (await client.get("/bytes?n=3")).content == body(3)


async def check_pool_timeout() -> None:
    async with _client(limit=1, timeout=0.1) as client:
        with tempfile.TemporaryDirectory() as folder:
            go = os.path.join(folder, "go")
            async with client.stream("GET", f"/slow?until={go}", timeout=5) as answer:
                try:
                    await client.get("/about")
                except httpx.PoolTimeout:
                    pass
                else:
                    raise AssertionError("there was but one connection")
                with open(go, "wb"):
                    pass
                assert await answer.aread() == b"halfhalf"
            assert (await client.get("/about")).status_code == 200


async def check_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with serving(unix=path):
            async with httpx.AsyncClient(transport=transport, base_url="http://any") as client:
                await _bodies(client)


async def check_refused() -> None:
    async with serving() as (_, port):
        pass
    async with httpx.AsyncClient() as client:
        try:
            await soon(client.get(f"http://localhost:{port}/"))
        except httpx.ConnectError:
            pass
        else:
            raise AssertionError("nobody listens there")


async def check_untrusted_certificate() -> None:
    async with serving(tls=True) as (_, port), httpx.AsyncClient() as client:
        try:
            await soon(client.get(f"https://localhost:{port}/"))
        except httpx.ConnectError as error:
            assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        else:
            raise AssertionError("nobody should trust it")


async def _through(proxy_tls: bool, http2: bool) -> None:
    """Through a proxy to a server of TLS; with TLS to the proxy one is inside of the other."""
    asked: List[str] = []
    context = place.client_context()
    async with serving(tls=True) as (_, port):
        server_context = place.server_context() if proxy_tls else None
        async with proxy.connecting(server_context, asked) as proxy_port:
            scheme = "https" if proxy_tls else "http"
            via = httpx.Proxy(
                f"{scheme}://localhost:{proxy_port}", ssl_context=context if proxy_tls else None
            )
            async with httpx.AsyncClient(
                proxy=via, verify=context, base_url=f"https://localhost:{port}", http2=http2
            ) as client:
                await _bodies(client)
    assert set(asked) == {f"localhost:{port}"}


async def check_proxy() -> None:
    await _through(proxy_tls=False, http2=False)


async def check_proxy_http2() -> None:
    await _through(proxy_tls=False, http2=True)


if sys.version_info >= (3, 11):  # asyncio has no TLS inside of TLS before

    async def check_proxy_by_tls() -> None:
        await _through(proxy_tls=True, http2=False)


async def check_server_goes_away() -> None:
    """A kept connection that the server has closed is made anew, unseen."""
    async with serving(keep_alive_timeout=0.1) as (_, port):
        async with httpx.AsyncClient(base_url=f"http://localhost:{port}") as client:
            for _ in range(3):
                assert (await client.get("/bytes?n=5")).content == body(5)
                await asyncio.sleep(0.2)
