"""Who is kept by labels."""

from collections.abc import Mapping

import pytest

from epp.core.pool import Pool
from epp.core.resources import Endpoint
from epp.core.scheduling import Candidates

from ..support import candidates_of, make, pool_of

_LABELS: list[dict[str, str]] = [
    {"gpu": "h100", "tier": "gold"},
    {"gpu": "h100"},
    {"gpu": "l4"},
    {},
]


def _kept(type_: str, parameters: Mapping[str, object]) -> list[int]:
    pool = pool_of(len(_LABELS), labels=_LABELS)
    mask = make(type_, parameters).filter(candidates_of(pool))
    kept: list[int] = mask.nonzero()[0].tolist()
    return kept


@pytest.mark.parametrize("type_", ["label-selector-filter", "by-label-selector"])
@pytest.mark.parametrize(
    ("labels", "expressions", "kept"),
    [
        ({}, [], [0, 1, 2, 3]),
        ({"gpu": "h100"}, [], [0, 1]),
        ({"gpu": "h100", "tier": "gold"}, [], [0]),
        ({"tier": ""}, [], []),
        ({}, [("gpu", "In", ["l4", "h100"])], [0, 1, 2]),
        ({}, [("gpu", "NotIn", ["h100"])], [2, 3]),
        ({}, [("tier", "Exists", [])], [0]),
        ({}, [("tier", "DoesNotExist", [])], [1, 2, 3]),
        ({"gpu": "h100"}, [("tier", "DoesNotExist", []), ("gpu", "NotIn", ["l4"])], [1]),
    ],
)
def test_a_selector_keeps_those_of_whom_all_it_says_is_true(
    type_: str, labels: dict[str, str], expressions: list[tuple[object, ...]], kept: list[int]
) -> None:
    names = ("key", "operator", "values")
    parameters = {
        "matchLabels": labels,
        "matchExpressions": [dict(zip(names, each, strict=True)) for each in expressions],
    }
    assert _kept(type_, parameters) == kept


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", [], r"found no matchExpressions\[0\].values; expected some for In"),
        ("Exists", ["a"], r"found matchExpressions\[0\].values; expected none for Exists"),
    ],
)
def test_operators_have_values_or_have_none(
    operator: str, values: list[str], expected: str
) -> None:
    expression = {"key": "gpu", "operator": operator, "values": values}
    with pytest.raises(ValueError, match=expected):
        make("label-selector-filter", {"matchExpressions": [expression]})


@pytest.mark.parametrize(
    ("values", "allows_none", "kept"),
    [
        (["h100"], False, [0, 1]),
        (["h100", "l4"], False, [0, 1, 2]),
        (["l4"], True, [2, 3]),
        ([], True, [3]),
    ],
)
def test_a_label_with_one_of_some_values(
    values: list[str], allows_none: bool, kept: list[int]
) -> None:
    parameters = {"label": "gpu", "validValues": values, "allowsNoLabel": allows_none}
    assert _kept("by-label", parameters) == kept


def test_a_label_filter_that_keeps_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="neither validValues nor allowsNoLabel"):
        make("by-label", {"label": "gpu"})


def test_labels_are_read_anew_after_each_change_of_the_pool() -> None:
    def candidates(*labels: Mapping[str, str]) -> Candidates:
        pool.apply(
            Endpoint(name=f"default/{slot}", address=f"10.0.0.{slot}", port=1, labels=each)
            for slot, each in enumerate(labels)
        )
        return candidates_of(pool)

    pool = Pool(max_concurrency=1)
    chosen = make("label-selector-filter", {"matchLabels": {"gpu": "l4"}})
    assert chosen.filter(candidates({"gpu": "l4"}, {})).tolist() == [True, False]
    assert chosen.filter(candidates({}, {"gpu": "l4"})).tolist() == [False, True]
    many = candidates(*({"gpu": "l4"} for _ in range(20)))
    assert chosen.filter(many).tolist() == [True] * 20


_ROLES = ["decode", "prefill", "prefill-decode", "both", "encode", "encode-prefill",
          "encode-prefill-decode", "other", ""]  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "without_role", "kept"),
    [
        ("decode-filter", True, {"decode", "prefill-decode", "both", "encode-prefill-decode"}),
        ("prefill-filter", False, {"prefill", "encode-prefill", "prefill-decode", "both",
                                   "encode-prefill-decode"}),
        ("encode-filter", False, {"encode", "encode-prefill", "encode-prefill-decode"}),
    ],
)  # fmt: skip
def test_roles(type_: str, without_role: bool, kept: set[str]) -> None:
    labels = [{"llm-d.ai/role": role} for role in _ROLES]
    pool = pool_of(len(_ROLES) + 1, labels=labels)
    mask = make(type_).filter(candidates_of(pool)).tolist()
    assert {role for role, is_kept in zip(_ROLES, mask, strict=False) if is_kept} == kept
    assert mask[-1] is without_role
