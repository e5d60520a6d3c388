"""Builds wheels for each CPython that is found, and an sdist; tries each in a fresh environment.

usage: wheels.py [--python 3.13 ...] [--kind manylinux ...] [--profile release] [--jobs 2]

They are put into build/wheels. A manylinux wheel is linked against an old C library by zig. A
CPython that this machine lacks, as those for musl, is put together; Windows is Wine. What cannot be
built here (musllinux without Rust's target) is left out by name, what cannot be tried is said to be
so, and what fails makes the exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
WHEELS = ROOT / "build" / "wheels"
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.14t", "3.15")
KINDS = ("manylinux", "musllinux", "win_amd64", "sdist")
#: The oldest glibc that Rust's own standard library runs on.
MANYLINUX = "manylinux_2_17"
MUSLLINUX = "musllinux_1_2"
#: There is no package that brings their library for Windows along.
NOT_FOR_WINDOWS = ("3.9", "3.10", "3.15")
ROW = "{:<12} {:<6} {}"
#: Those of a kind wait for each other, as each begins with what is built for another.
ONE_OF_A_KIND = {kind: threading.Lock() for kind in KINDS}


class UnavailableError(Exception):
    """This kind of wheel cannot be made here; says why."""


def main() -> int:
    """Build and try what the command line asks for; 0 if all of it works."""
    options = arguments()
    WHEELS.mkdir(parents=True, exist_ok=True)
    for old in WHEELS.iterdir():
        old.unlink()
    kinds = options.kind or KINDS
    wanted = [("sdist", "")] if "sdist" in kinds else []
    for version in options.python or VERSIONS:
        wanted += [(kind, version) for kind in kinds if kind != "sdist"]
    # More than one at a time, as an optimised build ends with minutes on a single core.
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda wheel: attempt(wheel[0], wheel[1], options.profile), wanted))
    print(f"\nIn {WHEELS.relative_to(ROOT)}:")
    for row in sorted(rows, key=lambda row: KINDS.index(row[0])):
        print(ROW.format(*row))
    return 1 if any(result.startswith("FAILED") for *_, result in rows) else 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", choices=VERSIONS)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--profile", default="release")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="kinds at the same time")
    return parser.parse_args()


def attempt(kind: str, version: str, profile: str) -> tuple[str, str, str]:
    """Build and try one wheel (or the sdist) when no other of its kind is; its row of the table."""
    with ONE_OF_A_KIND[kind]:
        row = (kind, version, build_and_try(kind, version, profile))
    print(ROW.format(*row), flush=True)
    return row


def build_and_try(kind: str, version: str, profile: str) -> str:
    """Build one wheel (or the sdist) and try it; one line that says how it went."""
    try:
        if kind == "sdist":
            return sdist(profile)
        if kind == "win_amd64":
            return windows(version, profile)
        return linux(kind, version, profile)
    except UnavailableError as reason:
        return f"left out: {reason}"
    except subprocess.CalledProcessError as error:
        print(error.stdout or "", file=sys.stderr)
        return f"FAILED: {' '.join(map(str, error.cmd))}"


def linux(kind: str, version: str, profile: str) -> str:
    """Make a manylinux or musllinux wheel."""
    libc = "gnu" if kind == "manylinux" else "musl"
    target = f"{platform.machine()}-unknown-linux-{libc}"
    if not has_target(target):
        raise UnavailableError(f"no Rust target {target} (rustup target add {target})")
    python = find(version, libc)
    is_ours = libc == libc_of_this_machine()
    if is_ours and not python:
        raise UnavailableError(f"no Python {version} here")
    wheel = maturin(
        *("--interpreter", python if is_ours else f"python{version}"),
        *("--target", target, "--zig", "--profile", profile),
        *("--target-dir", build_folder(kind, version)),
        *("--compatibility", MANYLINUX if libc == "gnu" else MUSLLINUX),
        # It looks for zig as `python3 -m ziglang`.
        environment={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    if python:
        tried = try_in_fresh_environment(python, wheel)
    else:
        tried = f"NOT TRIED: no CPython {version} for {libc} can be had here"
    return f"{wheel.name}: {contents(wheel)}, {tried}"


def windows(version: str, profile: str) -> str:
    """Make a wheel for Windows by MinGW, and try it under Wine."""
    if version in NOT_FOR_WINDOWS:
        raise UnavailableError("no CPython of this version for Windows can be had here to try it")
    try:
        run([SCRIPTS / "windows" / "setup.sh"])
        run([SCRIPTS / "windows" / "python.sh", version], {"PYTHON": sys.executable})
    except subprocess.CalledProcessError as error:
        raise UnavailableError(error.stdout.strip().rpartition("\n")[2]) from error
    target = "x86_64-pc-windows-gnu"
    wheel = maturin(
        *("--interpreter", f"python{version}", "--target", target, "--profile", profile),
        *("--target-dir", build_folder("win_amd64", version)),
        toolchain=[SCRIPTS / "toolchain.sh", target],
    )
    tried = try_under_wine(ROOT / "build" / "windows" / version, wheel)
    return f"{wheel.name}: {contents(wheel)}, {tried}"


def sdist(profile: str) -> str:
    """Pack the source, from which pip builds in a fresh environment."""
    run([Path(sys.executable).with_name("maturin"), "sdist", "--out", WHEELS])
    (archive,) = WHEELS.glob("*.tar.gz")
    how = {"MATURIN_PEP517_ARGS": f"--profile {profile}"}
    return f"{archive.name}: {try_in_fresh_environment(sys.executable, archive, how)}"


def build_folder(kind: str, version: str) -> Path:
    """Give each wheel a folder to be built in, which begins as a copy of another version's.

    PyO3 and what uses it are built for one Python; all the rest is the same for those of a kind.
    """
    folder = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "wheels", kind, version)
    others = [folder.with_name(other) for other in VERSIONS]
    built = [other for other in others if other.is_dir()]
    if built and folder not in built:
        unfinished = folder.with_name("copy")
        shutil.rmtree(unfinished, ignore_errors=True)
        run(["cp", "-a", built[0], unfinished])
        unfinished.rename(folder)
    return folder


def maturin(
    *options: str | Path,
    toolchain: Sequence[Path | str] = (),
    environment: dict[str, str] | None = None,
) -> Path:
    """Build a wheel, by `toolchain` if another than the one in use is wanted; where it is."""
    with tempfile.TemporaryDirectory(dir=WHEELS.parent) as folder:
        command: list[str | Path] = [
            Path(sys.executable).with_name("maturin"),
            "build",
            "--out",
            folder,
            *options,
        ]
        run([*toolchain, *command], environment)
        (wheel,) = Path(folder).glob("*.whl")
        return Path(shutil.move(wheel, WHEELS / wheel.name))


def contents(wheel: Path) -> str:
    """Find in it what every wheel has; what there is."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in ("LICENSE-APACHE", "LICENSE-MIT", "METADATA", "py.typed", "_native.pyi"):
        if not any(name.endswith(wanted) for name in names):
            raise subprocess.CalledProcessError(1, [wanted, "in", wheel.name])
    return f"{wheel.stat().st_size / 1e6:.1f} MB"


def try_in_fresh_environment(
    python: str, package: Path, environment: dict[str, str] | None = None
) -> str:
    """Install `package` alone and run its smoke test."""
    with tempfile.TemporaryDirectory(dir=WHEELS.parent) as folder:
        run([python, "-m", "venv", folder])
        inside = Path(folder, "bin", "python")
        install = ["-m", "pip", "install", "--disable-pip-version-check"]
        run([inside, *install, package], environment)
        said = run([inside, ROOT / "tests" / "smoke.py"], folder=folder)
    return said.strip()


def try_under_wine(python: Path, wheel: Path) -> str:
    """Install `wheel` alone into a copy of a CPython for Windows, and run its smoke test."""
    wine = SCRIPTS / "windows" / "wine.sh"
    with tempfile.TemporaryDirectory(dir=WHEELS.parent) as folder:
        fresh = Path(folder, "python")
        shutil.copytree(
            python,
            fresh,
            ignore=shutil.ignore_patterns("site-packages", "test"),
            copy_function=os.link,
        )
        # There is no ensurepip, as Debian's library has no wheel of pip.
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", folder, "pip"])
        (pip,) = Path(folder).glob("pip-*.whl")
        run([wine, fresh / "python.exe", pip / "pip", "install", "--no-index", wheel])
        said = run([wine, fresh / "python.exe", ROOT / "tests" / "smoke.py"], folder=folder)
    return said.strip()


def find(version: str, libc: str) -> str:
    """Find the interpreter of that version, or put one together; empty if there is no way."""
    folder = SCRIPTS / "pythons"
    found = ""
    if libc == libc_of_this_machine():
        found = run([folder / "find.sh", version]).strip()
    if not found:
        with contextlib.suppress(subprocess.CalledProcessError):
            said = run([folder / "embedded.sh", version, libc], {"PYTHON": sys.executable})
            found = said.strip().rpartition("\n")[2]
    return found


def has_target(target: str) -> bool:
    """Whether the Rust in use has the standard library of `target`."""
    sysroot = run(["rustc", "--print", "sysroot"]).strip()
    return Path(sysroot, "lib", "rustlib", target, "lib").is_dir()


def libc_of_this_machine() -> str:
    """Name the C library as Rust's targets do."""
    return "gnu" if platform.libc_ver()[0] == "glibc" else "musl"


def run(
    command: Sequence[str | Path],
    environment: dict[str, str] | None = None,
    folder: str | Path = ROOT,
) -> str:
    """Give what a command prints; CalledProcessError with all of it if it fails."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
