"""The parent of the processes: starts them, restarts what crashes, passes on signals, ends last.

It has no event loop and no threads: it sleeps until a signal comes. Children are forked, so what
the parent has imported is there at once and in memory only once. Each has a process group of its
own, so that Ctrl-C at the terminal reaches the parent alone; the kernel kills them when the parent
dies, in whatever way.
"""

import ctypes
import gc
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import msgspec

from epp.errors import UsageError

__all__ = ["ChildSpec", "Supervisor", "describe_end"]

logger = logging.getLogger(__name__)

_SIGNALS: Final = frozenset((signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130
_FIRST_BACK_OFF_S: Final = 0.2
_MAX_BACK_OFF_S: Final = 10.0
_STABLE_S: Final = 30.0


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process to be.

    ``main(restarts, tell_ready)`` is run in it and returns its exit code; ``restarts`` counts the
    processes that were there before it under this name, ``tell_ready`` is to be called when it has
    started well.
    """

    name: str
    main: Callable[[int, Callable[[], None]], int]


class _Child:
    """One child through all its lives."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.pid: int | None = None
        self.restarts = -1
        self.started_s = 0.0
        self.due_s: float | None = None
        self.was_ready = False
        self._quick_ends = 0
        self._ready_fd = -1

    def started(self, pid: int, ready_fd: int, now: float) -> None:
        """It runs. ``ready_fd`` is the end of a pipe from which its word is read."""
        self.pid = pid
        self.started_s = now
        self.due_s = None
        self._ready_fd = ready_fd

    def ended(self, now: float) -> None:
        """It has ended, and is due to be restarted."""
        self.pid = None
        self.was_ready = self.was_ready or bool(os.read(self._ready_fd, 1))
        os.close(self._ready_fd)
        self._quick_ends = 0 if now - self.started_s > _STABLE_S else self._quick_ends + 1
        back_off_s = 0.0
        if self._quick_ends > 1:  # the first restart is at once
            back_off_s = min(_MAX_BACK_OFF_S, _FIRST_BACK_OFF_S * 2.0 ** (self._quick_ends - 2))
        self.due_s = now + back_off_s


class Supervisor:
    """The processes of ``specs``, the first of which is told first to stop.

    It has ``stop_timeout_s`` seconds to end, the others have what is left of them.
    """

    def __init__(self, specs: Sequence[ChildSpec], *, stop_timeout_s: float) -> None:
        self._children = [_Child(spec) for spec in specs]
        self._stop_timeout_s = stop_timeout_s
        self._stop_by_s: float | None = None
        self._exit_code = 0
        self._previous_mask: set[int] = set()

    def run(self) -> int:
        """Run until told to stop or until a child cannot start; return the exit code.

        That is 0 after a stop in good order; 2 if a child said that the user got something wrong,
        which it has printed; 130 after a second Ctrl-C, which does not wait; else 1.
        """
        self._previous_mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS))
        gc.collect()
        gc.freeze()  # what is shared with the children need not be looked at, and so copied, by any
        try:
            self._start_due()
            while self._is_needed():
                self._wait()
        finally:
            self._kill()
            while signal.sigtimedwait(_SIGNALS, 0) is not None:
                pass  # it would strike when it is let through
            signal.pthread_sigmask(signal.SIG_SETMASK, self._previous_mask)
        return self._exit_code

    def _is_needed(self) -> bool:
        return self._stop_by_s is None or any(child.pid for child in self._children)

    def _wait(self) -> None:
        """Sleep until something happens, and see to it."""
        deadlines = [child.due_s for child in self._children if child.due_s is not None]
        if self._stop_by_s is not None:
            deadlines = [self._stop_by_s]
        now = time.monotonic()
        timeout_s = max(0.0, min(deadlines) - now) if deadlines else 3600.0
        came = signal.sigtimedwait(_SIGNALS, timeout_s)
        if came is None:
            if self._stop_by_s is not None and time.monotonic() >= self._stop_by_s:
                logger.error("what did not end in time is killed")
                self._exit_code = 1
                self._kill()
        elif came.si_signo == signal.SIGCHLD:
            self._reap()
        elif came.si_signo == signal.SIGHUP:
            self._tell_leader(signal.SIGHUP)
        elif self._stop_by_s is None:
            self._stop()
        elif came.si_signo == signal.SIGINT:
            self._exit_code = _INTERRUPTED
            self._kill()
        if self._stop_by_s is None:
            self._start_due()

    # Start

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.pid is None and (child.due_s is None or child.due_s <= now):
                self._start(child)

    def _start(self, child: _Child) -> None:
        child.restarts += 1
        ready_fd, tell_fd = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(ready_fd)
            self._live(child, parent, tell_fd)
        os.close(tell_fd)
        os.set_blocking(ready_fd, False)
        child.started(pid, ready_fd, time.monotonic())
        logger.info("started %s pid=%d restarts=%d", child.spec.name, pid, child.restarts)

    def _live(self, child: _Child, parent: int, tell_fd: int) -> NoReturn:
        """Be the child."""
        code = 1
        try:
            os.setpgid(0, 0)
            _follow_parent(parent)
            _take_name(child.spec.name)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it listens to it, if it does
            signal.pthread_sigmask(signal.SIG_SETMASK, self._previous_mask)
            code = child.spec.main(child.restarts, lambda: _tell(tell_fd))
        except UsageError as error:
            sys.stderr.write(f"epp: {error}\n")  # in one piece: others write there, too
            code = _USAGE_ERROR
        except BaseException:  # this process ends here; nothing must run what is the parent's
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # End

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        child.ended(time.monotonic())
        if self._stop_by_s is not None:
            if code:
                logger.error("%s ended: %s", child.spec.name, describe_end(code))
                self._exit_code = self._exit_code or 1
            if child is self._children[0]:
                self._signal(signal.SIGTERM)  # it has told them, unless it crashed
        elif child.was_ready:
            logger.warning("%s ended: %s; restart", child.spec.name, describe_end(code))
        else:
            if code != _USAGE_ERROR:
                logger.error("%s could not start: %s", child.spec.name, describe_end(code))
            self._exit_code = code if code > 0 else 1
            self._stop_by_s = time.monotonic()
            self._kill()

    def _stop(self) -> None:
        logger.info("stopping")
        self._stop_by_s = time.monotonic() + self._stop_timeout_s
        if not self._tell_leader(signal.SIGTERM):
            self._signal(signal.SIGTERM)

    def _tell_leader(self, number: signal.Signals) -> bool:
        """Send a signal to the first child; return whether it is there."""
        leader = self._children[0]
        if leader.pid is None:
            return False
        os.kill(leader.pid, number)
        return True

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        for child in self._children:
            if child.pid is not None:
                os.waitpid(child.pid, 0)
                child.pid = None

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None:
                os.kill(child.pid, number)


def describe_end(code: int) -> str:
    """Return what an exit code of a child, negative for a signal, says."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _follow_parent(parent: int) -> None:
    """Be killed by the kernel when the parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it died before this
        os._exit(1)


def _take_name(name: str) -> None:
    """Be found by this name in ``top`` and the like, which show 15 characters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"epp {name}"[:15].encode(), 0, 0, 0)


def _tell(tell_fd: int) -> None:
    os.write(tell_fd, b"r")
