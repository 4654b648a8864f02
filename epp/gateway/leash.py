"""Run a command that the kernel kills when its parent dies (Linux).

``python leash.py PARENT_PID COMMAND...``: a program of its own, because code that runs between fork
and exec, the other way to ask for this, may deadlock where the parent has threads.
"""

import ctypes
import os
import signal
import sys

__all__ = ["leashed"]

_PR_SET_PDEATHSIG = 1


def leashed(command: list[str]) -> list[str]:
    """Return the command that runs ``command`` on a leash; without one where there is no Linux."""
    if sys.platform != "linux":
        return command
    # Isolated and without site: it needs neither, and so it costs some 20 ms.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _main(parent_pid: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        sys.exit("the parent died before it could be followed")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
