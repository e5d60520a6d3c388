"""Child processes that run Python source, and what is left of children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence

#: Source for `run_python`: what the process itself has had resident at most, in KiB. VmHWM of proc(5)
#: begins at execve(2), where getrusage(2)'s ru_maxrss goes on from the peak of the parent.
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
"""


def environment_of(changes: Optional[Dict[str, str]] = None) -> Dict[str, str]:
    """This process's environment without what would switch debug mode on, with `changes`."""
    environment = {
        name: text
        for name, text in os.environ.items()
        if name not in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS", "OXLOOP_LOOP")
    }
    return {**environment, **(changes or {})}


def python(source: str) -> List[str]:
    """A command that runs `source`."""
    return [sys.executable, "-S", "-c", source]


def run_python(
    source: str,
    *,
    options: Sequence[str] = (),
    environment: Optional[Dict[str, str]] = None,
) -> subprocess.CompletedProcess[str]:
    """Run `source` to its end in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, *options, "-c", source],
        env=environment_of(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=25,
        check=False,
    )


def zombies() -> List[int]:
    """The children of this process that have ended and were not waited for, where /proc tells."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found
