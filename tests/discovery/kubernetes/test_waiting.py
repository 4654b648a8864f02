import asyncio

from epp.discovery.kubernetes.waiting import wait_at_most
from tests.engines.virtual_time import run_virtual


def test_a_wait_ends_with_the_event_or_in_time() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop()
        event = asyncio.Event()
        await wait_at_most(event, 5.0)
        assert clock.time() == 5.0
        clock.call_later(2.0, event.set)
        await wait_at_most(event, 5.0)
        assert clock.time() == 7.0
        event.clear()
        clock.call_later(1_000.0, event.set)
        await wait_at_most(event, None)
        assert clock.time() == 1_007.0

    run_virtual(main())
