"""One run: the production's router under the virtual clock, senders before it, engines behind it.

The router, with its flow control, pool, detector, scheduler and timers, is the one that serves real
traffic; only who calls it is simulated. There is no network: a request is at its engine when it is
dispatched, and its end is known when its last token comes out.

The same scenario, policy and seed give the same result to the last bit: the only random numbers are
those of generators made from the seed, and what is due at the same time has an order.
"""

import random
from collections.abc import Callable, Sequence

import numpy as np

from epp.core.flow.saturation import make_detector
from epp.core.gate import Admission, Ending, Route
from epp.core.ports import NullRecorder
from epp.core.request import Outcome
from epp.core.router import Router
from epp.core.timers import Timers
from epp.simulation.events import Events
from epp.simulation.fleet import Fleet
from epp.simulation.policies import KnownLengths, flow_options
from epp.simulation.recording import PoolSamples, RequestLog, service_curve
from epp.simulation.result import OUTCOMES, SERVED, Floats, RequestTable, SimulationResult
from epp.simulation.routing import make_scheduler
from epp.simulation.scenario import ClosedLoop, PolicyName, RoutingName, Scenario
from epp.simulation.senders import ClosedSender, Flow, OpenSender, Sender, TraceSender
from epp.simulation.texts import Ask, Writer
from epp.simulation.trace import Trace
from epp.simulation.work import Work

__all__ = ["Simulation", "simulate", "variant_name"]

OnProgress = Callable[[float], None]
_OK = 200
_MS_PER_S = 1000.0


def simulate(
    scenario: Scenario,
    policy: PolicyName = "configured",
    seed: int = 1,
    *,
    routing: RoutingName = "default",
    trace: Trace | None = None,
    on_progress: OnProgress = lambda ratio: None,
) -> SimulationResult:
    """Run a scenario. A ``trace`` sends instead of the scenario's tenants.

    The result's policy is the :func:`variant_name`.

    ``on_progress`` is called again and again with how much of the arrivals' time is over, 0 to 1.
    """
    return Simulation(scenario, policy, seed, routing, trace, on_progress).run()


class _Call(Work):
    """A request: its client, that hears of the gate's decision, and the sequence it becomes."""

    __slots__ = ("admission", "ask", "flow", "row", "sender", "simulation", "tries")

    def __init__(self, simulation: "Simulation", sender: Sender, flow: Flow, ask: Ask) -> None:
        super().__init__(ask.prompt_tokens, ask.output_tokens, ask.text, ask.adapter)
        self.ask = ask
        self.simulation = simulation
        self.sender = sender
        self.flow = flow
        self.tries = 0
        self.row = -1
        self.admission: Admission | None = None

    def enter(self, now: float) -> None:
        """Ask the gate, for the first time or again."""
        simulation = self.simulation
        self.tries += 1
        simulation.log.entered(self.row, now)
        claims = self.flow.claims(self.row, self.ask)
        self.admission = simulation.router.admit(claims, self, now)

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        """Go to the engine."""
        fleet = self.simulation.fleet
        self.simulation.log.dispatched(self.row, fleet.numbers[route.endpoint], now)
        fleet.engines[route.endpoint].add(self, now)

    def passed(self, destination: str, now: float) -> None:
        """Never happens: all requests are inferences."""
        raise AssertionError("an inference was let pass")

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """Try again later, or be over."""
        retries = self.flow.retries
        if self.tries < retries.max_tries:
            delay_s = retry_after_s if retries.obey_retry_after else retries.delay_s
            self.simulation.events.schedule(now + delay_s, self.enter)
            return
        self.simulation.log.refused(self.row, outcome, now)
        self.simulation.over(self, retry_after_s, now)

    def evicted(self, retry_after_s: int, now: float) -> None:
        """Never happens: no policy that is compared evicts."""
        raise AssertionError("a request was evicted where nothing is")


class Simulation:
    """One run of one scenario; made to be run once."""

    def __init__(
        self,
        scenario: Scenario,
        policy: PolicyName,
        seed: int,
        routing: RoutingName = "default",
        trace: Trace | None = None,
        on_progress: OnProgress = lambda ratio: None,
    ) -> None:
        self._scenario = scenario
        self._policy = policy
        self._routing = routing
        self._seed = seed
        self._trace = trace
        self._on_progress = on_progress
        self._open = 0
        self.calls: dict[int, Work] = {}  # by the number that is the request's id
        self.timers = Timers()
        self.events = Events(self.timers)
        self.log = RequestLog()
        priorities = {tenant.priority for tenant in scenario.tenants}
        if trace is not None:
            priorities = {row.priority for row in trace.rows}
        self.fleet = Fleet(scenario, self.events, self, priorities)
        self.router = self._make_router()
        self.tenants, self._senders = self._make_senders()
        self._samples = PoolSamples(self.router.pool, self._queued, self.fleet.loads)

    def run(self) -> SimulationResult:
        """Run it to its end and return what was seen."""
        scenario = self._scenario
        self.fleet.attach(self.router)
        self.events.schedule(0.0, self._sample)
        if scenario.progress_s:
            self.events.schedule(scenario.progress_s, self._tell_progress)
        for sender in self._senders:
            sender.begin()
        end_s = scenario.duration_s + scenario.drain_s
        self.events.run(end_s, self._is_over)
        self._samples.take(self.events.now)
        table = self.log.table()
        return SimulationResult(
            scenario=scenario.name,
            policy=variant_name(scenario, self._policy, self._routing),
            seed=self._seed,
            duration_s=scenario.duration_s,
            measure_from_s=scenario.measure_from_s,
            end_s=self.events.now,
            tenants=self.tenants,
            outcomes=list(OUTCOMES),
            requests=table,
            timeline=self._samples.timeline(lambda time_s: self._service(table, time_s)),
        )

    # What the senders do

    def send(self, sender: Sender, flow: Flow, ask: Ask, now: float) -> None:
        """Let a request arrive."""
        call = _Call(self, sender, flow, ask)
        tokens = ask.prompt_tokens, ask.output_tokens
        call.row = self.log.arrived(flow.tenant, flow.priority, *tokens, now)
        self.calls[call.row] = call
        self._open += 1
        call.enter(now)

    def over(self, call: _Call, retry_after_s: float, now: float) -> None:
        """A request is over."""
        self._open -= 1
        del self.calls[call.row]
        call.admission = None  # which knows the call: without it there is no cycle
        call.sender.over(retry_after_s, now)

    # What the engines do

    def began(self, work: Work, now: float) -> None:
        """The first token of a request has come out."""
        self.log.began(_call(work).row, max(0, work.cached_tokens), now)

    def ended(self, work: Work, now: float) -> None:
        """The last token of a request has come out."""
        call = _call(work)
        if call.admission is None:
            raise AssertionError("a request has ended that was not admitted")
        duration_s, first_byte_s = self.log.since_dispatch_s(call.row, now)
        ending = Ending(
            status=_OK,
            cause="complete",
            duration_s=duration_s,
            response_bytes=None,
            first_byte_s=first_byte_s,
            prompt_tokens=call.prompt_tokens,
            output_tokens=call.output_tokens,
        )
        self.log.served(call.row, now)
        self.router.finish(call.admission, ending, now)
        self.over(call, 0.0, now)

    def _tell_progress(self, now: float) -> None:
        for engine in self.fleet.engines.values():
            for work in engine.running:
                call = _call(work)
                if call.admission is not None:
                    self.router.progress(call.admission, engine.generated(work, now), now)
        self.events.schedule(now + self._scenario.progress_s, self._tell_progress)

    # Making it

    def _make_router(self) -> Router:
        scenario = self._scenario
        router = Router(
            scheduler=make_scheduler(self._routing, self.fleet.engines, self.calls),
            options=flow_options(scenario, self._policy),
            make_detector=lambda pool, timers: make_detector(scenario.saturation, pool, timers),
            timers=self.timers,
            rng=random.Random(f"{self._seed}/router"),
            recorder=NullRecorder(),
        )
        if self._policy == "oracle":
            router.flow.costs = KnownLengths(scenario.flow.cost, self.log.output_tokens)
        return router

    def _make_senders(self) -> tuple[list[str], Sequence[Sender]]:
        scenario = self._scenario
        if self._trace is not None:
            return self._make_trace_sender(self._trace)
        names = list(dict.fromkeys(tenant.name for tenant in scenario.tenants))
        most_tokens = min(group.engine.context_tokens for group in scenario.pool)
        senders: list[Sender] = []
        for number, tenant in enumerate(scenario.tenants):
            flow = Flow(
                tenant=names.index(tenant.name),
                name=tenant.name,
                priority=tenant.priority,
                model=tenant.model,
                max_tokens=tenant.max_tokens,
                wait_limit_s=tenant.wait_limit_s,
                slo_ttft_s=tenant.slo_ttft_s,
                retries=tenant.retries,
            )
            kind = ClosedSender if isinstance(tenant.arrivals, ClosedLoop) else OpenSender
            seed = f"{self._seed}/{number}/{tenant.name}"
            writer = Writer(tenant, number, seed, most_tokens)
            senders.append(kind(self, tenant, flow, writer, seed, scenario.duration_s))
        return names, senders

    def _make_trace_sender(self, trace: Trace) -> tuple[list[str], Sequence[Sender]]:
        names = list(dict.fromkeys(row.tenant for row in trace.rows))
        index = {name: number for number, name in enumerate(names)}
        flows = {
            (name, priority): Flow(tenant=index[name], name=name, priority=priority)
            for name, priority in sorted({(row.tenant, row.priority) for row in trace.rows})
        }
        return names, [TraceSender(self, trace, flows, self._scenario.duration_s)]

    # Looking at it

    def _is_over(self) -> bool:
        return not self._open and self.events.now >= self._scenario.duration_s

    def _queued(self) -> dict[int, int]:
        return {band.priority: band.requests for band in self.router.flow.bands()}

    def _sample(self, now: float) -> None:
        self._samples.take(now)
        self._on_progress(min(1.0, now / self._scenario.duration_s))
        self.events.schedule(now + self._scenario.sample_s, self._sample)

    def _service(self, table: RequestTable, time_s: Floats) -> dict[str, Floats]:
        """Return what each tenant was served by the times: a prompt while it is computed, the
        output while it comes out, evenly; the capacity of a slot while it is held."""
        options = self._scenario.flow.cost
        served = table.outcome == OUTCOMES.index(SERVED)
        curves: dict[str, Floats] = {}
        for index, name in enumerate(self.tenants):
            rows = np.flatnonzero(served & (table.tenant == index))
            dispatched_s, ended_s = table.dispatched_s[rows], table.ended_s[rows]
            if options.unit == "slot-time":
                cost = (ended_s - dispatched_s) * _MS_PER_S
                curves[name] = service_curve(dispatched_s, ended_s, cost, time_s)
                continue
            first_s = table.first_token_s[rows]
            prompt: Floats = options.prompt_weight * table.prompt_tokens[rows].astype(np.float64)
            output: Floats = options.output_weight * table.output_tokens[rows].astype(np.float64)
            of_prompts = service_curve(dispatched_s, first_s, prompt, time_s)
            of_outputs = service_curve(first_s, ended_s, output, time_s)
            curves[name] = of_prompts + of_outputs
        return curves


def variant_name(scenario: Scenario, policy: PolicyName, routing: RoutingName) -> str:
    """Return what a run is called: policy, routing, or both, by what the scenario varies."""
    if not scenario.is_about_routing:
        return policy
    return routing if len(scenario.policies) < 2 else f"{policy}, {routing}"


def _call(work: Work) -> _Call:
    if not isinstance(work, _Call):
        raise AssertionError("an engine runs what is no request")
    return work
