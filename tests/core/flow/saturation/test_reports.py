import math

import pytest

from epp.core.flow.saturation.reports import Doubt, without_gaps
from epp.core.pool import EngineLoad


def load(waiting: float, running: float, kv_ratio: float) -> EngineLoad:
    return EngineLoad(waiting=waiting, running=running, kv_ratio=kv_ratio)


def test_what_is_no_number_is_no_load() -> None:
    assert without_gaps(load(math.nan, 3, math.inf)) == load(0, 3, 0)
    assert without_gaps(load(1, 2, 0.3)) == load(1, 2, 0.3)


@pytest.mark.parametrize(
    ("report", "in_flight", "events_per_s", "is_frozen"),
    [
        (load(0, 0, 0.0), 20, 4, True),
        (load(30, 32, 1.0), 20, 4, True),
        (load(0, 20, 0.5), 20, 4, True),  # of all blocks not one was taken or given back
        (load(0, 20, 0.0), 20, 4, False),  # an engine that does not tell its cache
        (load(0, 0, 0.0), 1, 4, False),  # short requests, none in the engine at that moment
        (load(0, 20, 0.5), 20, 0, False),  # nothing has happened
        (load(0, 0, 0.0), 20, 1, False),
    ],
)
def test_a_report_is_frozen_if_it_cannot_be_true(
    report: EngineLoad, in_flight: int, events_per_s: int, is_frozen: bool
) -> None:
    doubt = Doubt()
    told = [doubt.is_frozen(report, in_flight, events_per_s * s, float(s)) for s in range(4)]
    assert told == [False, False, False, is_frozen]


def test_a_report_that_changes_is_believed() -> None:
    doubt = Doubt()
    for second in range(20):
        changing = load(0, 0, 0.001 * second)
        assert not doubt.is_frozen(changing, 50, 10 * second, float(second))
        assert doubt.since_s == second
