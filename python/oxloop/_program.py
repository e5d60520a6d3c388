"""Running a program as ``__main__`` in this process, as the interpreter's own command line does.

The program gets a fresh ``__main__`` module that stays when it has ended: ``runpy.run_path`` takes
its module away again, which exit handlers, threads and pickled classes of the program would
notice. Its tracebacks begin with its own first frame.
"""

from __future__ import annotations

import linecache
import os
import runpy
import sys
import zipfile
from importlib.machinery import BYTECODE_SUFFIXES, SourceFileLoader, SourcelessFileLoader
from types import ModuleType, TracebackType
from typing import Any, Callable, Optional


def run_script(path: str, args: list[str]) -> None:
    """Run the script, directory or zip file at *path* as ``python path args...`` does."""
    sys.argv[:] = [path, *args]
    full = os.path.abspath(path)
    if os.path.isdir(path) or zipfile.is_zipfile(path):
        _set_first_path(full)
        _as_main(lambda _main: _runpy_main("__main__", alter_argv=False))
        return
    try:
        open(full, "rb").close()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.executable}: can't open file {full!r}: {reason}", file=sys.stderr)
        raise SystemExit(2) from None
    _set_first_path(os.path.dirname(os.path.realpath(full)))
    _as_main(lambda main: _exec_file(main, full))


def run_module(name: str, args: list[str]) -> None:
    """Run the module *name* as ``python -m name args...`` does."""
    sys.argv[:] = ["-m", *args]  # runpy puts the module's file in the first place
    _as_main(lambda _main: _runpy_main(name, alter_argv=True))


def run_code(source: str, args: list[str]) -> None:
    """Run *source* as ``python -c source args...`` does."""
    sys.argv[:] = ["-c", *args]
    _set_first_path("")
    # For tracebacks, which from 3.13 show the lines; without a time it is never looked up.
    linecache.cache["<string>"] = len(source), None, source.splitlines(keepends=True), "<string>"
    _as_main(lambda main: _exec(compile(source, "<string>", "exec"), main))


def _as_main(program: Callable[[ModuleType], None]) -> None:
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    try:
        program(main)
    except SystemExit:
        raise
    except BaseException:
        # The interpreter reports it, and ends as it would (by SIGINT after a KeyboardInterrupt).
        sys.excepthook = _without_our_frames(sys.excepthook)
        raise


def _exec_file(main: ModuleType, path: str) -> None:
    if path.endswith(tuple(BYTECODE_SUFFIXES)):
        compiled = SourcelessFileLoader("__main__", path)
        main.__loader__, code = compiled, compiled.get_code("__main__")
    else:
        source = SourceFileLoader("__main__", path)
        main.__loader__, code = source, source.source_to_code(source.get_data(path), path)
    main.__file__ = path
    _exec(code, main)


def _exec(code: Any, main: ModuleType) -> None:
    exec(code, main.__dict__)  # noqa: S102 - what this module is for


def _runpy_main(name: str, *, alter_argv: bool) -> None:
    # What the interpreter itself calls for -m. Public runpy offers only temporary modules.
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _set_first_path(entry: str) -> None:
    """Replace the place that ``-m`` put first into ``sys.path``, unless options kept it out."""
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[0] = entry


Hook = Callable[[type[BaseException], BaseException, Optional[TracebackType]], Any]


def _without_our_frames(hook: Hook) -> Hook:
    launcher = {runpy.run_path.__code__.co_filename, os.path.join(_HERE, "__main__.py"), _OWN}

    def report(
        kind: type[BaseException], exc: BaseException, traceback: Optional[TracebackType]
    ) -> None:
        rest = traceback
        while rest is not None and rest.tb_frame.f_code.co_filename in launcher:
            if rest.tb_frame.f_code.co_filename == _OWN:
                traceback = rest.tb_next
            rest = rest.tb_next
        hook(kind, exc.with_traceback(traceback), traceback)

    return report


_OWN = run_script.__code__.co_filename
_HERE = os.path.dirname(_OWN)
