"""What requests are expected to cost, what they have cost, and what is learned from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import CostOptions
from epp.core.flow.cost import CostModel
from epp.core.gate import Ending
from epp.core.request import FlowKey, Request

from ..support import completed, request


def _request(model: str = "m", fairness_id: str = "a", **claims: object) -> Request:
    return Request(flow=FlowKey(0, fairness_id), model=model, **claims)  # type: ignore[arg-type]


def _ending(status: int = 200, cause: str = "complete", **tokens: int) -> Ending:
    return Ending(status=status, cause=cause, duration_s=1.0, response_bytes=None, **tokens)


def test_a_request_is_expected_to_cost_its_tokens_by_weight() -> None:
    costs = CostModel(CostOptions(prompt_weight=3.0, output_weight=5.0, default_output_tokens=10))
    assert costs.estimate(_request(prompt_tokens=7)) == 21 + 50
    assert costs.estimate(_request(prompt_tokens=7, max_output_tokens=4)) == 21 + 20
    assert costs.estimate(_request(max_output_tokens=0)) == 1
    assert costs.accrued(_request(prompt_tokens=7), 3) == 21 + 15


@given(st.lists(st.integers(min_value=0, max_value=5_000), min_size=1, max_size=40))
def test_outputs_are_expected_to_be_as_those_before(outputs: list[int]) -> None:
    costs = CostModel(CostOptions())
    mean = 0.0
    for number, output in enumerate(outputs):
        costs.settle(_request(), completed(output), 1.0)
        mean += (output - mean) * max(0.1, 1 / (number + 1))
    assert costs.output_tokens(_request()) == pytest.approx(mean)
    assert costs.output_tokens(_request(fairness_id="new")) == pytest.approx(mean)
    assert costs.output_tokens(_request(model="other")) == 16


def test_what_a_flow_has_asked_for_tells_more_than_what_others_have() -> None:
    costs = CostModel(CostOptions())
    costs.settle(_request(), completed(100), 1.0)
    costs.settle(_request(fairness_id="b"), completed(300), 1.0)
    assert costs.output_tokens(_request()) == 100
    assert costs.output_tokens(_request(fairness_id="b")) == 300
    assert costs.output_tokens(_request(fairness_id="c")) == 200


@pytest.mark.parametrize("ending", [_ending(status=500), _ending(cause="aborted"), _ending(404)])
def test_what_did_not_end_well_teaches_nothing(ending: Ending) -> None:
    costs = CostModel(CostOptions())
    costs.settle(_request(), ending, 5.0)
    assert costs.output_tokens(_request()) == 16


def test_a_request_costs_what_the_response_tells() -> None:
    costs = CostModel(CostOptions())
    tokens = _ending(prompt_tokens=50, output_tokens=9)
    assert costs.settle(_request(prompt_tokens=1_000), tokens, 1.0) == 50 + 18
    assert costs.settle(_request(prompt_tokens=1_000), completed(9), 1.0) == 1_000 + 18
    assert costs.settle(_request(prompt_tokens=30), _ending(status=503), 9.0) == 30


def test_a_response_that_does_not_tell_is_measured_by_its_time() -> None:
    costs = CostModel(CostOptions(prefill_tokens_per_s=1_000.0, s_per_output_token=0.1))
    silent = _request(prompt_tokens=2_000)
    assert costs.settle(silent, _ending(), 5.0) == 2_000 + 2 * 30
    assert costs.settle(silent, _ending(), 1.0) == 2_000
    limited = _request(max_output_tokens=5)
    assert costs.settle(limited, _ending(), 5.0) == 10


def test_responses_that_tell_show_how_long_a_token_takes() -> None:
    costs = CostModel(CostOptions(s_per_output_token=0.1))
    for _ in range(200):
        costs.settle(_request(), completed(100), 2.0)
    assert costs.settle(_request(), _ending(), 2.0) == pytest.approx(200, abs=1)
    costs.settle(_request(prompt_tokens=100_000), completed(100), 2.0)  # all of it was prefill
    assert costs.settle(_request(), _ending(), 2.0) == pytest.approx(200, abs=1)


def test_cost_may_be_the_time_in_which_capacity_is_held() -> None:
    options = CostOptions(
        unit="slot-time",
        prefill_tokens_per_s=1_000.0,
        s_per_output_token=0.01,
        default_output_tokens=100,
    )
    costs = CostModel(options)
    assert costs.estimate(_request(prompt_tokens=500)) == 1_500
    assert costs.settle(_request(), completed(1), 2.5) == 2_500
    assert costs.settle(_request(), completed(1), 0.0) == 1
    assert costs.accrued(_request(), 1_000_000) == 0


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    costs = CostModel(CostOptions())
    costs.settle(_request(fairness_id="kept"), completed(7), 1.0)
    costs.settle(_request(fairness_id="gone"), completed(7), 1.0)
    for number in range(10_500):
        costs.settle(_request(fairness_id=f"flow-{number}"), completed(1_000), 1.0)
        if number == 5_000:
            costs.settle(_request(fairness_id="kept"), completed(7), 1.0)
    assert len(costs._means) == 10_000
    assert costs.output_tokens(_request(fairness_id="kept")) == 7
    assert costs.output_tokens(_request(fairness_id="gone")) > 900


def test_costs_are_whole_numbers() -> None:
    costs = CostModel(CostOptions(prompt_weight=0.3, output_weight=1.7))
    assert isinstance(costs.estimate(request(prompt_tokens=11)), int)
    assert isinstance(costs.settle(request(prompt_tokens=11), completed(3), 1.0), int)
