"""``python -m tests.downstream [library ...]``: the libraries on asyncio and on oxloop.

Exits with 1 if something goes wrong on oxloop that goes well on asyncio, with 0 if all that fails
fails on asyncio, too, and with 2 if nothing could be run.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import platform
import sys
from pathlib import Path
from typing import Any, Dict, List

from . import report, services
from .libraries import LIBRARIES, LOOPS, Library, kind_of, package_of
from .pool import run_library

BUILD = Path("build/downstream")
PAGE = Path("docs/compatibility.md")


def main() -> int:
    """Run what the command line names."""
    options = _arguments()
    chosen = [LIBRARIES[name] for name in options.libraries or LIBRARIES]
    try:
        loops = _available(options.loops)
    except (ImportError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    BUILD.mkdir(parents=True, exist_ok=True)
    rows: List[report.Row] = []
    needed = sorted({library.service for library in chosen if library.service})
    with services.running(needed) as found:
        for library in chosen:
            rows.append(_run(library, found, loops, options))
    table = report.table(rows)
    print("\n" + table)
    for line in report.faults(rows):
        print(line)
    _write(rows)
    if options.docs:
        report.put_into(PAGE, rows)
    if not any(row.results for row in rows):
        return 2
    return 1 if any(row.ours() for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.downstream", description=__doc__)
    parser.add_argument("--loops", default="", help=f"{','.join(LOOPS)} (default: all there are)")
    parser.add_argument("--check", default="*", help="only the checks whose names match")
    parser.add_argument("--debug", action="store_true", help="with the loops' debug mode on")
    parser.add_argument("--docs", action="store_true", help=f"put the table into {PAGE}, too")
    parser.add_argument("libraries", nargs="*", metavar="library", help=", ".join(LIBRARIES))
    options = parser.parse_args()
    for name in options.libraries:
        if name not in LIBRARIES:
            parser.error(f"{name} is none of {', '.join(LIBRARIES)}")
    return options


def _available(asked: str) -> List[str]:
    """The loops to run on; what is not asked for by name may be missing."""
    loops = []
    for loop in asked.split(",") if asked else LOOPS:
        try:
            importlib.import_module(package_of(loop))
        except ImportError as error:
            raise ImportError(f"{error}; `make downstream` makes what has it") from None
        reason = None
        if kind_of(loop) == "proactor":
            reason = importlib.import_module("oxloop._native").proactor_unavailable()
        if reason and asked:
            raise RuntimeError(f"{loop}: {reason}")
        if reason:
            print(f"{loop}: left out, {reason}", file=sys.stderr)
        else:
            loops.append(loop)
    return loops


def _run(
    library: Library, found: Dict[str, Any], loops: List[str], options: argparse.Namespace
) -> report.Row:
    row = report.Row(library.distribution, library.version())
    service = found.get(library.service)
    if not row.version:
        row.reason = "not available for this Python"
    elif isinstance(service, str):
        row.reason = service
    if row.reason:
        print(f"{library.distribution}: {row.reason}", flush=True)
        return row
    checks = [name for name in library.checks() if fnmatch.fnmatch(name, f"*{options.check}*")]
    for loop in loops:
        title = f"{library.distribution} {row.version} on {loop}"
        print(f"{title} ...", end="", flush=True)
        output = BUILD / f"{library.distribution}-{loop}.log"
        results = run_library(library, loop, checks, found, output, debug=options.debug)
        row.results[loop] = results
        well, failed = row.counts(loop)
        took = sum(result["seconds"] for result in results)
        print(f" {well} ok, {failed} failed, {took:.1f} s", flush=True)
    return row


def _write(rows: List[report.Row]) -> None:
    about = {"python": platform.python_version(), "system": platform.platform()}
    told = {**about, "libraries": [row.as_json() for row in rows]}
    (BUILD / "downstream.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (BUILD / "downstream.md").write_text(report.markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
