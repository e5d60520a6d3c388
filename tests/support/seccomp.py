"""A sandbox that forbids one system call, as those of containers do: seccomp(2)."""

from __future__ import annotations

#: Source for `run_python`: `forbid(number, errno)` lets the kernel refuse a system call of this process
#: from then on; it raises OSError where it cannot.
FORBID = """
import ctypes, os, struct

def forbid(number, error):
    allow, refuse = 0x7FFF0000, 0x00050000 | error
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in [
            (0x20, 0, 0, 0),  # load the number
            (0x15, 0, 1, number),  # go on if it is this one, else skip
            (0x06, 0, 0, refuse),
            (0x06, 0, 0, allow),
        ]
    )
    buffer = ctypes.create_string_buffer(program)
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    program = Program(4, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_privileges, set_seccomp, filtered = 38, 22, 2
    if prctl(no_new_privileges, 1, 0, 0, 0) or prctl(
        set_seccomp, filtered, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no seccomp here")
"""

#: pidfd_open(2), the same number on every architecture.
PIDFD_OPEN = 434

#: io_uring_setup(2), io_uring_enter(2) and io_uring_register(2), the same numbers on every architecture.
IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 425, 426, 427
