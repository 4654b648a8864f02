"""Waits that end on their own."""

import asyncio
from contextlib import suppress

__all__ = ["wait_at_most"]


async def wait_at_most(event: asyncio.Event, longest_s: float | None) -> None:
    """Wait for the event, or for so long; None stands for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await event.wait()
