"""Where a check runs: which loop, which services, whose certificates."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import trustme

from .libraries import kind_of, package_of

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 10.0  # seconds for what should take none

Factory = Callable[[], asyncio.AbstractEventLoop]


def loop_package() -> str:
    """The package whose loop is under test: 'asyncio' or 'oxloop'."""
    return package_of(os.environ["DOWNSTREAM_LOOP"])


def is_under_test(class_name: str) -> bool:
    """Whether that is how the class of the loop under test is called."""
    is_proactor = kind_of(os.environ["DOWNSTREAM_LOOP"]) == "proactor"
    return ("Proactor" in class_name) is is_proactor


def loop_factory() -> Factory:
    """What makes the loop under test."""
    factory: Factory = importlib.import_module(loop_package()).new_event_loop
    return factory


def service(name: str) -> Dict[str, Any]:
    """How to reach a service: see ``services``."""
    found: Dict[str, Any] = json.loads(os.environ["DOWNSTREAM_SERVICES"])[name]
    return found


def environment() -> Dict[str, str]:
    """The environment for a Python process that a check starts."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def python(*arguments: str) -> List[str]:
    """The command for this Python with the warnings of this process."""
    return [sys.executable, "-X", "dev", *arguments]


@functools.cache
def authority() -> trustme.CA:
    """The authority that issues this process its certificates."""
    return trustme.CA()


@functools.cache
def certificate() -> trustme.LeafCert:
    """The certificate of localhost and 127.0.0.1."""
    return authority().issue_cert("localhost", "127.0.0.1")


def write_certificate(folder: str) -> Tuple[str, str, str]:
    """Write chain, key and authority of this process; return their paths."""
    chain, key, ca = (os.path.join(folder, name) for name in ("chain.pem", "key.pem", "ca.pem"))
    leaf = certificate()
    with open(chain, "wb") as file:
        file.writelines(blob.bytes() for blob in leaf.cert_chain_pems)
    leaf.private_key_pem.write_to_path(key)
    authority().cert_pem.write_to_path(ca)
    return chain, key, ca


def server_context() -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate().configure_cert(context)
    return context


def client_context(ca: str = "") -> ssl.SSLContext:
    """A client's side, which trusts this process's authority, or the one in the file `ca`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        context.load_verify_locations(ca)
    else:
        authority().configure_trust(context)
    return context


def body(size: int) -> bytes:
    """That many bytes, no two neighbouring pages of which are alike."""
    page = b"".join(number.to_bytes(4, "big") for number in range(4099))
    return (page * (size // len(page) + 1))[:size]


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait until a condition holds that nothing tells us of; fail if it takes too long."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"never came: {what or condition}")
        await asyncio.sleep(0.005)


async def soon(awaitable: Any) -> Any:
    """The result of what should come at once; TimeoutError if it does not come."""
    return await asyncio.wait_for(awaitable, PATIENCE)
