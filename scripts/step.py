"""Runs one command of the build quietly: a line that says what and how long, its output in a log.

usage: step.py "What is done" command [argument ...]

The log is printed if the command fails, and its exit status is this one's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

LOGS = Path("build/logs")


def main(label: str, command: list[str]) -> int:
    """Run *command* and return its exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / (re.sub(r"\W+", "-", label.lower()).strip("-") + ".log")
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        status = wait(process, label, start)
    took = f"{time.monotonic() - start:.0f} s"
    if status == 0:
        show(f"{label}: {took}", end="\n")
        return 0
    show(f"{label}: failed after {took}", end="\n")
    print(log.read_text(encoding="utf-8", errors="replace"), flush=True)
    print(f"failed: {' '.join(command)}", file=sys.stderr)
    return status if status > 0 else 128 - status


def wait(process: subprocess.Popen[bytes], label: str, start: float) -> int:
    """Wait for the process, on a terminal with a clock that shows that something happens."""
    if not sys.stdout.isatty():
        print(f"{label} ...", flush=True)
        return process.wait()
    while True:
        show(f"{label} ... {time.monotonic() - start:.0f} s")
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            continue


def show(text: str, end: str = "") -> None:
    """Print a line; on a terminal over the one before."""
    before = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(before + text, end=end, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except KeyboardInterrupt:
        os._exit(130)
