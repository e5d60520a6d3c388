"""Installs the libraries of requirements.txt into the environment of the Python that runs this.

Wheels only: a library that has none for this Python is left out, and said to be, since building it
may need anything.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import List

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def pip(*arguments: str) -> int:
    """Run pip; return its exit status."""
    command = [sys.executable, "-m", "pip", "install", "--only-binary", ":all:", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


def main() -> int:
    """Install what there is; 1 if there is nothing."""
    if pip("-r", str(REQUIREMENTS)) == 0:
        return 0
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    missing: List[str] = [line for line in wanted if pip(line) != 0]
    print("not available for this Python:", ", ".join(missing))
    return int(len(missing) == len(wanted))


if __name__ == "__main__":
    sys.exit(main())
