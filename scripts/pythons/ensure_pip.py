"""`python -m ensurepip`, which `venv` calls, for an interpreter that lacks it.

It installs pip out of its own wheel.
"""

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    wheels = Path(os.__file__).with_name("wheels")
    sys.path.insert(0, str(next(wheels.glob("pip-*.whl"))))
    sys.argv = ["pip", "install", "--no-index", "--find-links", str(wheels), "pip"]
    runpy.run_module("pip", run_name="__main__")
