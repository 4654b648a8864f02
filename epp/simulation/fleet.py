"""The engines of a simulation as the pool's endpoints: who is there, and what they tell."""

from collections.abc import Iterator, Mapping

import msgspec

from epp.core.pool import EngineLoad
from epp.core.resources import Endpoint, Objective, PoolResources, PoolSpec
from epp.core.router import Router
from epp.simulation.engine import SimulatedEngine
from epp.simulation.events import Events
from epp.simulation.scenario import EndpointGroup, Scenario
from epp.simulation.work import EngineListener

__all__ = ["Fleet", "objective_name"]

_PORT = 8000


def objective_name(priority: int) -> str:
    """Return the name of the InferenceObjective with this priority."""
    return f"priority-{priority}"


class _Server(msgspec.Struct, frozen=True):
    endpoint: Endpoint
    group: EndpointGroup
    engine: SimulatedEngine

    def is_there(self, now: float) -> bool:
        leave_s = self.group.leave_s
        return self.group.join_s <= now and (leave_s is None or now < leave_s)


class Fleet:
    """All engines that are ever there, by ``ip:port``.

    It applies the pool's membership to the router when that changes, and brings it the engines'
    loads, with the delays and outages of the scenario.
    """

    def __init__(
        self, scenario: Scenario, events: Events, listener: EngineListener, priorities: set[int]
    ) -> None:
        self._scrapes = scenario.scrapes
        self._events = events
        self._servers = list(_servers(scenario, events, listener))
        self._objectives: Mapping[str, Objective] = {
            objective_name(priority): Objective(name=objective_name(priority), priority=priority)
            for priority in sorted(priorities)
        }
        self.engines = {each.endpoint.destination: each.engine for each in self._servers}
        self.numbers = {destination: number for number, destination in enumerate(self.engines)}

    def attach(self, router: Router) -> None:
        """Be this router's pool from now on."""
        self._router = router
        times_s = {each.group.join_s for each in self._servers}
        times_s |= {each.group.leave_s for each in self._servers if each.group.leave_s is not None}
        for time_s in sorted(times_s | {0.0}):
            self._events.schedule(time_s, self._apply)
        if self._scrapes.period_s > 0:
            for index, server in enumerate(self._servers):
                # Spread over the period, as those of a real scraper are over time.
                offset_s = self._scrapes.period_s * index / len(self._servers)
                _Scraper(server, self._events, self, offset_s)

    def loads(self) -> tuple[int, int]:
        """Return how many sequences wait and run in all engines."""
        engines = self.engines.values()
        return sum(len(e.waiting) for e in engines), sum(len(e.running) for e in engines)

    def _apply(self, now: float) -> None:
        endpoints = tuple(each.endpoint for each in self._servers if each.is_there(now))
        self._router.apply(
            PoolResources(
                pool=PoolSpec(name="simulated"), objectives=self._objectives, endpoints=endpoints
            ),
            now,
        )

    def scrape(self, server: _Server, now: float) -> None:
        """Have the router told of an engine's load, unless there is an outage."""
        if not server.is_there(now) or self._is_out(server, now):
            return
        load = server.engine.load(now)
        destination = server.endpoint.destination
        if self._scrapes.delay_s <= 0:
            self._router.scraped(destination, load, now)
            return

        def tell(later: float, load: EngineLoad = load) -> None:
            self._router.scraped(destination, load, later)

        self._events.schedule(now + self._scrapes.delay_s, tell)

    @property
    def scrape_period_s(self) -> float:
        """How often each engine is asked."""
        return self._scrapes.period_s

    def _is_out(self, server: _Server, now: float) -> bool:
        return any(
            window.from_s <= now < window.to_s
            and (not window.groups or server.group.name in window.groups)
            for window in self._scrapes.outages
        )


class _Scraper:
    """Asks one engine, again and again."""

    def __init__(self, server: _Server, events: Events, fleet: Fleet, offset_s: float) -> None:
        self._server = server
        self._events = events
        self._fleet = fleet
        events.schedule(offset_s, self._ask)

    def _ask(self, now: float) -> None:
        self._fleet.scrape(self._server, now)
        self._events.schedule(now + self._fleet.scrape_period_s, self._ask)


def _servers(scenario: Scenario, events: Events, listener: EngineListener) -> Iterator[_Server]:
    number = 0
    for group in scenario.pool:
        for index in range(group.count):
            number += 1
            endpoint = Endpoint(
                name=f"simulated/{group.name}-{index}",
                address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
                port=_PORT,
                labels={"group": group.name},
            )
            engine = SimulatedEngine(group.engine, events.schedule, listener, group.slow_factor)
            yield _Server(endpoint, group, engine)
