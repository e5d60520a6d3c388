"""Every example runs as its own process, as a reader would start it, and does what it says."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from support.backends import proactor_unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
LIMIT = 20  # seconds

# Each of them has a test below.
TESTED = {"custom_policy", "echo_server", "echo_streams", "hello", "http_server"}


@pytest.fixture(autouse=True, params=["selector", "proactor"])
def loop_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the two loop classes the program gets that names none."""
    reason = proactor_unavailable() if request.param == "proactor" else None
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv("OXLOOP_LOOP", request.param)


def _command(name: str, *arguments: str) -> list[str]:
    # Warnings of ours are errors; what aiohttp may warn of is not ours.
    strict = [] if name == "http_server" else ["-W", "error"]
    return [sys.executable, *strict, str(EXAMPLES / f"{name}.py"), *arguments]


def _output(name: str) -> list[str]:
    """Run an example to its end; it must succeed and complain about nothing."""
    finished = subprocess.run(_command(name), capture_output=True, text=True, timeout=LIMIT)
    assert finished.stderr == ""
    assert finished.returncode == 0
    return finished.stdout.splitlines()


@contextlib.contextmanager
def _server(name: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """Start an example that serves; give the process and where it listens."""
    with subprocess.Popen(
        _command(name, "--port", "0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), line + process.communicate()[1]
            host, _, port = line.split()[-1].rpartition(":")
            yield process, (host, int(port))
        finally:
            process.kill()


def _ends_well(process: subprocess.Popen[str]) -> str:
    """Wait for a process to end by itself; return what it printed after its first line."""
    output, errors = process.communicate(timeout=LIMIT)
    assert errors == ""
    assert process.returncode == 0
    return output


def _echo(address: tuple[str, int], message: bytes) -> bytes:
    with socket.create_connection(address, timeout=LIMIT) as client:
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_hello() -> None:
    assert _output("hello") == ["hello world", "on oxloop"]


def test_custom_policy() -> None:
    failure = "caught: invalid literal for int() with base 10: 'not a number'"
    assert _output("custom_policy") == [failure, "on oxloop"]


def test_echo_streams() -> None:
    assert _output("echo_streams") == ["ONE TWO", "THREE"]


def test_echo_server_ends_after_one_connection() -> None:
    message = bytes(range(256)) * 4096
    with _server("echo_server", "--once") as (process, address):
        assert _echo(address, message) == message
        assert _ends_well(process) == ""


@pytest.mark.unix("signals from one process to another")
def test_echo_server_ends_by_ctrl_c() -> None:
    with _server("echo_server") as (process, address):
        assert _echo(address, b"first") == b"first"
        assert _echo(address, b"second") == b"second"
        process.send_signal(signal.SIGINT)
        assert _ends_well(process) == "stopped\n"


@pytest.mark.skipif(find_spec("aiohttp") is None, reason="no aiohttp for this Python")
def test_http_server() -> None:
    with _server("http_server", "--once") as (process, (host, port)):
        with urlopen(f"http://{host}:{port}/you", timeout=LIMIT) as answer:
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            assert json.load(answer) == {"hello": "you"}
        assert _ends_well(process) == ""
