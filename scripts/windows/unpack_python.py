"""Takes CPython's library and extension modules for Windows out of a wheel that brings them along.

usage: unpack_python.py WHEEL FOLDER [t]
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

#: What of the wheel's own no program of ours needs: Tk, and C libraries that the system has.
UNUSED = ("_tkinter", "api-ms-", "tcl", "tk8", "VCRUNTIME")

#: platform.platform() can do without it, and must: Wine lacks what it calls, and ends the process.
UNUSED_UNDER_WINE = ("_wmi",)


def main(wheel: Path, target: Path, is_free_threaded: bool) -> None:
    """Unpack the wheel's `deploy_libs` into `target` and its folder `DLLs`."""
    (target / "DLLs").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in map(Path, archive.namelist()):
            name = member.name
            if member.parent.name != "deploy_libs" or name.startswith(UNUSED + UNUSED_UNDER_WINE):
                continue
            if name.endswith(".pyd") and ("t-win" in name) is not is_free_threaded:
                continue
            folder = target if name.startswith("python") else target / "DLLs"
            (folder / name).write_bytes(archive.read(member.as_posix()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] == ["t"])
