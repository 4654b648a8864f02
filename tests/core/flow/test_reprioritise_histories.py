"""R17: other priorities at any time, in any history of a queue."""

from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.flow import BandOptions, FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.flow.options import Fairness, Ordering

from ..support import request
from .traffic import STEPS, Traffic, full

_UNBOUNDED = FlowLimits(wait_limit_s=None, reject_hopeless=False)
_PRIORITIES = st.sampled_from([-10, 0, 5, 10])
_CHANGES = st.dictionaries(st.sampled_from("xyz"), _PRIORITIES, min_size=1)
_OPTIONS = st.builds(
    FlowOptions,
    limits=st.builds(
        FlowLimits,
        max_requests=st.sampled_from([6, 1_000]),
        wait_limit_s=st.sampled_from([None, 3.0, 60.0]),
    ),
    band=st.builds(
        BandOptions,
        max_requests=st.sampled_from([3, 1_000]),
        fairness=st.sampled_from(["weighted-fair", "round-robin", "global-strict"]),
        ordering=st.sampled_from(["fcfs", "edf", "slo-deadline"]),
    ),
    bands=st.builds(
        lambda band: {5: band}, st.builds(BandOptions, wait_limit_s=st.sampled_from([None, 1.0]))
    ),
    usage_limit=st.builds(
        UsageLimitOptions, policy=st.sampled_from(["static", "priority-holdback"])
    ),
    eviction=st.booleans(),
    max_flows=st.sampled_from([1, 2, 1_000]),
    shared_flows=st.just(1),
)


def _assert_recounted(traffic: Traffic) -> None:
    """What is counted, and in which order it stands, is as if it were looked at anew."""
    traffic.assert_sums()
    for band in traffic.flow.bands():
        tickets = list(band)
        assert [ticket.sequence for ticket in tickets] == sorted(t.sequence for t in tickets)
        in_lanes = [ticket for lane in band.lanes.values() for ticket in lane.arrivals.values()]
        assert sorted(t.sequence for t in in_lanes) == [ticket.sequence for ticket in tickets]
        assert band._weight == sum(flow.weight for flow in band.flows.values() if flow.requests)
        for lane in band.lanes.values():
            assert list(lane.arrivals) == sorted(lane.arrivals)
        for flow in band.flows.values():
            of_flow = [ticket for ticket in tickets if ticket.flow is flow]
            assert (flow.requests, flow.cost) == (len(of_flow), sum(t.cost for t in of_flow))
            assert flow.requests == sum(queue.requests for queue in flow.queues.values())


@settings(max_examples=80)
@given(
    numbers=st.lists(st.integers(min_value=0, max_value=1_000), min_size=4, max_size=20),
    steps=st.lists(
        st.one_of(STEPS.map(lambda steps: steps[:12]), _CHANGES, _CHANGES), min_size=2, max_size=10
    ),
    options=_OPTIONS,
)
def test_r17_nothing_is_lost_and_all_that_is_counted_adds_up(
    numbers: list[int],
    steps: list[list[tuple[object, ...]] | dict[str, int]],
    options: FlowOptions,
) -> None:
    held = options.usage_limit.policy != "static"
    traffic = Traffic(options=options, strict=not held)
    for number in numbers:
        traffic.step(("offer", 0, number, None))
    for each in steps:
        if isinstance(each, dict):
            waiting, before = traffic.waiting, len(traffic.order)
            traffic.reprioritise(each)
            gone = traffic.order[before:]
            assert traffic.waiting == [entry for entry in waiting if entry not in gone]
            for entry in traffic.waiting:
                priority = entry.request.flow.priority
                assert priority == each.get(entry.request.objective, priority)
        else:
            for step in each:
                traffic.step(step)
        _assert_recounted(traffic)
        if not held:
            traffic.assert_work_conserving()
    traffic.end_all()
    _assert_recounted(traffic)
    traffic.wait(61.0)  # that long the ceilings remember who had traffic
    traffic.harness.recorder.endings = [None] * len(traffic.order)  # type: ignore[list-item]
    traffic.harness.assert_at_rest()


_OFFERS = st.fixed_dictionaries(
    {
        "objective": st.sampled_from("xyz"),
        "fairness_id": st.sampled_from("aaab"),
        "prompt_tokens": st.sampled_from([0, 10, 500]),
        "subset": st.sampled_from([None, None, None, (1,)]),
        "wait_limit_s": st.sampled_from([None, 90.0, 500.0]),
        "slo_ttft_s": st.sampled_from([None, 0.5, 2.0]),
    }
)
_HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.lists(_OFFERS, min_size=3, max_size=12)),
        st.tuples(st.just("change"), _CHANGES),
        st.tuples(st.just("cancel"), st.integers(min_value=0, max_value=50)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 7.0])),
    ),
    min_size=4,
    max_size=12,
)


@settings(max_examples=120)
@given(
    history=_HISTORIES,
    fairness=st.sampled_from(["weighted-fair", "global-strict"]),
    ordering=st.sampled_from(["fcfs", "fcfs", "edf", "slo-deadline"]),
)
def test_r17_who_waits_goes_as_if_it_had_come_with_the_priority_of_now(
    history: list[tuple[object, ...]], fairness: Fairness, ordering: Ordering
) -> None:
    options = FlowOptions(
        limits=_UNBOUNDED,
        band=BandOptions(fairness=fairness, ordering=ordering, wait_limit_s=1_000.0),
        bands={5: BandOptions(fairness=fairness, ordering=ordering, wait_limit_s=700.0)},
    )
    traffic = full(options)
    priorities = dict.fromkeys("xyz", 0)
    for step in history:
        match step:
            case (list() as offers,):
                for claims in offers:
                    traffic.offer(request(priorities[claims["objective"]], **claims))
            case ("change", dict() as changes):
                priorities |= changes
                traffic.reprioritise(changes)
            case ("cancel", int(index)) if traffic.waiting:
                traffic.cancel(traffic.waiting[index % len(traffic.waiting)])
            case ("wait", float(seconds)):
                traffic.wait(seconds)
    _assert_recounted(traffic)
    afresh = full(options)
    afresh.wait(traffic.harness.now - afresh.harness.now)
    for entry in traffic.waiting:
        assert entry.request.flow.priority == priorities[entry.request.objective]
        assert entry.ticket is not None
        ticket = afresh.offer(entry.request, since_s=entry.ticket.entered_s).ticket
        assert ticket is not None
        assert ticket.deadline_s == entry.ticket.deadline_s
    assert [id(e.request) for e in traffic.serve()] == [id(e.request) for e in afresh.serve()]
