"""pytest-asyncio: a project with tests and fixtures of every loop scope, run by pytest as a child."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import List, Tuple

from pytest_asyncio import plugin

from . import place
from .place import soon

HAS_FACTORIES = hasattr(plugin, "PytestAsyncioSpecs")

INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore:.*event_loop_policy.*:DeprecationWarning
    {ignored}
"""
# Before there were factories the plugin left a loop of its own unclosed.
IGNORED = "" if HAS_FACTORIES else "ignore::pytest.PytestUnraisableExceptionWarning"

# The three ways to choose the loop: the plugin's hook, its fixture before there was the hook, and
# the policy that is asyncio's own.
BY_FACTORY = """
import {loops} as loops

def pytest_asyncio_loop_factories(config, item):
    return {{"chosen": loops.new_event_loop}}
"""
BY_FIXTURE = """
import pytest
import {loops} as loops

@pytest.fixture(scope="session")
def event_loop_policy():
    return loops.DefaultEventLoopPolicy()
"""
BY_INSTALL = """
import {loops} as loops

getattr(loops, "install", int)()
"""

TESTS = """
import asyncio
import contextlib
import contextvars
import subprocess
import sys
import pytest
import pytest_asyncio

PACKAGE = "{loops}"

def package(loop=None):
    return type(loop or asyncio.get_running_loop()).__module__.partition(".")[0]

@pytest_asyncio.fixture
async def server():
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()

@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared():
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue()
    async def pump():
        while True:
            await queue.put(loop)
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
    task = asyncio.create_task(pump())
    yield loop, queue
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def session():
    yield asyncio.get_running_loop()

@pytest.mark.asyncio
async def test_the_loop():
    assert package() == PACKAGE

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(20))
async def test_server_of_a_fixture(server, number):
    reader, writer = await asyncio.open_connection(*server)
    writer.write(b"line %d\\n" % number)
    assert await reader.readline() == b"line %d\\n" % number
    writer.close()
    await writer.wait_closed()

@pytest.mark.asyncio(loop_scope="module")
async def test_shared_first(shared):
    loop, queue = shared
    assert loop is asyncio.get_running_loop()
    assert await queue.get() is loop

@pytest.mark.asyncio(loop_scope="module")
async def test_shared_second(shared):
    loop, queue = shared
    assert loop is asyncio.get_running_loop()
    assert await queue.get() is loop

@pytest.mark.asyncio(loop_scope="session")
async def test_session(session):
    assert session is asyncio.get_running_loop()
    assert package() == PACKAGE

@pytest.mark.asyncio(loop_scope="class")
class TestClass:
    loop = None

    async def test_first(self):
        TestClass.loop = asyncio.get_running_loop()

    async def test_second(self):
        assert TestClass.loop is asyncio.get_running_loop()
        assert package() == PACKAGE

@pytest.mark.asyncio
async def test_subprocess():
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(input())", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert (await child.communicate(b"text\\n"))[0].strip() == b"text"

@pytest.mark.asyncio
async def test_task_left_behind():
    asyncio.ensure_future(asyncio.Event().wait())

@pytest.mark.asyncio
async def test_async_generator_left_behind():
    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
    async for number in numbers():
        break

@pytest.mark.asyncio
async def test_threads():
    assert await asyncio.get_running_loop().run_in_executor(None, sum, [1, 2]) == 3

@pytest.mark.asyncio
@pytest.mark.xfail(strict=True, raises=ZeroDivisionError)
async def test_that_fails():
    await asyncio.sleep(0)
    1 / 0

@pytest.mark.asyncio
async def test_timeout():
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)

variable = contextvars.ContextVar("variable", default="default")

@pytest_asyncio.fixture
async def context():
    variable.set("from the fixture")

@pytest.mark.asyncio
async def test_context_of_a_fixture(context):
    assert variable.get() == "from the fixture"

def test_that_is_not_async():
    assert asyncio.run(asyncio.sleep(0, "result")) == "result"
"""
PASSED = "33 passed, 1 xfailed"
AUTO = """
import asyncio

async def test_the_loop():
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == "{loops}"
"""


async def _pytest(folder: str, *arguments: str) -> Tuple[int, str]:
    """Run the project; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *place.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments),
        cwd=folder,
        env=place.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 25)
    print(output.decode(), file=sys.stderr)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def _project(
    conftest: str, tests: str, *arguments: str, mode: str = "strict"
) -> Tuple[int, str]:
    loops = place.loop_package()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pytest.ini").write_text(INI.format(mode=mode, ignored=IGNORED))
        Path(folder, "conftest.py").write_text(conftest.format(loops=loops))
        Path(folder, "test_project.py").write_text(tests.replace("{loops}", loops))
        return await _pytest(folder, *arguments)


if HAS_FACTORIES:

    async def check_loop_factories() -> None:
        code, text = await _project(BY_FACTORY, TESTS)
        assert (code, PASSED in text) == (0, True), text


async def check_policy_fixture() -> None:
    if place.loop_package() == "asyncio" and sys.version_info >= (3, 14):
        return
    code, text = await _project(BY_FIXTURE, TESTS)
    assert (code, PASSED in text) == (0, True), text


async def check_install() -> None:
    code, text = await _project(BY_INSTALL, TESTS)
    assert (code, PASSED in text) == (0, True), text


async def check_auto_mode() -> None:
    code, text = await _project(BY_INSTALL, AUTO, mode="auto")
    assert (code, "1 passed" in text) == (0, True), text


async def check_interrupt() -> None:
    """Ctrl-C in a test ends pytest, which says so."""
    tests = AUTO + "\nasync def test_endless():\n    print('here', flush=True)\n"
    tests += "    await asyncio.Event().wait()\n"
    with tempfile.TemporaryDirectory() as folder:
        loops = place.loop_package()
        Path(folder, "pytest.ini").write_text(INI.format(mode="auto", ignored=IGNORED))
        Path(folder, "conftest.py").write_text(BY_INSTALL.format(loops=loops))
        Path(folder, "test_project.py").write_text(tests.replace("{loops}", loops))
        process = await asyncio.create_subprocess_exec(
            *place.python("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"),
            cwd=folder,
            env=place.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        lines: List[bytes] = []
        while b"here" not in b"".join(lines):
            line = await soon(process.stdout.readline())
            assert line, lines
            lines.append(line)
        process.send_signal(2)
        rest, _ = await soon(process.communicate())
        print(rest.decode(), file=sys.stderr)
        assert process.returncode == 2
        assert b"KeyboardInterrupt" in rest
