"""Many exchanges on one router: any order of what a proxy may do, and of what may happen to a pool.

The proxy's side of each exchange is a :class:`ProxyModel`, which takes no reply that Envoy would
not take.
"""

import random

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epp.core.claims import RequestClaims
from epp.core.exchange import ExchangeLimits
from epp.core.exchange_states import State
from epp.core.flow import BandOptions, FlowLimits
from epp.core.gate import GateWaiter
from epp.core.pool import Lease, Mask, Pool
from epp.core.replies import BodyMode
from epp.core.request import Outcome, Request
from epp.core.router import Router, RouterAdmission
from epp.core.scheduling import LeastLoaded

from .proxy_model import HalfPlan, ProxyModel
from .support import Harness, destination, headers

_MODES = [mode for mode in BodyMode if mode is not BodyMode.GRPC]
_NUMBERS = st.one_of(
    st.sets(st.integers(min_value=1, max_value=4), min_size=2),
    st.sets(st.integers(min_value=1, max_value=4), min_size=1),
    st.sets(st.integers(min_value=1, max_value=4)),
)
_INDEX = st.integers(min_value=0, max_value=1_000)


class _Wish(msgspec.Struct, frozen=True):
    """What a client wants and how its proxy is configured."""

    request: HalfPlan
    response: HalfPlan
    objective: bytes
    ttl_ms: bytes
    subset: frozenset[int] | None
    is_upgrade: bool


@st.composite
def _plans(draw: st.DrawFn) -> HalfPlan:
    sizes = draw(
        st.lists(st.sampled_from([0, 1, 7, 1_000, 1_001]), max_size=4)
        | st.sampled_from([[62_000], [62_001], [61_999, 2], [130_000], [130_000, 130_000]])
    )
    return HalfPlan(
        mode=draw(st.sampled_from([BodyMode.FULL_DUPLEX_STREAMED, *_MODES])),
        sizes=tuple(sizes),
        start=draw(st.integers(min_value=0, max_value=100)),
        has_trailers=draw(st.booleans()),
        sends_headers=draw(st.sampled_from([True, True, True, False])),
        sends_trailers=draw(st.booleans()),
        repeats_last=draw(st.booleans()),
    )


_WISHES = st.builds(
    _Wish,
    request=_plans(),
    response=_plans(),
    objective=st.sampled_from([b"interactive", b"batch", b"", b"unknown"]),
    ttl_ms=st.sampled_from([b"", b"", b"500", b"4000", b"0", b"soon"]),
    subset=st.one_of(st.none(), st.none(), st.none(), st.frozensets(st.integers(1, 5), max_size=3)),
    is_upgrade=st.sampled_from([False] * 5 + [True]),
)


class _SpiedRouter(Router):
    """A router that keeps whom it admitted."""

    admissions: list[RouterAdmission]

    def admit(
        self, claims: RequestClaims, waiter: GateWaiter, now: float, since_s: float | None = None
    ) -> RouterAdmission:
        admission = super().admit(claims, waiter, now, since_s)
        self.admissions.append(admission)
        return admission

    def held(self) -> list[Lease]:
        """Return the leases that are not released."""
        leases = [admission.lease for admission in self.admissions]
        return [lease for lease in leases if lease is not None and not lease.is_released]


class _CheckingScheduler(LeastLoaded):
    """Insists at each dispatch that it is the right one at this moment."""

    router: Router

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        slots = super().pick(request, pool, mask, now, rng)
        for slot in slots:
            assert pool.in_flight[slot] < pool.limit[slot], "dispatched beyond the limit"
            placeable = sorted(
                (-band.priority, ticket.sequence, id(ticket.request))
                for band in self.router.flow.bands()
                for ticket in band
                if _has_room(ticket.request, pool)
            )
            # A newcomer that finds nobody waiting does not pass through the queue.
            assert not placeable or placeable[0][2] == id(request), "somebody else was to go before"
        return slots


def _has_room(request: Request, pool: Pool) -> bool:
    return any(
        in_flight < limit
        for member, in_flight, limit in pool
        if request.subset is None or member.destination in request.subset
    )


class ExchangeMachine(RuleBasedStateMachine):
    """Replies stay legal and in order, and whatever is taken is given back."""

    @initialize(numbers=_NUMBERS, max_concurrency=st.integers(min_value=1, max_value=2))
    def start(self, numbers: set[int], max_concurrency: int) -> None:
        scheduler = _CheckingScheduler()
        self.harness = Harness(
            sorted(numbers),
            objectives={"interactive": 10, "batch": -10},
            limits=FlowLimits(
                max_requests=6,
                max_bytes=300_000,
                wait_limit_s=8.0,
                no_endpoint_wait_limit_s=3.0,
            ),
            band=BandOptions(max_requests=4, max_bytes=200_000),
            max_concurrency=max_concurrency,
            scheduler=scheduler,
            exchange_limits=ExchangeLimits(max_body_bytes=200_000, max_inspected_bytes=100_000),
            router_type=_SpiedRouter,
        )
        router = self.harness.router
        assert isinstance(router, _SpiedRouter)
        router.admissions = []
        scheduler.router = self.router = router
        self.models: list[ProxyModel] = []
        self.opened = 0
        self.moved_to: set[str] = set()

    def _one(self, index: int, candidates: list[ProxyModel]) -> ProxyModel | None:
        return candidates[index % len(candidates)] if candidates else None

    # What clients and proxies do

    def _open(self, wish: _Wish) -> ProxyModel:
        self.opened += 1
        exchange, stream = self.harness.exchange()
        pairs = [
            (b"x-request-id", b"%d" % self.opened),
            (b"x-llm-d-inference-objective", wish.objective),
            (b"x-gateway-request-ttl-ms", wish.ttl_ms),
        ]
        if wish.is_upgrade:
            pairs.append((b"upgrade", b"websocket"))
        model = ProxyModel(
            exchange,
            stream,
            wish.request,
            wish.response,
            headers=headers(*pairs),
            subset=None if wish.subset is None else frozenset(map(destination, wish.subset)),
            is_upgrade=wish.is_upgrade,
        )
        self.models.append(model)
        return model

    @rule(wish=_WISHES)
    def opens(self, wish: _Wish) -> None:
        self._open(wish)

    @rule(wish=_WISHES)
    def arrives(self, wish: _Wish) -> None:
        """The whole request comes, as far as it can."""
        self._send_all(self._open(wish))

    @rule(wishes=st.lists(_WISHES, min_size=2, max_size=5))
    def several_arrive(self, wishes: list[_Wish]) -> None:
        for wish in wishes:
            self.arrives(wish)

    @rule(index=_INDEX)
    def request_goes_on(self, index: int) -> None:
        model = self._one(index, [model for model in self.models if model.may_send_request])
        if model is not None:
            model.send_request(self.harness.now)

    @rule(index=_INDEX, served=st.none() | st.integers(min_value=1, max_value=5))
    def response_goes_on(self, index: int, served: int | None) -> None:
        model = self._one(index, [model for model in self.models if model.may_send_response])
        if model is not None:
            served_by = None if served is None else destination(served)
            if served_by is not None:
                self.moved_to.add(served_by)
            model.send_response(self.harness.now, 200, served_by)

    @rule(indices=st.lists(_INDEX, min_size=1, max_size=4))
    def come_to_their_end(self, indices: list[int]) -> None:
        for index in indices:
            reached = [model for model in self.models if model.is_upstream_reached]
            model = self._one(index, reached)
            if model is not None:
                self._send_all(model)
                while model.may_send_response:
                    model.send_response(self.harness.now)
                    model.check()
                self._close(model)

    @rule(index=_INDEX)
    def proxy_answers_by_itself(self, index: int) -> None:
        model = self._one(index, self.models)
        if model is not None:
            model.answer_by_itself(self.harness.now)

    @rule(index=_INDEX)
    def closes(self, index: int) -> None:
        model = self._one(index, self.models)
        if model is not None:
            self._close(model)

    def _send_all(self, model: ProxyModel) -> None:
        while model.may_send_request:
            model.send_request(self.harness.now)
            model.check()

    def _close(self, model: ProxyModel) -> None:
        model.check()
        model.close(self.harness.now)
        model.check()
        self.models.remove(model)

    # What happens to the pool

    @rule(delay_s=st.sampled_from([0.0, 0.001, 0.5, 2.9, 3.0, 8.0]))
    def time_passes(self, delay_s: float) -> None:
        self.harness.clock.advance(delay_s)

    @rule(numbers=_NUMBERS)
    def members_change(self, numbers: set[int]) -> None:
        self.harness.apply(sorted(numbers))

    @precondition(lambda self: self.opened > 30)
    @rule(is_over=st.booleans())
    def drain(self, is_over: bool) -> None:
        self.router.begin_drain()
        if is_over:
            self.router.flow.end_drain(self.harness.now)

    # What holds at any time

    @invariant()
    def replies_are_legal_and_none_is_missing(self) -> None:
        for model in self.models:
            model.check()

    @invariant()
    def every_admitted_request_has_one_outcome_or_waits(self) -> None:
        waiting = [model for model in self.models if model.exchange.state is State.WAITING]
        assert self.router.flow.requests == len(waiting)
        assert self.harness.recorder.outcomes.total() == len(self.router.admissions) - len(waiting)

    @invariant()
    def capacity_is_held_by_those_who_run(self) -> None:
        held = self.router.held()
        recorder, pool = self.harness.recorder, self.router.pool
        running = recorder.outcomes[Outcome.DISPATCHED] - len(recorder.endings)
        assert pool.total_in_flight == len(held) == running
        for member, in_flight, limit in pool:
            at_member = [one for one in held if one.endpoint.destination == member.destination]
            assert in_flight == len(at_member)
            assert in_flight <= limit or member.destination in self.moved_to

    @invariant()
    def nothing_waits_that_could_go_or_is_overdue(self) -> None:
        limits = self.router.flow.options.limits
        waiting = [ticket for band in self.router.flow.bands() for ticket in band]
        assert not any(_has_room(ticket.request, self.router.pool) for ticket in waiting)
        assert all(
            ticket.deadline_s is not None and ticket.deadline_s > self.harness.now
            for ticket in waiting
        )
        assert len(self.harness.timers) == len(waiting) <= limits.max_requests
        assert self.router.flow.bytes == sum(ticket.request.body_bytes for ticket in waiting)

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            for model in list(self.models):
                self._close(model)
            self.harness.assert_at_rest()


TestExchangeMachine = ExchangeMachine.TestCase
TestExchangeMachine.settings = settings(max_examples=80, stateful_step_count=40)
