"""Endpoints to fall back to: the proxy is told several, and what it does with them is followed."""

import random
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from epp.clock import monotonic_s
from epp.core.gate import Ending
from epp.core.pool import Lease, Mask, Pool
from epp.core.request import Request
from epp.core.scheduling import LeastLoaded
from epp.core.scheduling.plugin import Observer

from .conftest import logged_stack
from .http1 import Http1
from .stack import begin_stream, in_process_options, model_server
from .support import completion, nobody_listens


class InOrder(LeastLoaded):
    """Picks the endpoints in the order of these ``ip:port``, and is told what becomes of it."""

    def __init__(self, destinations: list[str]) -> None:
        self.destinations = destinations
        self.moves = Moves()
        self.observers = (self.moves,)

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        allowed = set(np.flatnonzero(mask).tolist())
        slots = (pool.slot_of(destination) for destination in self.destinations)
        return tuple(slot for slot in slots if slot is not None and slot in allowed)


class Moves(Observer):
    """Keeps where requests were placed, whither they moved and where they ended."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        self.seen.append(("placed", lease.endpoint.destination))

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        self.seen.append(("moved", lease.endpoint.destination))

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        self.seen.append(("ended", lease.endpoint.destination))


async def test_the_second_serves_where_the_first_refuses_and_all_follow_it(
    tmp_path: Path, exits: AsyncExitStack
) -> None:
    """Not by chance, as without a list: whatever else is in the pool, it is the second."""
    options = in_process_options(tmp_path)
    servers = [model_server(name) for name in ("other", "second", "another")]
    with nobody_listens() as port:
        dead = f"127.0.0.1:{port}"
        async with logged_stack(
            tmp_path, servers, more_endpoints=[dead], in_process=options
        ) as stack:
            second = stack.destination(1)
            scheduler = InOrder([dead, second])
            stack.router.reconfigure(
                scheduler=scheduler, options=options.flow, make_detector=None, now=monotonic_s()
            )
            gateway = await stack.gateway()
            http1 = await begin_stream(gateway, exits)
            expected = {stack.destination(n): int(n == 1) for n in range(3)} | {dead: 0}
            assert (await stack.metrics()).leases() == expected
            headers = dict(stack.servers[1].state().requests[-1].headers)
            assert headers["x-gateway-destination-endpoint"] == f"{dead},{second}"
            http1.close()
            await stack.at_rest()
            assert scheduler.moves.seen == [("placed", dead), ("moved", second), ("ended", second)]
            async with Http1(gateway.port) as http1:
                for _ in range(8):
                    answer = await http1.post("/v1/completions", completion())
                    assert (answer.status, answer.headers["x-served-by"]) == (200, "second")
            await stack.at_rest()
