"""Where the tests run: what a platform lacks is skipped by one marker, which says what it is."""

from __future__ import annotations

import errno
import os
import sys
from typing import Optional

#: Not by sys.platform, which a type checker knows: what follows is checked for every platform.
WINDOWS = os.name == "nt"

#: `@pytest.mark.unix("fork")`: what of Unix a test needs.
UNIX_MARK = (
    "unix(need): needs what Windows lacks: fork, AF_UNIX, a shell, a limit of descriptors ..."
)


def _is_wine() -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


#: Whether this Windows is Wine, whose own limits some tests meet.
WINE = _is_wine()


def missing(need: str) -> Optional[str]:
    """Why a test that needs `need` of Unix is skipped here, None where it is not."""
    return f"Windows lacks it: {need}" if WINDOWS else None


def of_errno(number: int) -> int:
    """The errno of a socket's error that has this number on Unix: Windows has its own for sockets."""
    return getattr(errno, f"WSA{errno.errorcode[number]}", number) if WINDOWS else number


def says(number: int) -> str:
    """A pattern of what the text of an error with this number on Unix has in it."""
    return rf"WinError {of_errno(number)}\b" if WINDOWS else os.strerror(number)
