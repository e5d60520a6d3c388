"""asyncpg: a protocol of its own over the loop's transports, TLS included, against PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import io
import ssl
from typing import Any, AsyncIterator, List, Tuple

import asyncpg  # type: ignore[import-untyped]

from . import place
from .place import body, soon, until

Connection = Any  # asyncpg's own type, which a pool wraps


def _address(**changes: Any) -> Any:
    server = place.service("postgres")
    wanted = {name: server[name] for name in ("host", "port", "user", "database")}
    return {**wanted, "ssl": False, "timeout": place.PATIENCE, **changes}


@contextlib.asynccontextmanager
async def _connected(**changes: Any) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(**_address(**changes))
    try:
        yield connection
    finally:
        await soon(connection.close())


async def _exchange(connection: Connection) -> None:
    for size in (0, 1, 8191, 8192, 100_000, 8 << 20):
        assert await connection.fetchval("select $1::bytea", body(size)) == body(size), size
    now = dt.datetime.now(dt.timezone.utc)
    row = await connection.fetchrow("select 1::int a, 'x' b, $1::timestamptz c, null d", now)
    assert tuple(row) == (1, "x", now, None)


async def check_values() -> None:
    async with _connected() as connection:
        await _exchange(connection)


async def check_unix_socket() -> None:
    async with _connected(host=place.service("postgres")["directory"]) as connection:
        await _exchange(connection)


async def check_tls() -> None:
    """asyncpg asks in plain text, then goes on by loop.start_tls() or what it has in its place."""
    context = place.client_context(place.service("postgres")["ca"])
    async with _connected(host="localhost", ssl=context) as connection:
        assert await connection.fetchval("select ssl from pg_stat_ssl where pid=pg_backend_pid()")
        await _exchange(connection)
    async with _connected(ssl="require") as connection:
        await _exchange(connection)
    async with _connected(direct_tls=False, ssl="prefer") as connection:
        assert await connection.fetchval("select ssl from pg_stat_ssl where pid=pg_backend_pid()")


async def check_untrusted_certificate() -> None:
    try:
        await asyncpg.connect(**_address(host="localhost", ssl=ssl.create_default_context()))
    except ssl.SSLCertVerificationError:
        pass
    else:
        raise AssertionError("nobody should trust it")


async def check_wrong_user_and_refused() -> None:
    try:
        await asyncpg.connect(**_address(user="nobody-of-that-name"))
    except asyncpg.InvalidAuthorizationSpecificationError:
        pass
    else:
        raise AssertionError("there is no such user")
    try:
        await asyncpg.connect(**_address(port=1))
    except OSError:
        pass
    else:
        raise AssertionError("nobody listens there")


async def check_transactions() -> None:
    async with _connected() as connection:
        await connection.execute("create temporary table t (a int primary key)")
        with contextlib.suppress(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute("insert into t values (1)")
                raise ZeroDivisionError
        async with connection.transaction():
            await connection.executemany(
                "insert into t values ($1)", [(number,) for number in range(10_000)]
            )
            try:
                async with connection.transaction():
                    await connection.execute("insert into t values (5)")
            except asyncpg.UniqueViolationError:
                pass
        assert await connection.fetchval("select count(*) from t") == 10_000


async def check_cursor() -> None:
    async with _connected() as connection, connection.transaction():
        query = "select i, repeat('x', 1000) from generate_series(0, 9999) i"
        numbers = [record[0] async for record in connection.cursor(query, prefetch=77)]
        assert numbers == list(range(10_000))
        cursor = await connection.cursor(query)
        await cursor.forward(500)
        assert [record[0] for record in await cursor.fetch(3)] == [500, 501, 502]


async def check_copy() -> None:
    """COPY in and out, where asyncpg pauses and resumes the transport."""
    rows = [(number, f"row {number}") for number in range(20_000)]
    async with _connected() as connection:
        await connection.execute("create temporary table t (a int, b text)")
        await connection.copy_records_to_table("t", records=rows)
        out = io.BytesIO()
        await connection.copy_from_table("t", output=out)
        lines = out.getvalue().decode().splitlines()
        assert lines == [f"{number}\t{text}" for number, text in rows]
        await connection.execute("truncate t")

        async def slowly(piece: bytes) -> None:
            await asyncio.sleep(0)
            received.append(piece)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(out.getvalue()), 10_007):
                yield out.getvalue()[start : start + 10_007]

        received: List[bytes] = []
        await connection.copy_to_table("t", source=pieces())
        await connection.copy_from_query("select * from t order by a", output=slowly)
        assert b"".join(received) == out.getvalue()


async def check_copy_that_fails() -> None:
    async with _connected() as connection:
        await connection.execute("create temporary table t (a int)")

        async def pieces() -> AsyncIterator[bytes]:
            yield b"1\n2\n"
            raise ZeroDivisionError

        for _ in range(3):
            try:
                await connection.copy_to_table("t", source=pieces())
            except ZeroDivisionError:
                pass
            else:
                raise AssertionError("the source failed")
        assert await connection.fetchval("select count(*) from t") == 0


async def check_notifications() -> None:
    heard: List[Tuple[str, str]] = []

    def hear(connection: Any, pid: int, channel: str, payload: str) -> None:
        heard.append((channel, payload))

    async with _connected() as listener, _connected() as speaker:
        await listener.add_listener("asyncpg_a", hear)
        await listener.add_listener("asyncpg_b", hear)
        for number in range(100):
            await speaker.execute("select pg_notify($1, $2)", "asyncpg_" + "ab"[number % 2],
                                  str(number))  # fmt: skip
        await until(lambda: len(heard) == 100)
        assert heard == [("asyncpg_" + "ab"[n % 2], str(n)) for n in range(100)]
        await listener.reset()


async def check_pool() -> None:
    """A thousand queries at the same time over twenty connections."""
    async with asyncpg.create_pool(**_address(min_size=5, max_size=20)) as pool:

        async def one(number: int) -> int:
            async with pool.acquire() as connection:
                result: int = await connection.fetchval("select $1::int * 2", number)
                return result

        got = await soon(asyncio.gather(*[one(number) for number in range(1000)]))
        assert got == [number * 2 for number in range(1000)]
        assert pool.get_size() <= 20
        some = [pool.fetch("select generate_series(1, $1::int)", size) for size in range(200)]
        assert [len(rows) for rows in await soon(asyncio.gather(*some))] == list(range(200))


async def check_cancelled_queries() -> None:
    """A task that is cancelled has its query cancelled, by a second connection, and can go on."""
    async with (
        _connected() as watcher,
        asyncpg.create_pool(**_address(min_size=0, max_size=3)) as pool,
    ):
        mark = "select pg_sleep(60) /* asyncpg cancelled */"
        count = "select count(*) from pg_stat_activity where query = $1 and state = 'active'"
        for _ in range(3):
            tasks = [asyncio.ensure_future(pool.execute(mark)) for _ in range(3)]
            while await watcher.fetchval(count, mark) != 3:
                pass
            for task in tasks:
                task.cancel()
            await soon(asyncio.wait(tasks))
            assert all(task.cancelled() for task in tasks)
        while await watcher.fetchval(count, mark):
            pass
        assert await pool.fetchval("select 1") == 1


async def check_timeouts() -> None:
    async with _connected() as connection:
        for _ in range(3):
            try:
                await connection.execute("select pg_sleep(60)", timeout=0.05)
            except asyncio.TimeoutError:
                pass
            else:
                raise AssertionError("no timeout")
        assert await connection.fetchval("select 1") == 1


async def check_killed_connection() -> None:
    async with _connected() as killer:
        for context in (False, place.client_context(place.service("postgres")["ca"])):
            connection = await asyncpg.connect(**_address(host="localhost", ssl=context))
            ended: List[Any] = []
            connection.add_termination_listener(ended.append)
            running = asyncio.ensure_future(connection.execute("select pg_sleep(60)"))
            await asyncio.sleep(0)
            pid = connection.get_server_pid()
            await killer.execute("select pg_terminate_backend($1)", pid)
            try:
                await soon(running)
            except (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError):
                pass
            else:
                raise AssertionError("it was killed")
            await until(connection.is_closed)
            assert len(ended) == 1
            await soon(connection.close())


async def check_pool_after_a_kill() -> None:
    async with (
        _connected() as killer,
        asyncpg.create_pool(**_address(min_size=0, max_size=5)) as pool,
    ):
        await asyncio.gather(*[pool.fetchval("select 1") for _ in range(5)])
        await killer.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        await until(lambda: pool.get_idle_size() == 0)
        for _ in range(20):
            assert await pool.fetchval("select 1") == 1


async def check_terminate() -> None:
    connection = await asyncpg.connect(**_address())
    running = asyncio.ensure_future(connection.execute("select pg_sleep(60)"))
    await asyncio.sleep(0.05)
    connection.terminate()
    try:
        await soon(running)
    except asyncpg.ConnectionDoesNotExistError:
        pass
    else:
        raise AssertionError("it was terminated")
