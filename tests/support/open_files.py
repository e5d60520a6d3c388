"""What this process has open: descriptors, and on Windows the handles of files, pipes and sockets."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Dict

from support.platforms import WINDOWS

#: libkqueue closes what belongs to a queue by a thread of its own, some time after the queue.
CLOSED_LATE = ("anon_inode:[eventpoll]", "pipe:") if "OXLOOP_LIBKQUEUE" in os.environ else ()

#: GetFileType(): what is not among these (events, threads, completion ports) is no file.
FILE_TYPES = {1: "file", 2: "character device", 3: "pipe or socket"}

#: More of a type than this are told from those of the next one.
OF_A_TYPE = 1 << 20

#: Handles are multiples of four and the lowest free ones are given out: as many free ones in a row are the end.
FREE_IN_A_ROW = 64


def open_files() -> Dict[int, str]:
    """What is open, by number."""
    return _open_handles() if WINDOWS else _open_descriptors()


def _open_descriptors() -> Dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {fd: link for fd, link in found.items() if not link.startswith(CLOSED_LATE)}


def _open_handles() -> Dict[int, str]:
    """Numbered anew for each type: what captures output gives its file another handle all the time.

    GetProcessHandleCount() would count what belongs to threads and to the system, too.
    """
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    flags = ctypes.c_ulong()
    counts = dict.fromkeys(FILE_TYPES, 0)
    handle, last = 0, 0
    while handle < last + 4 * FREE_IN_A_ROW:
        handle += 4
        if kernel.GetHandleInformation(ctypes.c_void_p(handle), ctypes.byref(flags)):
            last = handle
            kind = kernel.GetFileType(ctypes.c_void_p(handle))
            if kind in FILE_TYPES:
                counts[kind] += 1
    return {
        kind * OF_A_TYPE + number: FILE_TYPES[kind]
        for kind, count in counts.items()
        for number in range(count)
    }
