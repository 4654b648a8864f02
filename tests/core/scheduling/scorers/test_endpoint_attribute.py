"""``endpoint-attribute-scorer``."""

import math
from typing import Any

import pytest

from ..support import candidates_of, make, pool_of, told

_LOWER, _HIGHER = "linear_lower_is_better", "linear_higher_is_better"
_ADAPTIVE: dict[str, Any] = {"adaptiveRange": {}}


def _fixed(low: float, high: float) -> dict[str, Any]:
    return {"fixedRange": {"min": low, "max": high}}


def _parameters(type: str = _LOWER, normalization: Any = None, **others: Any) -> dict[str, Any]:
    algorithm = {"type": type}
    if normalization is not None:
        algorithm["normalization"] = normalization
    return {"attributeKey": "heat", "algorithm": algorithm, **others}


@pytest.mark.parametrize(
    ("type", "normalization", "values", "scores"),
    [
        (_LOWER, None, [0, 5, 10], [1.0, 0.5, 0.0]),
        (_HIGHER, _ADAPTIVE, [0, 5, 10], [0.0, 0.5, 1.0]),
        (_LOWER, _ADAPTIVE, [7, 7], [1.0, 1.0]),
        (_HIGHER, _ADAPTIVE, [7, None], [1.0, 0.0]),
        (_LOWER, _ADAPTIVE, [0, None, 10, math.nan], [1.0, 0.0, 0.0, 0.0]),
        (_LOWER, _ADAPTIVE, [None, None], [0.0, 0.0]),
        (_LOWER, _fixed(0, 1), [0.25, 0.25, 2, -1], [0.75, 0.75, 0.0, 1.0]),
        (_HIGHER, _fixed(0, 1), [0.25, 2, -1, None], [0.25, 1.0, 0.0, 0.0]),
        (_HIGHER, _fixed(-10, 10), [0, math.inf], [0.5, 0.0]),
    ],
)
def test_scores_are_linear_between_the_bounds(
    type: str, normalization: Any, values: list[float | None], scores: list[float]
) -> None:
    attributes = [{} if value is None else {"heat": value} for value in values]
    pool = pool_of([told(attributes=each) for each in attributes])
    scorer = make("endpoint-attribute-scorer", _parameters(type, normalization))
    assert scorer.score(candidates_of(pool)) == pytest.approx(scores)


def test_the_bounds_are_those_of_the_candidates() -> None:
    pool = pool_of([told(attributes={"heat": heat}) for heat in (0, 4, 8, 100)])
    scorer = make("endpoint-attribute-scorer", _parameters())
    assert scorer.score(candidates_of(pool, slots=[2, 1])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", ["WaitingQueueSize", "RunningRequestsSize", "KVCacheUsagePercent"])
def test_what_every_engine_tells_has_a_name_too(name: str) -> None:
    loads = [told(4, 4, 0.8), told(4, 4, 0.6), None]
    parameters = {**_parameters(producer="core-metrics-extractor"), "attributeKey": name}
    scores = make("endpoint-attribute-scorer", parameters).score(
        candidates_of(pool_of(loads, in_flight=[0, 0, 9]))
    )
    assert (
        scores.tolist()
        == {
            "WaitingQueueSize": [1.0, 1.0, 0.0],
            "RunningRequestsSize": [1.0, 1.0, 1.0],
            "KVCacheUsagePercent": pytest.approx([0.0, 1.0, 0.5]),
        }[name]
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            _parameters(attributeKey="heat/core-metrics-extractor"),
            'found attributeKey "heat/core-metrics-extractor"; expected attributeKey "heat" and'
            ' producer "core-metrics-extractor"',
        ),
        (
            _parameters(producer="dcgm-extractor"),
            'found producer "dcgm-extractor"; expected "core-metrics-extractor" or none',
        ),
        (
            _parameters(normalization=_fixed(1, 1)),
            "found min 1 and max 1 in algorithm.normalization.fixedRange; expected min below max",
        ),
        (
            _parameters(normalization={**_fixed(0, 1), **_ADAPTIVE}),
            "found fixedRange and adaptiveRange in algorithm.normalization; expected one of them",
        ),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - all of the message is compared
        make("endpoint-attribute-scorer", parameters)
    assert str(caught.value) == message
