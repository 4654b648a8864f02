"""Which priority an objective gives, and for whom a change of objectives makes it another."""

import pytest

from epp.core.objectives import changed_priorities, priority_of
from epp.core.resources import Objective


def _objectives(**priorities: int) -> dict[str, Objective]:
    return {name: Objective(name=name, priority=p) for name, p in priorities.items()}


def test_the_priority_is_0_where_nothing_says_another() -> None:
    objectives = {**_objectives(a=5), "": Objective(name="", priority=7)}
    assert [priority_of(objectives, name) for name in ("a", "b", "")] == [5, 0, 0]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({"a": 5, "b": -1}, {"b": -1, "a": 5}, {}),
        ({"a": 5}, {"a": 6, "c": 1}, {"a": 6, "c": 1}),
        ({"a": 5, "b": 1}, {"b": 1}, {"a": 0}),
        ({"a": 0}, {"b": 0}, {}),
    ],
)
def test_changed_is_what_gives_another_priority_by_now(
    before: dict[str, int], after: dict[str, int], changed: dict[str, int]
) -> None:
    assert changed_priorities(_objectives(**before), _objectives(**after)) == changed
