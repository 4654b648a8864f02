"""What the condition Accepted is to say, and when it is nobody's turn to say anything."""

import pytest

from epp.discovery.kubernetes.objects import (
    Condition,
    InferenceObjective,
    ObjectiveStatus,
    ObjectMeta,
)
from epp.discovery.kubernetes.writing.acceptance import KnownPools, PoolName, complaint, decide

GROUP = "inference.networking.k8s.io"
OTHER_GROUP = "inference.networking.x-k8s.io"
NOW = "2026-01-31T12:00:00Z"
BEFORE = "2026-01-01T00:00:00Z"

OURS = PoolName(GROUP, "InferencePool", "ours")
THEIRS = PoolName(GROUP, "InferencePool", "theirs")
GONE = PoolName(GROUP, "InferencePool", "gone")
ELSEWHERE = PoolName(OTHER_GROUP, "InferencePool", "ours")
POOLS = KnownPools(
    served={OURS}, wanted={OURS}, existing={OURS, THEIRS}, kinds={(GROUP, "InferencePool")}
)

PENDING = Condition(
    type="Ready",
    status="Unknown",
    reason="Pending",
    message="Waiting for controller",
    last_transition_time="1970-01-01T00:00:00Z",
)


def objective(
    pool: PoolName, said: Condition | None = None, *, priority: object = 1
) -> InferenceObjective:
    reference = {"group": pool.group, "kind": pool.kind, "name": pool.name}
    return InferenceObjective(
        metadata=ObjectMeta(name="batch", namespace="default", generation=2),
        spec={"priority": priority, "poolRef": reference},
        status=ObjectiveStatus(conditions=(PENDING,) if said is None else (PENDING, said)),
    )


def condition(status: str, reason: str, generation: int = 2) -> Condition:
    return Condition(
        type="Accepted",
        status=status,
        reason=reason,
        message="said before",
        observed_generation=generation,
        last_transition_time=BEFORE,
    )


ACCEPTED = condition("True", "Accepted")
NOT_FOUND = condition("False", "PoolNotFound")
NOT_SERVED = condition("False", "PoolNotServed")


def decided(
    pool: PoolName,
    said: Condition | None = None,
    *,
    is_own: bool = False,
    pools: KnownPools = POOLS,
) -> tuple[str, str] | None:
    found = decide(objective(pool, said), "llm-d.ai", pools, is_own=is_own, now=NOW)
    if found is None:
        return None
    assert found.type == "Accepted"
    assert found.observed_generation == 2
    assert pool.name in found.message
    return found.status, found.reason


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (OURS, ("True", "Accepted")),
        (THEIRS, ("False", "PoolNotServed")),
        (GONE, ("False", "PoolNotFound")),
        (ELSEWHERE, ("False", "PoolNotServed")),
    ],
)
def test_an_objective_of_which_nothing_was_said_yet(
    pool: PoolName, expected: tuple[str, str]
) -> None:
    assert decided(pool) == expected
    old = condition(expected[0], expected[1], generation=1)
    assert decided(pool, old) == expected


@pytest.mark.parametrize(
    ("pool", "said"),
    [(OURS, ACCEPTED), (THEIRS, NOT_SERVED), (GONE, NOT_FOUND), (ELSEWHERE, NOT_SERVED)],
)
def test_what_says_the_same_already_is_left_alone(pool: PoolName, said: Condition) -> None:
    assert decided(pool, said) is None


@pytest.mark.parametrize("pool", [THEIRS, GONE, ELSEWHERE])
def test_what_another_has_accepted_is_left_alone(pool: PoolName) -> None:
    assert decided(pool, ACCEPTED) is None
    assert decided(pool, condition("True", "Accepted", generation=1)) is not None


def test_an_own_acceptance_is_taken_back() -> None:
    assert decided(THEIRS, ACCEPTED, is_own=True) == ("False", "PoolNotServed")
    assert decided(GONE, ACCEPTED, is_own=True) == ("False", "PoolNotFound")
    without = KnownPools(wanted={OURS}, kinds=POOLS.kinds)
    assert decided(OURS, ACCEPTED, pools=without) == ("False", "PoolNotFound")


def test_who_serves_the_pool_has_the_last_word() -> None:
    for said in (NOT_FOUND, NOT_SERVED, condition("False", "Whatever"), condition("Unknown", "X")):
        assert decided(OURS, said) == ("True", "Accepted")


def test_others_correct_only_what_others_have_said() -> None:
    assert decided(GONE, NOT_SERVED) == ("False", "PoolNotFound")
    assert decided(THEIRS, NOT_FOUND) == ("False", "PoolNotServed")
    assert decided(THEIRS, condition("Unknown", "Pending")) == ("False", "PoolNotServed")
    assert decided(THEIRS, condition("False", "Invalid")) is None


def test_who_does_not_see_the_pools_of_a_kind_corrects_nobody() -> None:
    for said in (NOT_FOUND, condition("Unknown", "Pending"), condition("False", "Invalid")):
        assert decided(ELSEWHERE, said) is None


def test_an_objective_that_is_no_good_is_not_accepted_and_told_why() -> None:
    bad = objective(OURS, ACCEPTED, priority="high")
    found = decide(bad, "llm-d.ai", POOLS, is_own=False, now=NOW)
    assert found is not None
    assert (found.status, found.reason) == ("False", "Invalid")
    assert "spec.priority" in found.message
    assert (
        decide(objective(THEIRS, ACCEPTED, priority="high"), "", POOLS, is_own=False, now=NOW)
        is None
    )


def test_an_objective_that_names_no_pool_or_is_going_is_left_alone() -> None:
    nameless = InferenceObjective(
        metadata=ObjectMeta(name="batch", generation=2), spec={"poolRef": {"name": 7}}
    )
    going = InferenceObjective(
        metadata=ObjectMeta(name="batch", generation=2, deletion_timestamp=NOW),
        spec={"poolRef": {"name": "ours"}},
    )
    for found in (nameless, going):
        assert decide(found, "llm-d.ai", POOLS, is_own=False, now=NOW) is None


def test_a_reference_has_the_defaults_of_the_api() -> None:
    short = InferenceObjective(
        metadata=ObjectMeta(name="batch", namespace="default", generation=2),
        spec={"poolRef": {"name": "ours"}},
    )
    found = decide(short, "llm-d.ai", POOLS, is_own=False, now=NOW)
    assert found is not None
    assert found.status == "True"


def test_the_time_is_that_of_the_last_change_of_the_status() -> None:
    def since(pool: PoolName, said: Condition) -> str:
        found = decide(objective(pool, said), "llm-d.ai", POOLS, is_own=False, now=NOW)
        assert found is not None
        return found.last_transition_time

    assert since(THEIRS, NOT_FOUND) == BEFORE
    assert since(OURS, condition("True", "Accepted", generation=1)) == BEFORE
    assert since(OURS, NOT_FOUND) == NOW


# ---- what an Event says ----


def told(
    pool: PoolName, *, priority: object = 1, pools: KnownPools = POOLS
) -> tuple[str, str] | None:
    return complaint(objective(pool, priority=priority), "llm-d.ai", pools)


def test_an_objective_that_is_no_good_is_told_of_on_its_pool() -> None:
    found = told(OURS, priority="high")
    assert found is not None
    assert found[0] == "default/ours"
    assert found[1].startswith("InferenceObjective default/batch of llm-d.ai: spec.priority: ")
    assert told(THEIRS, priority="high") is None
    assert told(GONE, priority="high") is None


def test_an_objective_that_misses_the_pool_is_told_of_on_it() -> None:
    assert told(ELSEWHERE) == (
        "default/ours",
        "InferenceObjective default/batch of llm-d.ai names InferencePool ours of group "
        f"'{OTHER_GROUP}'; expected InferencePool of group '{GROUP}'",
    )
    both = KnownPools(served={OURS}, existing={OURS, ELSEWHERE})
    assert told(ELSEWHERE, pools=both) is None


@pytest.mark.parametrize("pool", [OURS, THEIRS, GONE, PoolName(OTHER_GROUP, "InferencePool", "x")])
def test_there_is_no_complaint_about_others(pool: PoolName) -> None:
    assert told(pool) is None
