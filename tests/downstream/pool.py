"""Runs the checks of a library on a loop, in a process of their own, and again in another if it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Dict, List

from . import place
from .child import LIMIT
from .libraries import Library, kind_of

Result = Dict[str, Any]


def run_library(
    library: Library,
    loop: str,
    checks: List[str],
    services: Dict[str, Any],
    output: Path,
    *,
    debug: bool = False,
) -> List[Result]:
    """The results of these checks, in their order; what the process prints goes to `output`."""
    environment = place.environment()
    environment["DOWNSTREAM_LOOP"] = loop
    environment["OXLOOP_LOOP"] = kind_of(loop)
    environment["DOWNSTREAM_SERVICES"] = json.dumps(services)
    if debug:
        environment["DOWNSTREAM_DEBUG"] = "1"
    results: List[Result] = []
    with output.open("wb") as log:
        while len(results) < len(checks):
            left = checks[len(results) :]
            results += _run_child(library, left, environment, log)
    return results


def _run_child(
    library: Library, checks: List[str], environment: Dict[str, str], log: Any
) -> List[Result]:
    """The results of one process: at least one, which says why there are no more."""
    reading, writing = os.pipe()
    command = place.python("-m", "tests.downstream.child", library.distribution, *checks)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**environment, "DOWNSTREAM_RESULTS": str(writing)},
        pass_fds=[writing],
        start_new_session=True,
    )
    os.close(writing)
    # Seconds for all of them together: a process that hangs where no timeout of its own helps.
    watchdog = threading.Timer(2 * LIMIT + 5 * len(checks), _kill, [process])
    watchdog.start()
    results: List[Result] = []
    begun = checks[0]
    try:
        with os.fdopen(reading, encoding="utf-8") as lines:
            for line in lines:
                told = json.loads(line)
                if "begins" in told:
                    begun = told["begins"]
                else:
                    results.append(told)
                    begun = ""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        watchdog.cancel()
        _kill(process)  # what the checks have started; itself it is a zombie, whose number is held
        code = process.wait()
    if len(results) < len(checks):
        said = Path(log.name).read_text(encoding="utf-8", errors="replace")[-2000:]
        results.append(_died(begun or checks[len(results)], code, said))
    return results


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _died(check: str, code: int, said: str) -> Result:
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    error = f"the process ended {how} in the middle, having said:\n{said}"
    return {"check": check, "error": error, "left": [], "seconds": 0.0}
