"""An engine on the event loop's clock: one timer while there is work, none while there is not."""

import asyncio
from collections.abc import Callable
from math import ceil
from time import monotonic

from epp.modelserver.engine import Engine
from epp.modelserver.sequence import EngineRequest, StepResult

__all__ = ["EngineRunner", "TokenFeed"]

# A step that is a little late begins when it was due, so that the coarse timers of the event loop
# do not slow the engine down; after a longer stall the engine goes on from the present.
_MAX_LAG_S = 0.05
# After so many steps in a row the loop gets its turn, so that clients are written to and heard.
_MAX_STEPS_PER_TURN = 8
_TIMER_RESOLUTION_S = 0.001


class TokenFeed:
    """The tokens of one request on their way to whoever awaits them; only their number matters."""

    def __init__(self, on_start: Callable[[], None]) -> None:
        self.on_start = on_start
        self._ready = 0
        self._waiter: asyncio.Future[None] | None = None

    def push(self) -> None:
        """Add one token."""
        self._ready += 1
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> int:
        """Wait for tokens and return how many came since the last call, at least one."""
        if not self._ready:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        count, self._ready = self._ready, 0
        return count


class EngineRunner:
    """Steps an engine when it is due and feeds its tokens to the requests. Not thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._feeds: dict[str, TokenFeed] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._last_input_at = 0.0

    def submit(self, request: EngineRequest, on_start: Callable[[], None]) -> TokenFeed:
        """Hand a request to the engine; ``on_start`` is called when it first gets a slot.

        Raises ``ValueError`` as ``Engine.add`` does.
        """
        self._last_input_at = monotonic()
        self._engine.add(request, self._last_input_at)
        feed = self._feeds[request.request_id] = TokenFeed(on_start)
        if self._timer is None:
            self._arm()
        return feed

    def abort(self, request_id: str) -> None:
        """Drop a request, if it has not finished."""
        if self._feeds.pop(request_id, None) is not None:
            self._engine.abort(request_id)

    def close(self) -> None:
        """Stop stepping."""
        if self._timer is not None:
            self._timer.cancel()

    def _advance(self) -> None:
        for _ in range(_MAX_STEPS_PER_TURN):
            due, now = self._engine.wake_at, monotonic()
            if due is None or due > now:
                break
            # Never before the arrival of a request that this step may admit.
            begin = max(due, self._last_input_at) if now - due < _MAX_LAG_S else now
            self._deliver(self._engine.step(begin))
        self._arm()

    def _arm(self) -> None:
        due = self._engine.wake_at
        if due is None:
            self._timer = None
            return
        delay_s = due - monotonic()
        if delay_s <= 0:
            self._timer = self._loop.call_soon(self._advance)
        else:
            # uvloop rounds to milliseconds; rounding up here spares it waking before the time.
            ticks = ceil(delay_s / _TIMER_RESOLUTION_S)
            self._timer = self._loop.call_later(ticks * _TIMER_RESOLUTION_S, self._advance)

    def _deliver(self, result: StepResult) -> None:
        for event in result.tokens:
            self._feeds[event.request_id].push()
            if event.finish_reason is not None:
                del self._feeds[event.request_id]
        for request_id in result.started:
            self._feeds[request_id].on_start()
