"""The machine that measures: what it is, and whether it does anything else meanwhile."""

from __future__ import annotations

import os
import pathlib
import platform
import time

CPUINFO = pathlib.Path("/proc/cpuinfo")
STAT = pathlib.Path("/proc/stat")


def description() -> dict[str, str]:
    """Return what a result says of where it was measured."""
    model = platform.processor()
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


class Disturbance:
    """How much CPU others use while we measure; nothing where /proc/stat does not tell."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.busy, self.ours = _busy(), _ours()

    def share(self) -> float:
        """Return the CPU that others have used since, in cores.

        Ours is that of this process and of its children that have ended.
        """
        wall = time.monotonic() - self.started
        others = (_busy() - self.busy) - (_ours() - self.ours)
        return max(others / wall, 0.0) if wall else 0.0


def _ours() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy() -> float:
    """Return the seconds that all processors together have not been idle: proc_stat(5)."""
    if not STAT.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in STAT.read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
