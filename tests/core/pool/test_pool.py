"""The pool against plain dictionaries: membership, leases and moves in any order."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epp.core.pool import EngineLoad, Lease, Pool
from epp.core.resources import Endpoint

from ..support import destination, endpoint

_NUMBERS = st.integers(min_value=1, max_value=30)
_LIMIT = 3


class PoolMachine(RuleBasedStateMachine):
    """What is in flight where is always the sum of the leases, whoever joins or leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(max_concurrency=_LIMIT)
        self.members: dict[str, dict[str, str]] = {}
        self.leases: list[tuple[Lease, str]] = []
        self.versions = [0]
        self.kept: dict[int, dict[str, str]] = {}
        self.kept_version = -1

    def _in_flight(self, where: str) -> int:
        return sum(at == where for _, at in self.leases)

    def _slot(self, where: str) -> int:
        (slots,) = self.pool.mask_of([where]).nonzero()
        assert len(slots) == 1
        return int(slots[0])

    @rule(numbers=st.sets(_NUMBERS, max_size=30), zone=st.sampled_from(["", "a", "b"]))
    def apply(self, numbers: set[int], zone: str) -> None:
        labels = {"zone": zone} if zone else {}
        wanted = {destination(number): labels for number in numbers}
        changed = self.pool.apply([endpoint(number, **labels) for number in sorted(numbers)])
        assert changed == (wanted != self.members)
        assert self.pool.version == self.versions[-1] + changed
        self.versions.append(self.pool.version)
        self.members = wanted

    @rule(
        present=st.sets(_NUMBERS, max_size=5),
        gone=st.sets(_NUMBERS, max_size=5),
        zone=st.sampled_from(["", "a", "b"]),
    )
    def update(self, present: set[int], gone: set[int], zone: str) -> None:
        labels = {"zone": zone} if zone else {}
        wanted = {destination(number): labels for number in present}
        leaving = set(map(destination, gone))
        stay = {where: had for where, had in self.members.items() if where not in leaving}
        changed = self.pool.update(
            [endpoint(number, **labels) for number in sorted(present)],
            [destination(number) for number in sorted(gone)],
        )
        assert changed == (bool(leaving & self.members.keys()) or stay | wanted != stay)
        assert self.pool.version == self.versions[-1] + changed
        self.versions.append(self.pool.version)
        self.members = stay | wanted

    @rule()
    def look(self) -> None:
        for slot in self.pool.changed_since(self.kept_version):
            self.kept[slot] = dict(self.pool.endpoint(slot).labels)
        self.kept_version = self.pool.version
        active = self.pool.active.nonzero()[0].tolist()
        assert {slot: self.kept[slot] for slot in active} == {
            slot: self.pool.endpoint(slot).labels for slot in active
        }

    @precondition(lambda self: self.members)
    @rule(index=st.integers(min_value=0), times=st.integers(min_value=1, max_value=4))
    def lease(self, index: int, times: int) -> None:
        where = sorted(self.members)[index % len(self.members)]
        for _ in range(times):
            lease = self.pool.lease(self._slot(where))
            assert lease.endpoint.destination == where
            assert lease.endpoint.labels == self.members[where]
            assert not lease.is_released
            self.leases.append((lease, where))

    @rule(number=_NUMBERS)
    def adopt(self, number: int) -> None:
        where = destination(number)
        lease = self.pool.adopt(where)
        assert lease.endpoint.destination == where
        assert self.pool.version >= self.versions[-1]
        self.versions.append(self.pool.version)
        self.leases.append((lease, where))

    @precondition(lambda self: self.leases)
    @rule(index=st.integers(min_value=0))
    def release(self, index: int) -> None:
        lease, _ = self.leases.pop(index % len(self.leases))
        lease.release()
        assert lease.is_released
        with pytest.raises(AssertionError, match="released twice"):
            lease.release()
        assert not lease.move(destination(1))

    @precondition(lambda self: self.leases)
    @rule(index=st.integers(min_value=0), number=_NUMBERS)
    def move(self, index: int, number: int) -> None:
        index %= len(self.leases)
        lease, where = self.leases[index]
        target = destination(number)
        is_known = target in self.members or self._in_flight(target) > 0
        assert lease.move(target) == (is_known and target != where)
        if is_known:
            self.leases[index] = lease, target
        assert lease.endpoint.destination == self.leases[index][1]

    @invariant()
    def counts_are_the_leases(self) -> None:
        assert self.pool.total_in_flight == len(self.leases)
        assert len(self.pool) == len(self.members)
        assert {member.destination: (count, limit) for member, count, limit in self.pool} == {
            where: (self._in_flight(where), _LIMIT) for where in self.members
        }

    @invariant()
    def masks_are_the_members(self) -> None:
        every = [destination(number) for number in range(1, 31)]
        assert self.pool.mask_of(every).sum() == len(self.members)
        room = {
            member.destination
            for member, in_flight, limit in self.pool
            if self.pool.with_room()[self._slot(member.destination)]
        }
        assert room == {where for where in self.members if self._in_flight(where) < _LIMIT}

    @invariant()
    def slots_are_reused(self) -> None:
        assert len(self.pool.active) <= 32  # 30 endpoints, doubled from 8
        assert self.pool.active.shape == self.pool.in_flight.shape == self.pool.limit.shape


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60)


def _pool(*numbers: int, limit: int = _LIMIT) -> Pool:
    pool = Pool(max_concurrency=limit)
    pool.apply([endpoint(number) for number in numbers])
    return pool


def _load(**attributes: float) -> EngineLoad:
    return EngineLoad(waiting=3, running=1, kv_ratio=0.5, attributes=attributes)


def _told_of(pool: Pool) -> list[tuple[str, str]]:
    """What a pool calls, from now on, with the endpoint that it calls it for."""
    calls: list[tuple[str, str]] = []
    names: dict[int, str] = {}

    def note(call: str, slot: int) -> None:
        if call != "freed":
            names[slot] = pool.endpoint(slot).destination
        calls.append((call, names[slot]))

    pool.on_joined = partial(note, "joined")
    pool.on_changed = partial(note, "changed")
    pool.on_freed = partial(note, "freed")
    return calls


_STATES = st.lists(
    st.dictionaries(_NUMBERS, st.sampled_from(["a", "b"]), max_size=12), min_size=1, max_size=6
)


@settings(max_examples=50)
@given(_STATES)
def test_changes_one_after_another_are_the_same_as_the_whole(states: list[dict[int, str]]) -> None:
    by_changes, as_a_whole = _pool(), _pool()
    told, told_of_the_whole = _told_of(by_changes), _told_of(as_a_whole)
    before: dict[int, str] = {}
    for state in states:
        present = [
            endpoint(number, zone=zone)
            for number, zone in state.items()
            if before.get(number) != zone
        ]
        gone = [destination(number) for number in before if number not in state]
        whole = [endpoint(number, zone=zone) for number, zone in state.items()]
        assert by_changes.update(present, gone) == as_a_whole.apply(whole)
        assert list(by_changes) == list(as_a_whole)
        assert by_changes.version == as_a_whole.version
        assert sorted(told) == sorted(told_of_the_whole)
        before = state


def test_what_is_gone_and_present_is_another_engine() -> None:
    pool = _pool(1)
    told = _told_of(pool)
    pool.scraped(0, _load(), 1.0)
    pool.on_changed(0)  # so that its name is known
    assert pool.update([endpoint(1)], [destination(1)])
    assert told == [(call, destination(1)) for call in ("changed", "freed", "joined")]
    assert pool.told(0) is None


def test_attributes_are_those_told_last_in_whatever_slot() -> None:
    pool = _pool(*range(1, 9))
    pool.scraped(3, _load(heat=3.0), 1.0)
    np.testing.assert_array_equal(pool.attribute("heat"), [np.nan] * 3 + [3.0] + [np.nan] * 4)
    pool.scraped(3, _load(cold=1.0), 2.0)
    pool.reported(4, _load(heat=4.0), 2.0)
    np.testing.assert_array_equal(pool.attribute("heat"), [np.nan] * 4 + [4.0] + [np.nan] * 3)
    pool.update([endpoint(9)], [destination(5)])
    assert pool.slot_of(destination(9)) == 4
    assert np.isnan(pool.attribute("heat")).all()
    pool.update([endpoint(10)], [])
    pool.scraped(8, _load(heat=8.0), 3.0)
    assert pool.attribute("heat").nonzero()[0].tolist() == list(range(16))  # NaN is not 0
    assert np.nansum(pool.attribute("heat")) == 8.0


def test_few_attributes_are_kept() -> None:
    pool = _pool(1)
    for number in range(200):
        pool.attribute(str(number))
    assert len(pool._attributes) <= 64


def test_grows_beyond_its_first_slots_and_keeps_what_runs() -> None:
    pool = _pool(*range(1, 9))
    leases = [pool.lease(slot) for slot in range(8) for _ in range(2)]
    pool.apply([endpoint(number) for number in range(1, 101)])
    assert len(pool) == 100
    assert pool.total_in_flight == 16
    assert pool.limit[np.flatnonzero(pool.active)].tolist() == [_LIMIT] * 100
    for lease in leases:
        lease.release()
    assert pool.total_in_flight == 0


def test_slots_of_the_gone_are_reused() -> None:
    pool = _pool()
    for generation in range(1, 50):
        pool.apply([endpoint(generation * 4 + number) for number in range(8)])
    assert len(pool.active) == 8


def test_an_endpoint_that_left_keeps_its_slot_until_its_last_request_has_ended() -> None:
    pool = _pool(1)
    lease = pool.lease(0)
    pool.apply([endpoint(2)])
    assert {member.destination for member, _, _ in pool} == {destination(2)}
    assert pool.endpoint(0).destination == destination(1)
    assert not pool.mask_of([destination(1)]).any()
    assert pool.total_in_flight == 1
    lease.release()
    with pytest.raises(AssertionError, match="slot 0 holds no endpoint"):
        pool.endpoint(0)


def test_an_endpoint_that_comes_back_still_has_what_runs_there() -> None:
    pool = _pool(1, limit=1)
    lease = pool.lease(0)
    pool.apply([])
    pool.apply([endpoint(1)])
    assert [(in_flight, limit) for _, in_flight, limit in pool] == [(1, 1)]
    assert not pool.with_room().any()
    lease.release()
    assert pool.with_room().tolist() == [True] + [False] * 7


def test_a_lease_may_move_beyond_the_limit() -> None:
    pool = _pool(1, 2, limit=1)
    first, second = pool.lease(0), pool.lease(1)
    assert second.move(destination(1))
    assert [(in_flight, limit) for _, in_flight, limit in pool] == [(2, 1), (0, 1)]
    assert pool.with_room().tolist()[:2] == [False, True]
    first.release()
    second.release()
    assert pool.total_in_flight == 0


def test_what_runs_where_nobody_is_known_is_adopted_and_forgotten() -> None:
    pool = _pool(1, limit=1)
    lease, known = pool.adopt("[fd00::9]:81"), pool.adopt(destination(1))
    assert (lease.endpoint.address, lease.endpoint.port) == ("fd00::9", 81)
    assert (len(pool), pool.total_in_flight) == (1, 2)
    assert not pool.with_room().any()
    assert not pool.mask_of(["[fd00::9]:81"]).any()
    lease.release()
    known.release()
    assert pool._slot_of == {destination(1): 0}


def test_masks_of_before_are_out_of_date_when_adoption_adds_slots() -> None:
    pool = _pool(*range(1, 9))
    version = pool.version
    pool.adopt(destination(9))
    assert len(pool.active) == 16
    assert pool.version > version


@pytest.mark.parametrize(
    "where", ["", "10.0.0.1", "10.0.0.1:x", "10.0.0.1:080", "fd00::1:80", "10.0.0.1: 80"]
)
def test_what_is_no_address_is_not_adopted(where: str) -> None:
    pool = _pool(1)
    with pytest.raises(ValueError, match=r"invalid literal|is no ip:port"):
        pool.adopt(where)
    assert pool.total_in_flight == 0


def test_with_room_narrows_the_candidates() -> None:
    pool = _pool(1, 2, 3, limit=1)
    pool.lease(1)
    candidates = pool.mask_of([destination(2), destination(3), destination(99)])
    assert pool.with_room(candidates).nonzero()[0].tolist() == [2]


def test_ipv6_is_known_by_its_bracketed_form() -> None:
    pool = Pool(max_concurrency=1)
    pool.apply([Endpoint(name="default/six", address="fd00::1", port=80)])
    assert pool.mask_of(["[fd00::1]:80"]).any()
    assert not pool.mask_of(["fd00::1:80"]).any()


def test_counters_never_go_below_zero() -> None:
    pool = _pool(1)
    with pytest.raises(AssertionError, match="more leases were released than taken"):
        pool._release(0, 0)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Pool(max_concurrency=0)
