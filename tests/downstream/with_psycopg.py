"""psycopg: libpq does the reading and writing, the loop watches its descriptor."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, AsyncIterator, List

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from . import place
from .place import body, soon, until


def _address(**changes: Any) -> str:
    server = place.service("postgres")
    wanted = {
        "host": "127.0.0.1",
        "port": server["port"],
        "user": server["user"],
        "dbname": server["database"],
        "sslmode": "disable",
        "connect_timeout": 10,
        **changes,
    }
    return psycopg.conninfo.make_conninfo("", **wanted)


@contextlib.asynccontextmanager
async def _connected(**changes: Any) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await AsyncConnection.connect(_address(**changes), autocommit=True)
    try:
        yield connection
    finally:
        await soon(connection.close())


async def _value(connection: AsyncConnection[Any], query: Any, *values: Any) -> Any:
    cursor = await connection.execute(query, values, binary=True)
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def _exchange(connection: AsyncConnection[Any]) -> None:
    for size in (0, 1, 8191, 8192, 100_000, 8 << 20):
        assert await _value(connection, "select %b::bytea", body(size)) == body(size), size


async def check_values() -> None:
    async with _connected() as connection:
        await _exchange(connection)


async def check_unix_socket() -> None:
    async with _connected(host=place.service("postgres")["directory"]) as connection:
        await _exchange(connection)


async def check_tls() -> None:
    ca = place.service("postgres")["ca"]
    async with _connected(host="localhost", sslmode="verify-full", sslrootcert=ca) as connection:
        assert await _value(connection, "select ssl from pg_stat_ssl where pid=pg_backend_pid()")
        await _exchange(connection)


async def check_wrong_user_and_refused() -> None:
    for changes in ({"user": "nobody-of-that-name"}, {"port": 1}):
        try:
            await AsyncConnection.connect(_address(**changes))
        except psycopg.OperationalError:
            pass
        else:
            raise AssertionError(changes)


async def check_transactions() -> None:
    async with _connected() as connection:
        await connection.execute("create temporary table t (a int primary key)")
        with contextlib.suppress(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute("insert into t values (1)")
                raise ZeroDivisionError
        async with connection.transaction(), connection.cursor() as cursor:
            rows = [(number,) for number in range(2000)]
            await cursor.executemany("insert into t values (%s)", rows)
        assert await _value(connection, "select count(*) from t") == 2000


async def check_server_side_cursor() -> None:
    async with _connected() as connection, connection.transaction():
        async with connection.cursor("named") as cursor:
            await cursor.execute("select i, repeat('x', 1000) from generate_series(0, 9999) i")
            cursor.itersize = 77
            assert [row[0] async for row in cursor] == list(range(10_000))


async def check_copy() -> None:
    async with _connected() as connection, connection.cursor() as cursor:
        await cursor.execute("create temporary table t (a int, b text)")
        async with cursor.copy("copy t from stdin") as copy:
            for number in range(20_000):
                await copy.write_row((number, f"row {number}"))
        received = []
        async with cursor.copy("copy t to stdout") as copy:
            async for piece in copy:
                received.append(bytes(piece))
        lines = b"".join(received).decode().splitlines()
        assert lines == [f"{number}\trow {number}" for number in range(20_000)]


async def check_copy_that_fails() -> None:
    async with _connected() as connection:
        await connection.execute("create temporary table t (a int)")
        for _ in range(3):
            with contextlib.suppress(ZeroDivisionError):
                async with connection.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
                    await copy.write(b"1\n2\n")
                    raise ZeroDivisionError
        assert await _value(connection, "select count(*) from t") == 0


async def check_pipeline() -> None:
    async with _connected() as connection:
        if not psycopg.capabilities.has_pipeline():
            return
        async with connection.pipeline():
            cursors = [await connection.execute("select %s::int", [n]) for n in range(1000)]
            for number, cursor in enumerate(cursors):
                assert await cursor.fetchone() == (number,)
        try:
            async with connection.pipeline() as pipeline:
                await connection.execute("select 1/0")
                await connection.execute("select 1")
                await pipeline.sync()
        except psycopg.errors.DivisionByZero:
            pass
        else:
            raise AssertionError("a division by zero")
        async with connection.pipeline(), connection.cursor() as cursor:  # both directions full
            for _ in range(20):
                await cursor.execute("select %b::bytea", [body(500_000)], binary=True)
        assert await _value(connection, "select 1") == 1


async def check_notifications() -> None:
    async with _connected() as listener, _connected() as speaker:
        await listener.execute("listen psycopg_a")
        heard: List[str] = []

        async def listen() -> None:
            async for notify in listener.notifies():
                heard.append(notify.payload)
                if notify.payload == "99":
                    return

        listening = asyncio.ensure_future(listen())
        for number in range(100):
            await speaker.execute("select pg_notify('psycopg_a', %s)", [str(number)])
        await soon(listening)
        assert heard == [str(number) for number in range(100)]


async def check_pool() -> None:
    async with AsyncConnectionPool(_address(), min_size=5, max_size=20, open=False) as pool:
        await soon(pool.wait())

        async def one(number: int) -> int:
            async with pool.connection() as connection:
                result: int = await _value(connection, "select %s::int * 2", number)
                return result

        got = await soon(asyncio.gather(*[one(number) for number in range(1000)]))
        assert got == [number * 2 for number in range(1000)]


async def check_pool_timeout() -> None:
    async with AsyncConnectionPool(_address(), min_size=1, max_size=1, open=False) as pool:
        async with pool.connection():
            try:
                async with pool.connection(timeout=0.05):
                    raise AssertionError("there is but one")
            except PoolTimeout:
                pass
        async with pool.connection() as connection:
            assert await _value(connection, "select 1") == 1


async def check_cancelled_queries() -> None:
    """A task that is cancelled has its query cancelled, and its connection can go on."""
    mark = "select pg_sleep(60) /* psycopg cancelled */"
    count = "select count(*) from pg_stat_activity where query = %s and state = 'active'"
    async with _connected() as watcher, _connected() as connection:
        for _ in range(3):
            running = asyncio.ensure_future(connection.execute(mark))
            while not await _value(watcher, count, mark):
                pass
            running.cancel()
            await soon(asyncio.wait([running]))
            assert running.cancelled()
            while await _value(watcher, count, mark):
                pass
            assert await _value(connection, "select 1") == 1
        running = asyncio.ensure_future(connection.execute(mark))
        while not await _value(watcher, count, mark):
            pass
        await asyncio.get_running_loop().run_in_executor(None, connection.cancel)
        try:
            await soon(running)
        except psycopg.errors.QueryCanceled:
            pass
        else:
            raise AssertionError("it was cancelled")


async def check_timeouts() -> None:
    async with _connected() as connection:
        for _ in range(3):
            try:
                await asyncio.wait_for(connection.execute("select pg_sleep(60)"), 0.05)
            except asyncio.TimeoutError:
                pass
            else:
                raise AssertionError("no timeout")
        assert await _value(connection, "select 1") == 1


async def check_killed_connection() -> None:
    async with _connected() as killer:
        for mode in ("disable", "require"):
            connection = await AsyncConnection.connect(_address(sslmode=mode), autocommit=True)
            running = asyncio.ensure_future(connection.execute("select pg_sleep(60)"))
            await asyncio.sleep(0)
            await killer.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
            try:
                await soon(running)
            except psycopg.OperationalError:
                pass
            else:
                raise AssertionError("it was killed")
            assert connection.broken
            await soon(connection.close())


async def check_many_connections() -> None:
    """Connections are made and closed by the dozen: descriptors are used again at once."""
    for _ in range(3):
        connections = await asyncio.gather(
            *[AsyncConnection.connect(_address(), autocommit=True) for _ in range(30)]
        )
        values = await asyncio.gather(*[_value(it, "select 1") for it in connections])
        assert values == [1] * 30
        await asyncio.gather(*[it.close() for it in connections])


async def check_a_pool_that_loses_its_server_connections() -> None:
    async with AsyncConnectionPool(
        _address(),
        min_size=3,
        max_size=3,
        open=False,
        check=AsyncConnectionPool.check_connection,
    ) as pool:
        await soon(pool.wait())
        async with _connected() as killer:
            await killer.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> pg_backend_pid()"
            )
        for _ in range(5):
            async with pool.connection() as connection:
                assert await _value(connection, "select 1") == 1
        await until(lambda: pool.get_stats()["pool_size"] == 3)
