"""The EPP asks real model servers for their load, in every way that it can run."""

from contextlib import AsyncExitStack

import pytest

from .conftest import StartStack
from .stack import Stack, begin_stream, model_server
from .support import eventually, nobody_listens

OFTEN = ("--metrics-scrape-interval", "0.05")


async def running(stack: Stack) -> dict[str, float]:
    """Return what the engines said of their batches, by ``ip:port``."""
    series = (await stack.metrics()).series("engine_running_requests")
    return {labels["model_server_endpoint"]: value for labels, value in series}


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "workers"])
async def test_the_load_of_every_engine_is_known(
    start_stack: StartStack, exits: AsyncExitStack, arguments: tuple[str, ...]
) -> None:
    servers = [model_server("one"), model_server("two")]
    stack = await start_stack(servers, arguments=(*OFTEN, *arguments))
    first, second = map(stack.destination, (0, 1))

    async def known(expected: dict[str, float]) -> None:
        assert await running(stack) == expected

    await eventually(lambda: known({first: 0.0, second: 0.0}))
    gateway = await stack.gateway()
    stream = await begin_stream(gateway, exits)
    loads = [float(server.state().in_flight) for server in stack.servers]
    assert sum(loads) == 1.0
    await eventually(lambda: known({first: loads[0], second: loads[1]}))
    page = await stack.metrics()
    assert page.sum("engine_kv_cache_usage_ratio") > 0.0
    assert page.sum("engine_waiting_requests") == 0.0
    assert all(age_s < 10.0 for _, age_s in page.series("scrape_age_seconds"))
    stream.close()
    await stack.at_rest()
    await eventually(lambda: known({first: 0.0, second: 0.0}))
    await stack.settle([second])
    await eventually(lambda: known({second: 0.0}))


async def test_an_engine_that_is_down_is_counted_and_harms_nobody(start_stack: StartStack) -> None:
    with nobody_listens() as port:
        more = [f"127.0.0.1:{port}"]
        stack = await start_stack([model_server("one")], arguments=OFTEN, more_endpoints=more)

        async def failed() -> None:
            page = await stack.metrics()
            assert page.sum("engine_scrapes_total", result="unreachable") >= 2
            assert list(await running(stack)) == [stack.destination(0)]

        await eventually(failed)


async def test_nobody_is_asked_where_scraping_is_off(start_stack: StartStack) -> None:
    stack = await start_stack([model_server("one")], arguments=("--no-scrape",))
    page = await stack.metrics()
    assert page.series("inflight_requests")
    assert not page.series("engine_scrapes_total")
