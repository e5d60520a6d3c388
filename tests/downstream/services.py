"""A PostgreSQL and a Redis of our own: in a temporary directory, on free ports, gone afterwards.

Both come from the system's packages. As root the packages are installed if they are missing, and the
servers run as another user, since PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from . import place

PACKAGES = {"postgres": "postgresql", "redis": "redis-server"}


class Unavailable(Exception):
    """Why a service cannot be had, in a sentence."""


def _program(name: str) -> Optional[str]:
    """The path of a program; Debian keeps those of PostgreSQL's server out of PATH."""
    kept = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)
    return shutil.which(name) or (kept[0] if kept else None)


def _need(program: str, package: str) -> str:
    """The path of a program, whose package is installed if that can be done."""
    if (found := _program(program)) is not None:
        return found
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"no {program} here; to get it: {' '.join(install)} (as root)")
    print(f"No {program} here: {' '.join(install)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], install):
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    found = _program(program)
    if found is None:
        raise Unavailable(f"{' '.join(install)} failed: {done.stdout.strip()[-300:]}")
    return found


def _user() -> Optional[str]:
    """Who runs the servers: we, unless we are root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """A server in a directory of its own."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.user = _user()
        # In /tmp, as the path of a Unix socket has to be short and others have to get there.
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="downstream-", dir="/tmp"))
        self.directory = Path(name)
        self.log = self.directory / "log"
        self.write("ca.pem", place.authority().cert_pem.bytes())
        leaf = place.certificate()
        self.write("cert.pem", b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.write("key.pem", leaf.private_key_pem.bytes(), 0o600)
        os.chmod(self.directory, 0o755)
        self._give(self.directory)

    def write(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file that belongs to the server."""
        path = self.directory / name
        path.write_bytes(content)
        path.chmod(mode)
        self._give(path)

    def _give(self, path: Path) -> None:
        if self.user is not None:
            shutil.chown(path, self.user)

    def _options(self) -> Dict[str, Any]:
        home = {"HOME": str(self.directory), "LC_ALL": "C", "PATH": os.environ["PATH"]}
        options: Dict[str, Any] = {"cwd": self.directory, "env": home, "umask": 0o022}
        if self.user is not None:
            options.update(user=self.user, group=pwd.getpwnam(self.user).pw_gid, extra_groups=[])
        return options

    def run(self, *command: str) -> None:
        """Run a program to its end."""
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **self._options()
        )
        if done.returncode:
            raise Unavailable(f"{command[0]} failed: {done.stdout.strip()[-300:]}")

    def start(self, stack: contextlib.ExitStack, command: List[str], answers: Path) -> None:
        """Start the server, and wait until its Unix socket takes connections."""
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **self._options()
            )
        stack.callback(_end, process)
        limit = time.monotonic() + 30
        while time.monotonic() < limit and process.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(answers)) == 0:
                    return
            time.sleep(0.05)
        log = self.log.read_text(encoding="utf-8", errors="replace")
        raise Unavailable(f"{command[0]} did not start: {log.strip()[-300:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _postgres(stack: contextlib.ExitStack) -> Dict[str, Any]:
    initdb, postgres = (_need(name, PACKAGES["postgres"]) for name in ("initdb", "postgres"))
    service = Service(stack)
    directory, data, port = service.directory, service.directory / "data", free_port()
    service.run(
        initdb, "-D", str(data), "-U", "oxloop", "-A", "trust", "-E", "UTF8", "--no-sync"
    )  # fmt: skip
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": directory,
        "max_connections": 60,
        "fsync": "off",
        "full_page_writes": "off",
        "shared_buffers": "32MB",
        "ssl": "on",
        "ssl_cert_file": directory / "cert.pem",
        "ssl_key_file": directory / "key.pem",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    service.start(stack, [postgres, "-D", str(data), *options], directory / f".s.PGSQL.{port}")
    return {
        "host": "127.0.0.1",
        "port": port,
        "user": "oxloop",
        "database": "postgres",
        "directory": str(directory),
        "ca": str(directory / "ca.pem"),
    }


def _redis(stack: contextlib.ExitStack) -> Dict[str, Any]:
    redis = _need("redis-server", PACKAGES["redis"])
    service = Service(stack)
    directory, port, tls_port = service.directory, free_port(), free_port()
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "tls-port": tls_port,
        "tls-cert-file": directory / "cert.pem",
        "tls-key-file": directory / "key.pem",
        "tls-ca-cert-file": directory / "ca.pem",
        "tls-auth-clients": "no",
        "unixsocket": directory / "socket",
        "unixsocketperm": "777",
        "dir": directory,
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    service.start(stack, [redis, *options], directory / "socket")
    return {
        "host": "127.0.0.1",
        "port": port,
        "tls_port": tls_port,
        "path": str(directory / "socket"),
        "ca": str(directory / "ca.pem"),
    }


_STARTERS = {"postgres": _postgres, "redis": _redis}


@contextlib.contextmanager
def running(names: List[str]) -> Iterator[Dict[str, Any]]:
    """Start these services; yield how each is reached, or the sentence why it is not there."""
    found: Dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                found[name] = _STARTERS[name](stack)
            except Unavailable as reason:
                found[name] = str(reason)
        yield found
