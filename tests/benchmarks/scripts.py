"""Running the scripts in ``benchmarks``."""

import subprocess
import sys
from pathlib import Path

__all__ = ["run_script"]

_SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end and return what it said."""
    return subprocess.run(
        [sys.executable, str(_SCRIPTS / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
