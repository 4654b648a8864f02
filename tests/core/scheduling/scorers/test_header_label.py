"""``header-label-affinity-scorer``."""

import pytest

from epp.core.resources import Endpoint

from ..support import candidates_of, make, pool_of, request_of

_PARAMETERS = {"headerName": " X-Tier ", "labelKey": "tier"}
_LABELS = [{"tier": "gold"}, {"tier": "silver"}, {}, {"tier": "gold", "zone": "silver"}]


@pytest.mark.parametrize(
    ("headers", "scores"),
    [
        ({"x-tier": "gold"}, [1.0, 0.0, 0.0, 1.0]),
        ({"x-tier": "silver"}, [0.0, 1.0, 0.0, 0.0]),
        ({"x-tier": "Gold"}, [0.0] * 4),
        ({"x-tier": "bronze"}, [0.0] * 4),
        ({"x-tier": ""}, [0.0] * 4),
        ({"x-other": "gold"}, [0.0] * 4),
        ({}, [0.0] * 4),
    ],
)
def test_the_label_must_be_the_header(headers: dict[str, str], scores: list[float]) -> None:
    scorer = make("header-label-affinity-scorer", _PARAMETERS)
    pool = pool_of(4, labels=_LABELS)
    request = request_of(headers=headers)
    assert scorer.score(candidates_of(pool, request)).tolist() == scores
    assert scorer.score(candidates_of(pool, request, slots=[3, 1])).tolist() == [
        scores[3],
        scores[1],
    ]


def test_it_wants_its_header() -> None:
    assert make("header-label-affinity-scorer", _PARAMETERS).wanted_headers == ("x-tier",)


def test_labels_that_change_are_heeded() -> None:
    scorer = make("header-label-affinity-scorer", _PARAMETERS)
    pool = pool_of(1, labels=_LABELS)
    request = request_of(headers={"x-tier": "silver"})
    assert scorer.score(candidates_of(pool, request)).tolist() == [0.0]
    old = pool.endpoint(0)
    pool.apply([Endpoint(name=old.name, address=old.address, port=8000, labels={"tier": "silver"})])
    assert scorer.score(candidates_of(pool, request)).tolist() == [1.0]


@pytest.mark.parametrize("name", [" ", "two words", "x:y"])
def test_what_is_no_name_of_a_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"headerName.*expected the name of a header"):
        make("header-label-affinity-scorer", {**_PARAMETERS, "headerName": name})
