"""Who is kept by a number that engines tell."""

import pytest

from ..support import candidates_of, make, pool_of, told

_LOADS = [told(attributes={"gpu": 0.1}), told(4, attributes={"gpu": 0.9}), told(), None]


def _kept(
    operator: str, value: float, *, missing: str = "Pass", attribute: str = "gpu", **others: object
) -> list[int]:
    threshold = {"operator": operator, "value": value}
    parameters = {
        "attribute": attribute,
        "onMissing": missing,
        "algorithm": {"type": "threshold", "threshold": threshold},
        **others,
    }
    mask = make("endpoint-attribute-filter", parameters).filter(candidates_of(pool_of(_LOADS)))
    kept: list[int] = mask.nonzero()[0].tolist()
    return kept


@pytest.mark.parametrize(
    ("operator", "value", "kept"),
    [
        ("LessThan", 0.9, [0]),
        ("LessThanOrEqual", 0.9, [0, 1]),
        ("GreaterThan", 0.1, [1]),
        ("GreaterThanOrEqual", 0.1, [0, 1]),
        ("Equal", 0.9, [1]),
        ("NotEqual", 0.9, [0]),
        ("Equal", 0.5, []),
    ],
)
def test_operators(operator: str, value: float, kept: list[int]) -> None:
    assert _kept(operator, value, missing="Fail") == kept
    assert _kept(operator, value) == [*kept, 2, 3]


def test_where_none_is_kept_all_may_be() -> None:
    assert _kept("Equal", 0.5, missing="Fail", fallbackOnEmpty=True) == [0, 1, 2, 3]
    assert _kept("Equal", 0.9, missing="Fail", fallbackOnEmpty=True) == [1]


def test_what_every_engine_tells_has_names_too() -> None:
    assert _kept("LessThan", 4, attribute="WaitingQueueSize", missing="Fail") == [0, 2, 3]


@pytest.mark.parametrize(
    ("attribute", "producer", "message"),
    [
        ("gpu/dcgm", None, 'expected attribute "gpu" and producer "dcgm"'),
        ("gpu", "dcgm", 'found producer "dcgm"; expected "core-metrics-extractor" or none'),
    ],
)
def test_there_are_no_numbers_but_those_of_the_engines(
    attribute: str, producer: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _kept("Equal", 1, attribute=attribute, producer=producer)


def test_the_producer_of_the_engines_numbers_may_be_named() -> None:
    assert _kept("Equal", 0.9, missing="Fail", producer="core-metrics-extractor") == [1]
