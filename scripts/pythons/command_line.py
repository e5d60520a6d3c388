"""What the python command does with its arguments, for an interpreter that lacks it.

It goes with command_line.c.
"""

import os
import sys


def run(command, module, file, isolated):
    """Run `-c command`, `-m module`, a file or folder, or what standard input says."""
    names = sys.modules["__main__"].__dict__
    if module is not None:
        import runpy

        _search("" if isolated else os.getcwd())
        runpy._run_module_as_main(module)
    elif file is not None and (os.path.isdir(file) or file.endswith(".zip")):
        import runpy

        sys.path.insert(0, file)
        runpy._run_module_as_main("__main__", False)
    elif file is not None:
        from importlib.machinery import SourceFileLoader

        _search("" if isolated else os.path.dirname(os.path.realpath(file)))
        names.update(__file__=file, __cached__=None, __loader__=SourceFileLoader("__main__", file))
        with open(file, "rb") as source:
            code = source.read()
        exec(compile(code, file, "exec", dont_inherit=True), names)
    else:
        if not isolated:
            sys.path.insert(0, "")
        origin = "<stdin>" if command is None else "<string>"
        source = sys.stdin.read() if command is None else command
        exec(compile(source, origin, "exec", dont_inherit=True), names)


def _search(folder):
    if folder:
        sys.path.insert(0, folder)
