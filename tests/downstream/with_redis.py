"""redis-py's asyncio client, over asyncio's streams, against Redis."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, AsyncIterator, List

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import place
from .place import body, soon, until

_ONCE = Retry(NoBackoff(), 0)  # or the client hides what the checks want to see


@contextlib.asynccontextmanager
async def _connected(**settings: Any) -> AsyncIterator[Any]:
    """A client with a pool, and an empty database."""
    server = place.service("redis")
    if "unix_socket_path" not in settings:
        settings = {"host": "127.0.0.1", "port": server["port"], **settings}
    client: Any = redis.Redis(retry=_ONCE, **settings)
    try:
        await client.flushdb()
        yield client
    finally:
        await soon(client.aclose() if hasattr(client, "aclose") else client.close())


async def _exchange(client: Any) -> None:
    for size in (0, 1, 16_384, 65_536, 300_000, 8 << 20):
        await client.set("key", body(size))
        assert await client.get("key") == body(size), size


async def check_values() -> None:
    async with _connected() as client:
        await _exchange(client)


async def check_unix_socket() -> None:
    async with _connected(unix_socket_path=place.service("redis")["path"]) as client:
        await _exchange(client)


async def check_tls() -> None:
    server = place.service("redis")
    async with _connected(
        host="localhost", port=server["tls_port"], ssl=True, ssl_ca_certs=server["ca"]
    ) as client:
        await _exchange(client)


async def check_many_commands() -> None:
    """A thousand at the same time over twenty connections."""
    server = place.service("redis")
    pool: Any = redis.BlockingConnectionPool(
        host="127.0.0.1", port=server["port"], max_connections=20, timeout=10
    )
    client: Any = redis.Redis(connection_pool=pool)
    await client.flushdb()
    got = await soon(asyncio.gather(*[client.incr("counter") for _ in range(1000)]))
    assert sorted(got) == list(range(1, 1001))
    await client.aclose()
    await soon(pool.disconnect())


async def check_pipelines() -> None:
    async with _connected() as client:
        async with client.pipeline(transaction=False) as pipe:
            for number in range(5000):
                pipe.set(f"key {number}", number)
            for number in range(5000):
                pipe.get(f"key {number}")
            got = await soon(pipe.execute())
        assert got[5000:] == [str(number).encode() for number in range(5000)]
        async with client.pipeline(transaction=True) as pipe:
            await pipe.watch("watched")
            await client.set("watched", 1)
            pipe.multi()
            pipe.set("watched", 2)
            try:
                await pipe.execute()
            except redis.WatchError:
                pass
            else:
                raise AssertionError("the key has changed")


async def check_publish_and_subscribe() -> None:
    async with _connected() as client, client.pubsub() as listener:
        await listener.subscribe("one")
        await listener.psubscribe("t*")
        for number in range(500):
            await client.publish(("one", "two")[number % 2], number)
        got: List[int] = []
        async for message in listener.listen():
            if message["type"].endswith("message"):
                got.append(int(message["data"]))
                if len(got) == 500:
                    break
        assert got == list(range(500))
        assert await listener.get_message(timeout=0.05) is None
        await listener.unsubscribe()


async def check_subscriber_in_a_task() -> None:
    """get_message() with a timeout while others publish, then the task is cancelled."""
    got: List[bytes] = []

    async def listen(listener: Any) -> None:
        while True:
            message = await listener.get_message(ignore_subscribe_messages=True, timeout=0.01)
            if message is not None:
                got.append(message["data"])

    async with _connected() as client, client.pubsub() as listener:
        await listener.subscribe("channel")
        listening = asyncio.ensure_future(listen(listener))
        for number in range(100):
            await client.publish("channel", number)
        await until(lambda: len(got) == 100)
        listening.cancel()
        await asyncio.wait([listening])
        assert listening.cancelled()


async def check_blocking_pops() -> None:
    async with _connected() as client:
        waiting = [asyncio.ensure_future(client.blpop("list", timeout=10)) for _ in range(20)]
        while (await client.info("clients"))["blocked_clients"] < 20:
            pass
        for number in range(20):
            await client.rpush("list", number)
        got = await soon(asyncio.gather(*waiting))
        assert sorted(int(value) for _, value in got) == list(range(20))
        assert await client.blpop("list", timeout=0.1) is None


async def check_cancelled_pops() -> None:
    """A connection whose answer nobody waited for is not given to the next one."""
    async with _connected() as client:
        for _ in range(5):
            waiting = [asyncio.ensure_future(client.blpop("list", timeout=10)) for _ in range(5)]
            while (await client.info("clients"))["blocked_clients"] < 5:
                pass
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert all(task.cancelled() for task in waiting)
            await client.set("key", "value")
            assert await client.get("key") == b"value"
        while (await client.info("clients"))["blocked_clients"]:
            pass


async def check_timeouts() -> None:
    async with _connected(socket_timeout=0.1) as client:
        for _ in range(3):
            try:
                await client.blpop("list", timeout=5)
            except RedisTimeoutError:
                pass
            else:
                raise AssertionError("no timeout")
            assert await client.ping()


async def check_killed_clients() -> None:
    async with _connected() as killer, _connected() as client:
        for _ in range(3):
            waiting = asyncio.ensure_future(client.blpop("list", timeout=10))
            while not (await killer.info("clients"))["blocked_clients"]:
                pass
            await killer.client_kill_filter(_type="normal", skipme=True)
            try:
                await soon(waiting)
            except RedisConnectionError:
                pass
            except asyncio.TimeoutError:
                raise
            else:
                raise AssertionError("it was killed")
            with contextlib.suppress(RedisConnectionError):
                await client.ping()
            assert await client.ping()


async def check_scripts_and_iteration() -> None:
    async with _connected() as client:
        await client.mset({f"key {number}": number for number in range(3000)})
        found = {key async for key in client.scan_iter(count=50)}
        assert len(found) == 3000
        twice = client.register_script("return redis.call('get', KEYS[1]) * 2")
        assert await twice(keys=["key 21"]) == 42


async def check_streams() -> None:
    async with _connected() as client:
        await client.xgroup_create("stream", "group", mkstream=True)
        got: List[bytes] = []

        async def consume(name: str) -> None:
            while len(got) < 200:
                answer = await client.xreadgroup(
                    "group", name, {"stream": ">"}, count=10, block=100
                )
                entries = answer.items() if isinstance(answer, dict) else answer
                for _, messages in entries:
                    flat = messages[0] if messages and isinstance(messages[0], list) else messages
                    for key, fields in flat:
                        got.append(fields[b"number"])
                        await client.xack("stream", "group", key)

        consuming = asyncio.gather(*[consume(f"consumer {number}") for number in range(4)])
        for number in range(200):
            await client.xadd("stream", {"number": number})
        await soon(consuming)
        assert sorted(int(value) for value in got) == list(range(200))


async def check_refused() -> None:
    client: Any = redis.Redis(host="127.0.0.1", port=1, retry=_ONCE)
    try:
        await client.ping()
    except RedisConnectionError:
        pass
    else:
        raise AssertionError("nobody listens there")
    await client.aclose()
