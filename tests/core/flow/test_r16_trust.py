"""R16: what clients say may cost a bounded amount of memory and of everybody's share."""

from epp.core.flow import BandOptions, FlowLimits, FlowOptions
from epp.core.request import Outcome

from ..support import request
from .traffic import Traffic

_PATIENT = FlowLimits(wait_limit_s=None, reject_hopeless=False, max_requests=20_000)


def test_r16_ten_thousand_fairness_ids_are_bounded() -> None:
    band = BandOptions(max_requests=20_000)
    options = FlowOptions(limits=_PATIENT, band=band, max_flows=1_000, shared_flows=64)
    flow = Traffic([1], options=options).flow
    for number in range(10_000):
        flow.offer(request(0, f"id-{number}"), _Waiter(), 1000.0)
    (band,) = flow.bands()
    assert len(band.flows) == 1_064
    assert band.requests == 9_999
    assert sum(each.requests for each in band.flows.values()) == 9_999


def test_r16_a_flood_of_ids_does_not_starve_who_was_there_before() -> None:
    options = FlowOptions(limits=_PATIENT, max_flows=10, shared_flows=2)
    traffic = Traffic([1], options=options)
    traffic.offer(request(0, "honest"))
    for _ in range(30):
        traffic.offer(request(0, "honest"), 256)
    for number in range(300):
        traffic.offer(request(0, f"flood-{number}"), 256)
    for _ in range(130):
        traffic.end(traffic.running[0])
    served = [entry.request.flow.fairness_id for entry in traffic.order[1:]]
    assert served.count("honest") >= 130 // 12 - 1


def test_r16_a_flood_of_ids_takes_nobody_its_weight() -> None:
    options = FlowOptions(limits=_PATIENT, max_flows=10, shared_flows=2, weights={"vip": 10.0})
    traffic = Traffic([1], options=options)
    for number in range(100):
        traffic.offer(request(0, f"flood-{number}"), 256)
    vip = traffic.offer(request(0, "vip"), 256)
    assert vip.ticket is not None
    assert (vip.ticket.flow.id, vip.ticket.flow.weight) == ("vip", 10.0)
    for _ in range(40):
        traffic.offer(request(0, "vip"), 256)
    for _ in range(44):
        traffic.end(traffic.running[0])
    served = [entry.request.flow.fairness_id for entry in traffic.order[1:]]
    # Ten shares, beside ten flows of one request each and two that are shared.
    assert served.count("vip") >= 44 * 10 // 22


def test_r16_ids_that_were_refused_leave_nothing() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_PATIENT))
    traffic.offer(request(0, "runs"))
    for number in range(3_000):
        refused = traffic.offer(request(0, f"id-{number}", subset={9}))
        assert refused.waiter.outcome is Outcome.REJECTED_NO_ENDPOINTS
    traffic.flow.begin_drain()
    for number in range(3_000):
        traffic.offer(request(0, f"id-{number}"))
    assert set(traffic.flow.bands()[0].flows) == {"runs"}


class _Waiter:
    """Hears, and says nothing."""

    def dispatched(self, *told: object) -> None:
        pass

    def refused(self, *told: object) -> None:
        raise AssertionError(f"refused: {told}")
