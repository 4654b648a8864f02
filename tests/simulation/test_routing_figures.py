import math

import numpy as np
import pytest

from epp.simulation.routing_figures import RoutingFigures, routing_figures
from epp.simulation.routing_table import mean_and_margin, routing_table
from tests.simulation.report.results import made_up, table


def _result() -> RoutingFigures:
    requests = table(
        tenant=[0] * 5,
        arrived_s=[1.0, 10.0, 20.0, 30.0, 40.0],
        first_token_s=[2.0, 10.1, 20.2, 30.9, np.nan],
        outcomes=["served", "served", "served", "served", "expired"],
    )
    requests.cached_tokens[:] = [0, 100, 50, 0, 0]
    requests.endpoint[:] = [0, 0, 0, 2, -1]
    requests.output_tokens[:] = [10, 10, 20, 30, 10]
    return routing_figures(made_up(requests, measure_from_s=5.0, duration_s=31.0, policy="own"))


def test_figures_are_of_what_arrived_after_the_warm_up() -> None:
    figures = _result()
    assert (figures.policy, figures.seed, figures.requests) == ("own", 1, 4)
    assert figures.ttft_mean_s == pytest.approx(0.4)
    assert figures.ttft_p50_s == pytest.approx(0.2)
    assert figures.ttft_p95_s == pytest.approx(0.2 + 0.9 * 0.7)
    assert figures.hit_ratio == pytest.approx(150 / 300)
    # Those that ended between the 5th and the 31st second: two, of 10 and 20 tokens.
    assert figures.output_tokens_per_s == pytest.approx(30 / 26)
    # Endpoint 0 has computed 10 + 50 + 20 tokens, the second none, the third 100 + 30.
    assert figures.imbalance == pytest.approx(130 / 70)
    assert figures.refused_ratio == 0.25


def test_where_nothing_was_served_there_are_no_figures() -> None:
    figures = routing_figures(made_up())
    assert figures.requests == 0
    assert math.isnan(figures.ttft_mean_s)
    assert math.isnan(figures.hit_ratio)
    assert math.isnan(figures.imbalance)
    assert routing_table([figures]).splitlines()[1].split()[2] == "–"  # noqa: RUF001


def test_margins_are_those_of_students_t() -> None:
    mean, margin = mean_and_margin([1.0, 2.0, 3.0, math.nan])
    assert (mean, margin) == (2.0, pytest.approx(4.303 / math.sqrt(3)))
    assert mean_and_margin([1.5])[0] == 1.5
    assert math.isnan(mean_and_margin([1.5])[1])
    many = mean_and_margin([0.0, 1.0] * 50)
    assert many == (0.5, pytest.approx(1.96 * 0.5025 / 10, rel=1e-3))


def test_the_table_has_a_row_for_each_policy() -> None:
    one = _result()
    head, row = routing_table([one]).splitlines()
    assert head.split() == [
        *("scenario", "policy", "TTFT", "ms", "mean", "p50", "p95", "p99", "prefix", "hits", "%"),
        *("output", "tokens/s", "imbalance", "refused", "%"),
    ]
    assert row.split()[:3] == ["scenario", "own", "400.0"]
    assert "400.0 ± 0.0" in routing_table([one, one])
    assert len(routing_table([one, one]).splitlines()) == 2
