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
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            next_s = self._scheduled[0].when()  # type: ignore[attr-defined]
            self._virtual_s = max(self._virtual_s, next_s)
        super()._run_once()  # type: ignore[misc]


def run_virtual(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing but time, in no time."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        runner.run(main)
