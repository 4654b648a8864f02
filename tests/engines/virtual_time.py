"""An event loop whose time jumps to the next timer whenever there is nothing else to do."""

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["run_virtual"]


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0

    def time(self) -> float:
        return self._virtual_s

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            timers = self._scheduled  # type: ignore[attr-defined]
            # Those that were cancelled are still there, and would be waited beyond in real time.
            waited_for = [timer.when() for timer in timers if not timer.cancelled()]
            self._virtual_s = max(self._virtual_s, min(waited_for, default=0.0))
        super()._run_once()  # type: ignore[misc]


def run_virtual(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing but time, in no time."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        runner.run(main)
