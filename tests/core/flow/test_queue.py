"""Bands: order of arrival, one lane for each set of candidates, nothing left behind."""

from epp.core.flow.queue import Band, Ticket

from ..support import RecordingWaiter, request


def _fill(band: Band, *subsets: set[int] | None) -> list[Ticket]:
    tickets = [
        Ticket(request(body_bytes=10, subset=subset), RecordingWaiter(), sequence, 0.0)
        for sequence, subset in enumerate(subsets)
    ]
    for ticket in tickets:
        band.add(ticket)
    return tickets


def test_heads_are_the_oldest_of_each_lane_in_order_of_arrival() -> None:
    band = Band(0)
    tickets = _fill(band, {2}, None, {1}, {2}, None, {1, 2})
    assert band.heads() == [tickets[0], tickets[1], tickets[2], tickets[5]]
    band.remove(tickets[0])
    band.remove(tickets[2])
    assert band.heads() == [tickets[1], tickets[3], tickets[5]]


def test_youngest_goes_backwards_over_all_lanes() -> None:
    band = Band(0)
    tickets = _fill(band, None, {1}, None, {2})
    assert list(band.youngest()) == tickets[::-1]
    band.remove(tickets[1])
    band.remove(tickets[3])
    assert list(band.youngest()) == [tickets[2], tickets[0]]


def test_an_empty_band_holds_nothing() -> None:
    band = Band(-5)
    for ticket in _fill(band, None, {1}, {2}):
        band.remove(ticket)
    assert (band.priority, band.requests, band.bytes) == (-5, 0, 0)
    assert band.heads() == list(band) == list(band.youngest()) == []
    assert not band._lanes
