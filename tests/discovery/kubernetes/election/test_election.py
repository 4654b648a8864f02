"""The rules of the election, one by one and against a model of all that goes wrong."""

import random
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.discovery.kubernetes.election.election import Election, LeaseRecord, Read, Wait, Write
from tests.discovery.kubernetes.election.lease_world import (
    LATENCY_S,
    LEASE_DURATION_S,
    RENEW_INTERVAL_S,
    TIMEOUT_S,
    Fault,
    World,
)

JITTER_S = 0.05


def election(identity: str = "me") -> Election:
    made = Election(
        identity,
        lease_duration_s=LEASE_DURATION_S,
        renew_interval_s=RENEW_INTERVAL_S,
        rng=random.Random(7),
    )
    made.is_watched = True
    return made


def lease(
    holder: str, version: int, *, renewed: str = "r0", duration_s: float = 0.0
) -> LeaseRecord:
    return LeaseRecord(
        holder=holder,
        version=str(version),
        acquired="a0",
        renewed=renewed,
        duration_s=duration_s,
        transitions=3,
    )


def leading(now: float = 0.0, version: int = 10) -> Election:
    made = election()
    made.observed(None, now)
    made.wrote(lease("me", version), sent_at_s=now, now=now)
    assert made.is_leader
    return made


# ---- taking it ----


def test_a_lease_that_is_not_there_is_created() -> None:
    candidate = election()
    assert candidate.next(5.0) == Read()
    candidate.observed(None, 5.0)
    assert candidate.next(5.0) == Write(LeaseRecord(holder="me", duration_s=LEASE_DURATION_S))
    assert not candidate.is_leader


def test_the_lease_of_another_is_taken_when_it_has_stood_still_for_its_duration() -> None:
    candidate = election()
    candidate.observed(lease("other", 10), 100.0)
    candidate.observed(lease("other", 11, renewed="r1"), 102.0)
    candidate.observed(lease("other", 12, renewed="r1"), 109.0)  # only a label has changed
    step = candidate.next(109.0)
    assert isinstance(step, Wait)
    assert 110.0 <= step.until_s <= 110.0 + RENEW_INTERVAL_S / 2
    assert candidate.next(step.until_s - 0.001) == step
    written = candidate.next(step.until_s)
    assert isinstance(written, Write)
    assert written.record.version == "12"
    assert written.record.transitions == 4
    assert not written.record.acquired
    assert not written.record.renewed


@pytest.mark.parametrize(("says_s", "waits_s"), [(15.0, 15.0), (3.0, 3.0), (1e9, 3600.0)])
def test_what_the_lease_says_of_its_duration_counts(says_s: float, waits_s: float) -> None:
    candidate = election()
    candidate.observed(lease("other", 10, duration_s=says_s), 0.0)
    step = candidate.next(0.0)
    assert isinstance(step, Wait)
    assert waits_s <= step.until_s <= waits_s + RENEW_INTERVAL_S / 2


def test_a_free_lease_is_taken_at_once() -> None:
    candidate = election()
    candidate.observed(lease("", 10), 0.0)
    step = candidate.next(JITTER_S)
    assert isinstance(step, Write)
    assert step.record.transitions == 4


def test_the_own_lease_is_taken_up_at_once_after_a_restart() -> None:
    candidate = election()
    candidate.observed(lease("me", 10), 0.0)
    step = candidate.next(0.0)
    assert isinstance(step, Write)
    assert (step.record.acquired, step.record.transitions) == ("a0", 3)
    assert not candidate.is_leader


def test_the_lease_of_another_that_is_deleted_is_still_its_own() -> None:
    candidate = election()
    candidate.observed(lease("other", 10), 0.0)
    candidate.observed(None, 1.0)
    step = candidate.next(1.0)
    assert isinstance(step, Wait)
    assert step.until_s >= LEASE_DURATION_S
    created = candidate.next(step.until_s)
    assert isinstance(created, Write)
    assert not created.record.version


def test_without_a_watch_the_lease_is_read_each_interval() -> None:
    candidate = election()
    candidate.is_watched = False
    candidate.observed(lease("other", 10), 0.0)
    assert candidate.next(0.0) == Wait(RENEW_INTERVAL_S)
    assert candidate.next(RENEW_INTERVAL_S) == Read()


# ---- keeping it ----


def test_the_leader_renews_each_interval_from_when_it_sent() -> None:
    leader = election()
    leader.observed(None, 0.0)
    leader.wrote(lease("me", 10), sent_at_s=1.0, now=3.0)
    assert leader.next(2.9) == Wait(1.0 + RENEW_INTERVAL_S)
    assert isinstance(leader.next(3.0), Write)


def test_the_right_to_write_counts_from_when_the_renewal_was_sent() -> None:
    leader = election()
    leader.observed(None, 0.0)
    leader.wrote(lease("me", 10), sent_at_s=1.0, now=4.0)
    assert leader.may_write(1.0 + LEASE_DURATION_S - 0.001)
    assert not leader.may_write(1.0 + LEASE_DURATION_S)


def test_the_leader_goes_on_while_there_is_no_answer() -> None:
    leader = leading()
    for now in range(2, 300, 4):
        leader.failed(float(now))
        step = leader.next(float(now))
        assert isinstance(step, Wait)
        assert now < step.until_s <= now + RENEW_INTERVAL_S
        assert leader.next(step.until_s) == Read()
    assert leader.is_leader
    assert not leader.may_write(300.0)


def test_the_leader_steps_down_when_it_sees_another() -> None:
    leader = leading(version=10)
    leader.observed(lease("other", 11), 1.0)
    assert not leader.is_leader
    assert not leader.may_write(1.0)


def test_what_a_watch_tells_late_unseats_nobody() -> None:
    candidate = election()
    candidate.observed(lease("other", 9), 0.0)
    candidate.wrote(lease("me", 11), sent_at_s=20.0, now=20.1)
    candidate.observed(lease("other", 10), 20.2)
    assert candidate.is_leader


def test_an_acknowledgement_that_comes_after_the_next_holder_makes_no_leader() -> None:
    candidate = election()
    candidate.observed(lease("", 10), 0.0)
    candidate.observed(lease("other", 12), 1.0)
    candidate.wrote(lease("me", 11), sent_at_s=0.5, now=1.1)
    assert not candidate.is_leader


def test_a_leader_whose_lease_was_freed_or_deleted_takes_it_again_and_writes_nothing() -> None:
    for seen in (lease("", 11), None):
        leader = leading(version=10)
        leader.observed(seen, 1.0)
        assert leader.is_leader
        assert not leader.may_write(1.0)
        assert isinstance(leader.next(1.0), Write)


def test_after_a_conflict_any_version_will_do() -> None:
    leader = leading(version=1000)
    leader.conflicted(2.0)
    assert leader.next(2.0 + JITTER_S) == Read()
    leader.observed(lease("other", 500), 2.1)  # the cluster was restored from a backup
    assert not leader.is_leader


def test_a_server_that_wants_to_be_left_alone_is_but_not_for_long() -> None:
    candidate = election()
    candidate.failed(0.0, retry_after_s=5.0)
    assert candidate.next(0.0) == Wait(5.0)
    candidate.failed(0.0, retry_after_s=3600.0)
    assert candidate.next(0.0) == Wait(10.0)


def test_who_is_not_allowed_asks_seldom_whatever_it_sees() -> None:
    candidate = election()
    candidate.observed(lease("", 10), 0.0)
    candidate.refused(1.0)
    candidate.observed(lease("", 11, renewed="r1"), 2.0)
    step = candidate.next(2.0)
    assert isinstance(step, Wait)
    assert step.until_s >= 31.0


# ---- giving it away ----


def test_who_resigns_leads_no_more_and_frees_the_lease() -> None:
    leader = leading(version=10)
    leader.resign()
    assert not leader.is_leader
    assert not leader.may_write(0.0)
    vacancy = leader.vacancy()
    assert vacancy is not None
    assert (vacancy.holder, vacancy.version, vacancy.transitions) == ("", "10", 3)
    leader.wrote(lease("me", 11), sent_at_s=0.0, now=0.1)  # a renewal that was under way
    assert not leader.is_leader
    leader.wrote(lease("", 12), sent_at_s=0.2, now=0.3)
    assert leader.vacancy() is None
    assert leader.next(99.0) == Wait(inf)


def test_who_does_not_hold_the_lease_has_nothing_to_give_away() -> None:
    candidate = election()
    candidate.observed(lease("other", 10), 0.0)
    candidate.resign()
    assert candidate.vacancy() is None


# ---- all together ----


def settled(candidates: int = 3) -> World:
    world = World(candidates=candidates, faults=[])
    world.run(10.0)
    assert len(world.leaders) == 1
    assert world.leaders == world.writers
    return world


def test_another_leads_within_the_duration_and_an_interval_of_a_kill() -> None:
    for seed in range(20):
        world = World(candidates=4, faults=[], seed=seed)
        world.run(10.0 + seed / 10)
        [leader] = world.leaders
        world.named(leader).is_alive = False
        took_s = world.run_until_led()
        assert took_s <= LEASE_DURATION_S + RENEW_INTERVAL_S
        world.run(world.now + 1.0)
        assert len(world.leaders) == 1


def test_another_leads_at_once_when_the_leader_resigns() -> None:
    world = settled()
    [leader] = world.leaders
    world.named(leader).resign()
    assert world.run_until_led() <= JITTER_S + 8 * LATENCY_S
    assert world.leaders != [leader]


def test_a_process_that_comes_back_takes_up_what_it_had() -> None:
    world = settled()
    [leader] = world.leaders
    world.named(leader).start()
    assert not world.leaders
    world.named(leader).act()
    assert world.run_until_led() <= 10 * LATENCY_S
    assert world.leaders == [leader]


def test_a_lease_that_somebody_deletes_changes_nobodys_part() -> None:
    world = settled()
    leaders = world.leaders
    world.delete()
    world.run(world.now + 30.0)
    assert world.leaders == world.writers == leaders


@pytest.mark.parametrize("away_s", [5.0, 7.0, 9.0, 300.0])
def test_the_server_away_for_a_while_changes_nobodys_part(away_s: float) -> None:
    for seed in range(10):
        world = World(candidates=3, faults=[Fault("cut", -1, 10.0, 10.0 + away_s)], seed=seed)
        world.run(10.0)
        leaders = world.leaders
        assert len(leaders) == 1
        world.run(9.9 + away_s)
        assert world.leaders == leaders
        assert not world.writers or away_s < LEASE_DURATION_S
        world.run(world.now + 30.0)
        assert world.leaders == world.writers == leaders


def test_a_leader_that_has_died_while_the_server_was_away_is_replaced() -> None:
    world = World(candidates=3, faults=[Fault("cut", -1, 10.0, 60.0)])
    world.run(20.0)
    world.named(world.leaders[0]).is_alive = False
    world.run(60.0)
    assert world.run_until_led() <= LEASE_DURATION_S + RENEW_INTERVAL_S


def test_few_requests_are_made_at_rest() -> None:
    world = settled()
    before = len(world.writes)
    world.run(world.now + 60.0)
    assert 28 <= len(world.writes) - before <= 31
    assert sum(each.request for each in world.candidates) <= len(world.writes) + 8


KINDS = ("cut", "deaf", "late", "errors", "half-open", "unwatched", "paused")
HORIZON_S = 90.0


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    begins_s = draw(st.floats(0.0, 80.0))
    length_s = draw(st.floats(0.1, 30.0))
    kind = draw(st.sampled_from(KINDS))
    return Fault(kind, draw(st.integers(-1, 2)), begins_s, min(HORIZON_S, begins_s + length_s))


@settings(max_examples=150)
@given(st.lists(faults(), max_size=8), st.integers(0, 1000))
def test_never_two_may_write_and_one_leads_in_the_end(history: list[Fault], seed: int) -> None:
    world = World(candidates=3, faults=history, seed=seed)

    def check() -> None:
        assert len(world.writers) <= 1

    world.run(HORIZON_S, check)
    world.run(HORIZON_S + TIMEOUT_S + LEASE_DURATION_S + 2 * RENEW_INTERVAL_S, check)
    assert len(world.leaders) == 1
    assert world.leaders == world.writers
