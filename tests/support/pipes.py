"""Pipes as loops take them."""

from __future__ import annotations

import os
from typing import Any, Tuple

from .platforms import WINDOWS


def pipe_ends(duplex: bool = True) -> Tuple[Any, Any]:
    """Both ends of a pipe, the reading one first.

    On Windows the pipe is overlapped, and the writing end can read, too, if it is `duplex`:
    asyncio's transport for writing does, to see that the other end is closed.
    """
    if not WINDOWS:
        reader, writer = os.pipe()
        return open(reader, "rb", 0), open(writer, "wb", 0)
    from asyncio import windows_utils

    ends = windows_utils.pipe(overlapped=(True, True), duplex=duplex)  # type: ignore[attr-defined]
    return tuple(windows_utils.PipeHandle(end) for end in ends)  # type: ignore[attr-defined, return-value]
