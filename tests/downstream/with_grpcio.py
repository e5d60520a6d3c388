"""grpc.aio: its completion queue lives in threads of C++ and wakes the loop by a socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, AsyncIterator, List

import grpc  # type: ignore[import-untyped]
from grpc import aio

from . import place
from .place import body, soon, until

events: List[str] = []


class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Methods whose messages are bytes, so that no compiler of protocol buffers is needed."""

    def service(self, details: Any) -> Any:
        """Find the method by its name."""
        name = details.method.rpartition("/")[2]
        make = {
            "unary": grpc.unary_unary_rpc_method_handler,
            "fail": grpc.unary_unary_rpc_method_handler,
            "crash": grpc.unary_unary_rpc_method_handler,
            "wait": grpc.unary_unary_rpc_method_handler,
            "down": grpc.unary_stream_rpc_method_handler,
            "up": grpc.stream_unary_rpc_method_handler,
            "both": grpc.stream_stream_rpc_method_handler,
        }.get(name)
        return make(getattr(self, name)) if make else None

    async def unary(self, request: bytes, context: Any) -> bytes:
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("told", "before"),))
        context.set_trailing_metadata((("told", "after"),))
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "asked for")
        return b""

    async def crash(self, request: bytes, context: Any) -> bytes:
        raise RuntimeError("asked for")

    async def wait(self, request: bytes, context: Any) -> bytes:
        events.append("waiting")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        return b""

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield body(number)

    async def up(self, requests: Any, context: Any) -> bytes:
        return str(sum([len(request) async for request in requests])).encode()

    async def both(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextlib.asynccontextmanager
async def _serving(tls: bool = False, **settings: Any) -> AsyncIterator[aio.Channel]:
    """A server and a channel to it."""
    events.clear()
    server = aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((_Service(),))
    if tls:
        leaf = place.certificate()
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        pair = (leaf.private_key_pem.bytes(), chain)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        root = place.authority().cert_pem.bytes()
        channel = aio.secure_channel(
            f"localhost:{port}", grpc.ssl_channel_credentials(root), options=OPTIONS
        )
    else:
        port = server.add_insecure_port("127.0.0.1:0")
        channel = aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS, **settings)
    await server.start()
    try:
        async with channel:
            yield channel
    finally:
        await soon(server.stop(0))


async def _unary(channel: aio.Channel) -> None:
    call = channel.unary_unary("/test/unary")
    for size in (0, 1, 100_000, 8 << 20):
        assert await soon(call(body(size))) == body(size)


async def check_unary() -> None:
    async with _serving() as channel:
        await _unary(channel)


async def check_unary_tls() -> None:
    async with _serving(tls=True) as channel:
        await _unary(channel)


async def check_many_calls() -> None:
    async with _serving() as channel:
        call = channel.unary_unary("/test/unary")
        got = await soon(asyncio.gather(*[call(str(n).encode()) for n in range(1000)]))
        assert got == [str(number).encode() for number in range(1000)]


async def check_streams() -> None:
    async with _serving() as channel:
        received = [message async for message in channel.unary_stream("/test/down")(b"500")]
        assert received == [body(number) for number in range(500)]

        async def messages() -> AsyncIterator[bytes]:
            for number in range(500):
                yield body(number)

        total = sum(range(500))
        assert await soon(channel.stream_unary("/test/up")(messages())) == str(total).encode()
        echoed = [message async for message in channel.stream_stream("/test/both")(messages())]
        assert echoed == received


async def check_conversation() -> None:
    """A stream that is read and written by hand, by turns."""
    async with _serving() as channel:
        call = channel.stream_stream("/test/both")()
        for number in range(200):
            await call.write(b"%d" % number)
            assert await soon(call.read()) == b"%d" % number
        await call.done_writing()
        assert await soon(call.read()) is aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def check_many_streams() -> None:
    async with _serving() as channel:

        async def one(number: int) -> None:
            call = channel.unary_stream("/test/down")(str(number).encode())
            assert len([message async for message in call]) == number

        await soon(asyncio.gather(*[one(number) for number in range(50)]))


async def check_errors() -> None:
    async with _serving() as channel:
        for name, code, text in (
            ("fail", grpc.StatusCode.ALREADY_EXISTS, "asked for"),
            ("nothing", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
        ):
            try:
                await soon(channel.unary_unary(f"/test/{name}")(b""))
            except aio.AioRpcError as error:
                assert (error.code(), error.details()) == (code, text)
            else:
                raise AssertionError(name)
        call = channel.unary_unary("/test/fail")(b"")
        assert ("told", "before") in list(await call.initial_metadata())
        assert ("told", "after") in list(await call.trailing_metadata())
        with contextlib.suppress(aio.AioRpcError):
            await call


async def check_deadlines() -> None:
    async with _serving() as channel:
        for _ in range(3):
            try:
                await soon(channel.unary_unary("/test/wait")(b"", timeout=0.1))
            except aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            else:
                raise AssertionError("no deadline")
        await until(lambda: events == ["waiting", "cancelled"] * 3)


async def check_cancellation() -> None:
    async with _serving() as channel:
        for number in range(3):
            call = channel.unary_unary("/test/wait")(b"")
            await until(lambda number=number: len(events) == 2 * number + 1)  # type: ignore[misc]
            assert call.cancel()
            try:
                await soon(call)
            except asyncio.CancelledError:
                pass
            else:
                raise AssertionError("not cancelled")
            await until(lambda number=number: len(events) == 2 * number + 2)  # type: ignore[misc]
        task = asyncio.ensure_future(_call(channel, "wait"))
        await until(lambda: len(events) == 7)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await until(lambda: events == ["waiting", "cancelled"] * 4)
        stream = channel.unary_stream("/test/down")(b"100000")
        async for _ in stream:
            stream.cancel()
            break
        assert await soon(stream.code()) is grpc.StatusCode.CANCELLED


async def _call(channel: aio.Channel, name: str) -> Any:
    return await channel.unary_unary(f"/test/{name}")(b"")


async def check_interceptors() -> None:
    class Interceptor(aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(details, request * 2)

    async with _serving(interceptors=[Interceptor()]) as channel:
        assert await soon(channel.unary_unary("/test/unary")(b"ab")) == b"abab"


async def check_graceful_stop() -> None:
    server = aio.server()
    server.add_generic_rpc_handlers((_Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream("/test/both")()
        await call.write(b"one")
        assert await soon(call.read()) == b"one"
        stopping = asyncio.ensure_future(server.stop(5))
        await call.write(b"two")
        assert await soon(call.read()) == b"two"
        await call.done_writing()
        assert await soon(call.read()) is aio.EOF
        await soon(stopping)
        assert not await server.wait_for_termination(1)  # it returns whether it timed out
        try:
            await soon(channel.unary_unary("/test/unary")(b"", timeout=1))
        except aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        else:
            raise AssertionError("it has stopped")


async def check_channel_readiness() -> None:
    channel = aio.insecure_channel("127.0.0.1:1")
    assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.IDLE
    await soon(channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE))
    try:
        await asyncio.wait_for(channel.channel_ready(), 0.2)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("nobody listens there")
    await channel.close()
