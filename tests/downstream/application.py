"""An ASGI application that can be asked for everything that moves bytes, for uvicorn and hypercorn."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from typing import Any, Awaitable, Callable, Dict, List, Tuple
from urllib.parse import parse_qs

from .place import body

Scope = Dict[str, Any]
Receive = Callable[[], Awaitable[Dict[str, Any]]]
Send = Callable[[Dict[str, Any]], Awaitable[None]]

PIECE = 65536

events: List[str] = []
"""What has happened, in order: lifespan.startup, disconnected, cancelled, ..."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what the path names."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _websocket(scope, receive, send)
    else:
        name = scope["path"].strip("/")
        asked = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        await _HTTP[name](receive, send, asked)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        events.append(kind)
        _write_event(kind)
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _write_event(kind: str) -> None:
    """Tell who started this process, if he has asked for it."""
    if "DOWNSTREAM_EVENTS" in os.environ:
        with open(os.environ["DOWNSTREAM_EVENTS"], "a", encoding="utf-8") as file:
            file.write(f"{kind} {os.getpid()}\n")


async def _websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back what comes; close with the code that is asked for."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            events.append(f"websocket closed {message.get('code')}")
            return
        text = message.get("text")
        if text is not None and text.startswith("close "):
            await send({"type": "websocket.close", "code": int(text[6:]), "reason": "asked for"})
        elif text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def _read(receive: Receive) -> Tuple[bytes, int]:
    """The whole body of a request, and in how many messages it came."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has gone")
        pieces.append(message["body"])
        if not message.get("more_body"):
            return b"".join(pieces), len(pieces)


async def _begin(send: Send, *headers: Tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _end(send: Send, content: bytes = b"") -> None:
    await send({"type": "http.response.body", "body": content})


async def _answer(send: Send, content: bytes) -> None:
    await _begin(send, (b"content-length", str(len(content)).encode()))
    await _end(send, content)


async def _about(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    kind = type(asyncio.get_running_loop())
    about = {"loop": kind.__module__.partition(".")[0], "class": kind.__name__, "pid": os.getpid()}
    await _answer(send, json.dumps(about).encode())


async def _digest(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    """What of the body of a request has arrived."""
    content, _ = await _read(receive)
    told = {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    await _answer(send, json.dumps(told).encode())


async def _bytes(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    """`n` bytes, by content-length."""
    await _answer(send, body(int(asked["n"])))


async def _stream(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    """`n` bytes, chunked."""
    content = body(int(asked["n"]))
    await _begin(send)
    for start in range(0, len(content), PIECE):
        piece = content[start : start + PIECE]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        events.append("piece")
    await _end(send)


async def _echo(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    """The body of the request, piece by piece, while it still arrives."""
    await _begin(send)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        if not more:
            return


async def _wait(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    """Nothing, until the client goes."""
    events.append("waiting")
    try:
        await _read(receive)
        while (await receive())["type"] != "http.disconnect":
            pass
        events.append("disconnected")
    except asyncio.CancelledError:
        events.append("cancelled")
        raise
    except ConnectionError:
        events.append("disconnected")


async def _slow(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    """An answer in two halves, the second one when there is a file called `until`."""
    await _begin(send, (b"content-length", b"8"))
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    with contextlib.suppress(FileNotFoundError):
        while not os.path.exists(asked["until"]):
            await asyncio.sleep(0.01)
    await _end(send, b"half")


async def _fail(receive: Receive, send: Send, asked: Dict[str, str]) -> None:
    raise RuntimeError("asked for")


_HTTP = {
    "about": _about,
    "digest": _digest,
    "bytes": _bytes,
    "stream": _stream,
    "echo": _echo,
    "wait": _wait,
    "slow": _slow,
    "fail": _fail,
}
