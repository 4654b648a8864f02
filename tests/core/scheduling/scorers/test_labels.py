"""The values of a label over a pool."""

from epp.core.resources import Endpoint
from epp.core.scheduling.scorers.labels import LabelColumn

from ..support import pool_of


def _endpoint(number: int, **labels: str) -> Endpoint:
    return Endpoint(name=f"n{number}", address=f"10.1.0.{number}", port=80, labels=labels)


def test_each_value_is_read_once_for_each_change_of_the_pool() -> None:
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

    other = pool_of(1, labels=[{"zone": "ccc"}])
    other.version = pool.version
    assert column.of(other).values[column.of(other).which[0]] == 3
