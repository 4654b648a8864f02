"""The values of a label over a pool."""

from collections.abc import Mapping

from epp.core.resources import Endpoint
from epp.core.scheduling.filters.labels import LabelFilter
from epp.core.scheduling.scorers.labels import LabelColumn

from ..support import candidates_of, pool_of


def _endpoint(number: int, **labels: str) -> Endpoint:
    return Endpoint(name=f"n{number}", address=f"10.1.0.{number}", port=80, labels=labels)


def test_each_value_is_read_once() -> None:
    read: list[str | None] = []

    def length(text: str | None) -> int:
        read.append(text)
        return -1 if text is None else len(text)

    column = LabelColumn("zone", length)
    pool = pool_of(0)
    pool.apply([_endpoint(1, zone="a"), _endpoint(2), _endpoint(3, zone="a"), _endpoint(4)])
    for _ in range(3):
        found = column.of(pool)
        assert [found.values[index] for index in found.which[:4]] == [1, -1, 1, -1]
    assert read == ["a", None]

    pool.apply([_endpoint(1, zone="bb"), _endpoint(2), _endpoint(3, zone="a")])
    found = column.of(pool)
    assert [found.values[index] for index in found.which[:3]] == [2, -1, 1]
    assert read == ["a", None, "bb"]

    other = pool_of(1, labels=[{"zone": "ccc"}])
    other.version = pool.version
    assert column.of(other).values[column.of(other).which[0]] == 3


def test_values_that_nobody_has_any_more_are_forgotten() -> None:
    read: list[str | None] = []
    column = LabelColumn("zone", read.append)
    pool = pool_of(0)
    for number in range(1_000):
        pool.update([_endpoint(1, zone=str(number)), _endpoint(2, zone="same")], [])
        assert len(column.of(pool).values) <= 65
    assert len(read) <= 1_000 + 1 + 2 * 1_000 / 64


def test_only_endpoints_that_changed_are_looked_at() -> None:
    asked: list[str] = []

    def keeps(labels: Mapping[str, str]) -> bool:
        asked.append(labels["zone"])
        return labels["zone"] == "a"

    label_filter = LabelFilter(keeps)
    pool = pool_of(0)
    pool.update([_endpoint(number, zone="a") for number in range(8)], [])
    assert label_filter.filter(candidates_of(pool)).tolist() == [True] * 8
    asked.clear()
    pool.update([_endpoint(3, zone="b"), _endpoint(9, zone="a")], [_endpoint(0).destination])
    assert sorted(candidates_of(pool).endpoints()[3].labels.values()) == ["b"]
    kept = label_filter.filter(candidates_of(pool)).tolist()
    assert kept == [True] * 3 + [False] + [True] * 4
    assert sorted(asked) == ["a", "b"]
