"""R2: flows of a band get the same service by weight, whatever their requests cost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.claims import RequestClaims
from epp.core.flow import BandOptions, FlowLimits, FlowOptions
from epp.core.gate import Ending

from ..support import LONG_OUTPUTS, RecordingGateWaiter, completed, destination, request
from .traffic import Entry, Traffic

_UNBOUNDED = FlowLimits(wait_limit_s=None, reject_hopeless=False)
_FLOWS = "fgh"
_TOKENS = st.integers(min_value=0, max_value=3_000)
_INDEX = st.integers(min_value=0, max_value=1_000)

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from(_FLOWS), _TOKENS, _TOKENS),
        st.tuples(st.just("end"), _INDEX),
        st.tuples(st.just("end"), _INDEX),
        st.tuples(st.just("end"), _INDEX),
        st.tuples(st.just("cancel"), _INDEX),
        st.tuples(st.just("progress"), _INDEX, st.floats(min_value=0.0, max_value=1.0)),
        st.tuples(st.just("limit"), st.integers(1, 2), st.integers(0, 6)),
        st.tuples(st.just("members"), st.sets(st.integers(1, 2))),
    ),
    min_size=20,
    max_size=150,
)


class _Measured:
    """The service that flows got while both waited without a break, and what bounds it.

    Service is counted at dispatch, with what the request will have cost. ``E`` is the largest sum
    of what the requests of a flow that ran at a time were charged too much or too little.
    """

    def __init__(self, traffic: Traffic, weights: dict[str, float]) -> None:
        self._traffic = traffic
        self._weights = weights
        self._seen: set[int] = set()
        self._service = dict.fromkeys(_FLOWS, 0.0)
        self._largest = dict.fromkeys(_FLOWS, 0.0)
        self._error = dict.fromkeys(_FLOWS, 0.0)
        self._leads: dict[tuple[str, str], tuple[float, float]] = {}

    def look(self) -> None:
        errors = dict.fromkeys(_FLOWS, 0.0)
        for entry in self._traffic.order:
            name = entry.request.flow.fairness_id
            if id(entry) not in self._seen:
                self._seen.add(id(entry))
                self._service[name] += entry.cost / self._weights[name]
            self._largest[name] = max(self._largest[name], entry.charged)
        for entry in self._traffic.running:
            errors[entry.request.flow.fairness_id] += abs(entry.cost - entry.charged)
        for name in _FLOWS:
            self._error[name] = max(self._error[name], errors[name])
        waiting = {entry.request.flow.fairness_id for entry in self._traffic.waiting}
        for f, g in ("fg", "fh", "gh"):
            if not {f, g} <= waiting:
                self._leads.pop((f, g), None)
                continue
            lead = self._service[f] - self._service[g]
            least, most = self._leads.get((f, g), (lead, lead))
            self._leads[f, g] = min(least, lead), max(most, lead)
            assert self._leads[f, g][1] - self._leads[f, g][0] <= self._bound(f, g) + 1e-6

    def _bound(self, f: str, g: str) -> float:
        largest = max(self._largest[name] / self._weights[name] for name in (f, g))
        error = sum(self._error[name] / self._weights[name] for name in (f, g))
        return 2 * largest + 4 * error


@settings(max_examples=300)
@given(
    steps=_STEPS,
    weights=st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3),
    limit=st.integers(min_value=1, max_value=4),
    fg_wait=st.booleans(),
)
def test_r2_the_lead_of_a_flow_has_a_bound_under_any_interleaving(
    steps: list[tuple[object, ...]], weights: tuple[float, ...], limit: int, fg_wait: bool
) -> None:
    of_flow = dict(zip(_FLOWS, weights, strict=True))
    traffic = Traffic(options=FlowOptions(limits=_UNBOUNDED, weights=of_flow), limit=limit)
    measured = _Measured(traffic, of_flow)
    for number in range(40 if fg_wait else 0):
        traffic.offer(request(0, "fg"[number % 2], prompt_tokens=number * 37 % 500), number % 900)
        measured.look()
    for step in steps:
        _do(traffic, step)
        measured.look()
        traffic.assert_work_conserving()
    traffic.end_all()


def _do(traffic: Traffic, step: tuple[object, ...]) -> None:
    match step:
        case ("offer", str(name), int(prompt), int(output)):
            traffic.offer(request(0, name, prompt_tokens=prompt), output)
        case ("progress", int(index), float(share)) if traffic.running:
            entry = traffic.running[index % len(traffic.running)]
            traffic.progress(entry, int(entry.output_tokens * share))
        case ("end", int(index)) if traffic.running:
            traffic.end(traffic.running[index % len(traffic.running)])
        case ("limit" | "members" | "cancel", *_):
            traffic.step(step)


# Over a long time


def _shares(
    options: FlowOptions,
    costs: dict[str, tuple[int, int]],
    *,
    slots: int = 4,
    rounds: int = 1_500,
    skip: int = 300,
) -> dict[str, float]:
    """Return the parts of the service that flows get which always wait, by what their requests
    have: prompt and output tokens."""
    traffic = Traffic([1], options=options, limit=slots)
    for name, (prompt, output) in costs.items():
        for _ in range(8):
            traffic.offer(request(0, name, prompt_tokens=prompt), output)
    served = dict.fromkeys(costs, 0)
    for number in range(rounds):
        ended = traffic.running[0]
        name = ended.request.flow.fairness_id
        served[name] += ended.cost if number >= skip else 0
        traffic.harness.clock.advance(0.01)
        traffic.end(ended)
        dispatched = traffic.order[-1].request.flow.fairness_id
        prompt, output = costs[dispatched]
        traffic.offer(request(0, dispatched, prompt_tokens=prompt), output)
    total = sum(served.values())
    return {name: cost / total for name, cost in served.items()}


_HEAVY_AND_LIGHT = {"heavy": (8_000, 800), "chatty": (50, 2_000), "light": (500, 100)}


def test_r2_costs_make_no_difference() -> None:
    shares = _shares(FlowOptions(limits=_UNBOUNDED), _HEAVY_AND_LIGHT)
    assert list(shares.values()) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_r2_weights_are_the_shares() -> None:
    options = FlowOptions(limits=_UNBOUNDED, weights={"heavy": 2.0, "light": 0.5})
    shares = _shares(options, _HEAVY_AND_LIGHT)
    expected = {"heavy": 2 / 3.5, "chatty": 1 / 3.5, "light": 0.5 / 3.5}
    assert shares == pytest.approx(expected, abs=0.02)


def test_r2_round_robin_gives_each_a_request_in_turn() -> None:
    band = BandOptions(fairness="round-robin")
    shares = _shares(
        FlowOptions(limits=_UNBOUNDED, band=band), {"big": (900, 0), "small": (100, 0)}
    )
    assert shares == pytest.approx({"big": 0.9, "small": 0.1}, abs=0.01)


def test_r2_global_strict_serves_the_oldest_of_the_band() -> None:
    band = BandOptions(fairness="global-strict")
    traffic = Traffic([1], options=FlowOptions(band=band))
    traffic.offer(request(0))
    waiting = [traffic.offer(request(0, name)) for name in "aababbbaac"]
    while traffic.running:
        traffic.end(traffic.running[0])
    assert traffic.order[1:] == waiting


# Idle flows


def _ids(entries: list[Entry]) -> str:
    return "".join(entry.request.flow.fairness_id for entry in entries)


def _serve(traffic: Traffic, count: int) -> str:
    """End so many, and return of which flows those are that go in their place."""
    for _ in range(count):
        traffic.end(traffic.running[0])
    return _ids(traffic.order[-count:])


def test_r2_an_idle_flow_banks_no_credit() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED))
    traffic.offer(request(0, "a"), 256)
    for _ in range(60):
        traffic.offer(request(0, "a"), 256)
    _serve(traffic, 30)
    for _ in range(20):
        traffic.offer(request(0, "b"), 256)
    assert _serve(traffic, 12) in ("ab" * 6, "ba" * 6)


def test_r2_what_a_flow_owes_is_remembered_while_others_wait() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED))
    debt = traffic.offer(request(0, "debtor", prompt_tokens=100), 5_000)
    for _ in range(60):
        traffic.offer(request(0, "a", max_output_tokens=200), 200)
    traffic.end(debt)
    assert traffic.flow.bands()[0].flows["debtor"].virtual_time == debt.cost
    for _ in range(5):
        traffic.offer(request(0, "debtor", max_output_tokens=200), 200)
    order = _serve(traffic, 40)
    assert "debtor" not in order[: debt.cost // 400 - 1]
    assert "debtor" in order


def test_r2_what_a_flow_owes_is_forgotten_when_others_have_caught_up_or_gone() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED))
    debt = traffic.offer(request(0, "debtor"), 1_000)
    for _ in range(12):
        traffic.offer(request(0, "a", max_output_tokens=200), 200)
    traffic.end(debt)
    flows = traffic.flow.bands()[0].flows
    assert set(flows) == {"debtor", "a"}
    _serve(traffic, 6)
    assert set(flows) == {"a"}
    traffic.end(traffic.running[0])
    while traffic.running:
        traffic.end(traffic.running[0])
    assert not flows
    assert traffic.flow.bands()[0].policy.virtual_time == 0.0


def test_r2_a_running_response_that_outgrows_its_charge_is_charged_at_once() -> None:
    traffic = Traffic([1, 2], options=FlowOptions(limits=_UNBOUNDED, cost=LONG_OUTPUTS))
    long = traffic.offer(request(0, "a", subset={1}), 4_000)
    short = traffic.offer(request(0, "b", subset={2}), 256)
    for _ in range(10):
        traffic.offer(request(0, "a", subset={2}), 256)
        traffic.offer(request(0, "b", subset={2}), 256)
    traffic.progress(long, 100)
    assert long.charged == 512
    traffic.progress(long, 1_280)
    assert long.charged == 2_560
    traffic.end(short)
    assert _serve_at(traffic, 2, 4) == "bbba"
    ending = Ending(
        status=200, cause="complete", duration_s=1.0, response_bytes=None, output_tokens=1_280
    )
    traffic.end(long, ending)
    recorded = traffic.harness.recorder.settlements[-1]
    assert recorded == (long.request, 2_560, 2_560)


def _serve_at(traffic: Traffic, number: int, count: int) -> str:
    where = f"10.0.0.{number}:8000"
    for _ in range(count):
        running = next(
            entry
            for entry in traffic.running
            if entry.waiter.lease is not None and entry.waiter.destination == where
        )
        traffic.end(running)
    return _ids(traffic.order[-count:])


def test_r2_what_is_cut_off_is_paid_for_as_far_as_it_went() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED))
    cut = traffic.offer(request(0, "a", prompt_tokens=10))
    traffic.offer(request(0, "a"))
    band = traffic.flow.bands()[0]
    assert band.flows["a"].unsettled == 10 + 2 * 16
    ending = Ending(
        status=200, cause="aborted", duration_s=1.0, response_bytes=None, output_tokens=7
    )
    traffic.end(cut, ending)
    assert band.flows["a"].virtual_time == 10 + 2 * 7 + 2 * 16
    failed = traffic.running[0]
    traffic.offer(request(0, "a"))
    never_began = Ending(status=0, cause="aborted", duration_s=0.0, response_bytes=None)
    traffic.end(failed, never_began)
    assert traffic.harness.recorder.settlements[-1][2] <= 1


def test_r2_adoption_does_not_make_newcomers_owe_what_the_adopted_owe() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED))
    running = traffic.offer(request(0, "a"), 256)
    for _ in range(10):
        traffic.offer(request(0, "a"), 256)
    claims = RequestClaims(fairness_id="adopted")
    for _ in range(50):
        traffic.harness.router.adopt(claims, destination(9), 0.0, RecordingGateWaiter())
    claims = RequestClaims(fairness_id="a")
    traffic.harness.router.adopt(claims, destination(9), 0.0, RecordingGateWaiter())
    for _ in range(10):
        traffic.offer(request(0, "new"), 256)
    traffic.end(running, completed(256))
    served = _serve(traffic, 9)
    assert abs(served.count("a") - served.count("new")) <= 2
