"""Affinity by the ids that clients give their sessions."""

from collections.abc import Mapping
from typing import Any

import pytest

from epp.core.gate import Ending
from epp.core.pool import Lease, Pool
from epp.core.request import Request
from epp.core.scheduling.session.bindings import Bindings

from .support import NOW, candidates_of, make, pool_of, request_of


def _of(session: str) -> Request:
    return request_of(headers={"x-session-id": session})


def _ended(status: int) -> Ending:
    return Ending(status=status, cause="complete", duration_s=1.0, response_bytes=None)


class _World:
    """A pool whose changes a filter hears of."""

    def __init__(self, endpoints: int = 3, **config: Any) -> None:
        self.pool: Pool = pool_of(0)
        parameters = {"strategy": "session_id", "sessionIdConfig": config}
        self.plugin: Any = make("session-affinity-filter", parameters)
        self.pool.on_joined = lambda slot: self.plugin.joined(self.pool, slot)
        self.pool.on_freed = lambda slot: self.plugin.freed(slot)
        self.all = [pool_of(endpoints).endpoint(slot) for slot in range(endpoints)]
        self.pool.apply(self.all)

    def place(self, session: str, slot: int, now: float = NOW) -> Lease:
        lease = self.pool.lease(slot)
        self.plugin.placed(_of(session), lease, now)
        return lease

    def move(self, session: str, lease: Lease, slot: int) -> None:
        from_slot = lease.slot
        assert lease.move(self.pool.endpoint(slot).destination)
        self.plugin.moved(_of(session), lease, from_slot, NOW)

    def bound(self, session: str, now: float = NOW) -> int | None:
        """Return the slot that the session is bound to."""
        kept = self.plugin.filter(candidates_of(self.pool, _of(session), now=now)).tolist()
        slots = self.pool.active.nonzero()[0].tolist()
        return None if all(kept) else int(slots[kept.index(True)])


def test_a_session_is_bound_to_where_it_began() -> None:
    world = _World()
    assert world.bound("a") is None
    world.place("a", 1)
    world.place("b", 2)
    assert (world.bound("a"), world.bound("b"), world.bound("c")) == (1, 2, None)
    assert world.place("a", 1).response_headers == ()


def test_without_an_id_nothing_is_bound() -> None:
    world = _World()
    world.place(" ", 1)
    assert world.bound("") is None
    assert world.bound(" ") is None


def test_the_scorer_prefers_it() -> None:
    pool = pool_of(2)
    scorer = make("session-affinity-scorer", {"strategy": "session_id"})
    for slot in range(2):
        scorer.joined(pool, slot)
    scorer.placed(_of("a"), pool.lease(1), NOW)
    assert scorer.score(candidates_of(pool, _of("a"))).tolist() == [0.0, 1.0]
    assert scorer.score(candidates_of(pool, _of("b"))).tolist() == [0.0, 0.0]


def test_who_is_outvoted_or_full_keeps_its_sessions() -> None:
    world = _World()
    world.place("a", 1)
    kept = world.plugin.filter(candidates_of(world.pool, _of("a"), slots=[0, 2]))
    assert kept.tolist() == [True, True]
    world.place("a", 2)
    assert world.bound("a") == 1


def test_a_session_moves_when_its_endpoint_has_left_the_pool() -> None:
    world = _World()
    lease = world.place("a", 1)
    world.pool.apply([world.all[0], world.all[2]])  # the lease holds the slot
    assert world.bound("a") is None
    world.place("a", 2)
    assert world.bound("a") == 2
    lease.release()
    world.pool.apply(world.all)
    assert world.bound("a") == 2


def test_a_session_is_still_bound_when_its_endpoint_comes_back_before_it_asked() -> None:
    world = _World()
    world.place("a", 1).release()
    world.pool.apply([world.all[0], world.all[2]])
    world.pool.apply([world.all[0], world.all[2], *world.all[1:2]])
    assert world.pool.endpoint(world.bound("a") or 0).name == "default/server-1"


def test_a_session_follows_the_fail_over_of_its_own_endpoint_alone() -> None:
    world = _World()
    first = world.place("a", 0)
    world.move("a", first, 1)
    assert world.bound("a") == 1
    astray = world.place("a", 2)
    world.move("a", astray, 0)
    assert world.bound("a") == 1
    world.move("a", first, 2)
    assert world.bound("a") == 2


@pytest.mark.parametrize(
    ("status", "bound"), [(200, 1), (429, 1), (500, 1), (502, None), (503, None), (504, None)]
)
def test_who_could_not_serve_is_not_tried_again(status: int, bound: int | None) -> None:
    world = _World()
    lease = world.place("a", 1)
    world.plugin.ended(_of("a"), lease, _ended(status), NOW)
    assert world.bound("a") == bound


def test_another_s_failure_is_not_its_endpoint_s() -> None:
    world = _World()
    world.place("a", 1)
    world.plugin.ended(_of("a"), world.place("a", 2), _ended(503), NOW)
    assert world.bound("a") == 1


def test_what_runs_where_nobody_knows_is_not_bound() -> None:
    world = _World()
    world.plugin.placed(_of("a"), world.pool.adopt("192.0.2.1:80"), NOW)
    assert world.bound("a") is None
    world.place("a", 1)
    assert world.bound("a") == 1


def test_a_binding_ends_when_it_was_not_used_for_long() -> None:
    world = _World(evictionTtlSeconds=10)
    world.place("a", 1, NOW)
    world.place("a", 2, NOW + 9)  # astray, and in use
    assert world.bound("a", NOW + 18.9) == 1
    assert world.bound("a", NOW + 19) is None
    world.place("a", 2, NOW + 19)
    assert world.bound("a", NOW + 19) == 2


def test_bindings_last_300_s_unless_told_otherwise() -> None:
    configs: list[dict[str, Any]] = [{}, {"evictionTtlSeconds": 0}]
    for config in configs:
        world = _World(**config)
        world.place("a", 1)
        assert (world.bound("a", NOW + 299.9), world.bound("a", NOW + 300)) == (1, None)


def test_bindings_are_bounded_and_the_one_goes_that_was_not_used_for_longest() -> None:
    world = _World(maxSessions=3)
    for session in ("a", "b", "c", "a", "d"):
        world.place(session, 1)
    assert [world.bound(session) for session in "abcd"] == [1, None, 1, 1]


def test_bindings_that_have_ended_are_dropped() -> None:
    fleeting = Bindings(ttl_s=1e-9)
    fleeting.bind("s", "a", 1e9)  # so late that its end is the same number
    assert not len(fleeting)
    bindings = Bindings(ttl_s=10.0)
    for number in range(5):
        bindings.bind(f"session {number}", "server", float(number))
    bindings.bind("x" * 1000, "server", 12.5)
    assert len(bindings) == 3
    bindings.forget("x" * 1000)
    bindings.forget("never heard of")
    assert len(bindings) == 2


def test_a_new_configuration_keeps_the_bindings() -> None:
    former, world = _World(), _World(maxSessions=2)
    for session in "abcd":
        former.place(session, 1)
    world.plugin.succeed(former.plugin)
    assert world.bound("a") == 1
    world.place("e", 2)
    assert [world.bound(session) for session in "acde"] == [None, None, 1, 2]
    by_token = make("session-affinity-filter")
    by_token.succeed(world.plugin)
    world.plugin.succeed(by_token)
    world.plugin.succeed(make("session-id-producer", {"headerName": "x"}))
    assert world.bound("e") == 2


# Where ids come from


def _session_id(parameters: Mapping[str, object], headers: Mapping[str, str]) -> object:
    producer = make("session-id-producer", parameters)
    wanted = {name: headers[name] for name in producer.wanted_headers if name in headers}
    request = request_of(headers=wanted)
    assert producer.produce(candidates_of(pool_of(1), request)) == producer.session_id(request)
    return producer.session_id(request)


@pytest.mark.parametrize(
    ("parameters", "headers", "expected"),
    [
        ({"headerName": "X-Chat"}, {"x-chat": " one "}, "one"),
        ({"headerName": "X-Chat"}, {}, ""),
        ({"cookieName": "sid"}, {"cookie": "a=1; sid=two=2; sid=3"}, "two=2"),
        ({"cookieName": "sid"}, {"cookie": 'sid="three"'}, "three"),
        ({"cookieName": "sid"}, {"cookie": "SID=1; xsid=2; sid"}, ""),
        ({"cookieName": "sid"}, {}, ""),
    ],
)
def test_ids_come_from_a_header_or_a_cookie(
    parameters: dict[str, str], headers: dict[str, str], expected: str
) -> None:
    assert _session_id(parameters, headers) == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "found neither of headerName and cookieName; expected one"),
        ({"headerName": "a", "cookieName": "b"}, "found both of headerName and cookieName"),
        ({"headerName": "a:"}, "found headerName 'a:'; expected the name of a header"),
    ],
)
def test_there_is_one_place_for_the_id(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("session-id-producer", parameters)


def _with_sources(*sources: Mapping[str, str], **plugins: Any) -> Any:
    parameters = {"strategy": "session_id", "sessionIdConfig": {"sources": sources}}
    return make("session-affinity-scorer", parameters, **plugins)


def test_the_first_source_with_an_id_counts() -> None:
    chat = make("session-id-producer", {"cookieName": "chat"})
    plugin = _with_sources(
        {"header": "X-First"}, {"attribute": "SessionIDDataKey", "producer": "chat"}, chat=chat
    )
    assert plugin.wanted_headers == ("x-first", "cookie")
    pool = pool_of(2)
    for slot in range(2):
        plugin.joined(pool, slot)
    plugin.placed(request_of(headers={"x-first": " ", "cookie": "chat=a"}), pool.lease(1), NOW)
    for headers in ({"x-first": "a"}, {"cookie": "chat=a"}, {"x-first": "a", "cookie": "chat=b"}):
        scores = plugin.score(candidates_of(pool, request_of(headers=headers)))
        assert scores.tolist() == [0.0, 1.0]
    other = request_of(headers={"x-first": "b", "cookie": "chat=a"})
    assert plugin.score(candidates_of(pool, other)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, r"found neither of header and attribute in sessionIdConfig.sources\[0\]"),
        ({"header": "a", "attribute": "b"}, "found both of header and attribute"),
        ({"attribute": "agent-identity"}, 'expected "SessionIDDataKey"'),
        (
            {"attribute": "SessionIDDataKey", "producer": "cache"},
            r'sources\[0\].producer "cache"; expected the name of a session-id-producer',
        ),
        ({"header": "a b"}, r"found sessionIdConfig.sources\[0\].header 'a b'"),
    ],
)
def test_sources_that_are_none_are_refused(source: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _with_sources(source, cache=object())


@pytest.mark.parametrize(
    "config", [{"evictionTtlSeconds": -1}, {"evictionSweepSeconds": -1}, {"maxSessions": 0}]
)
def test_numbers_out_of_range_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        _World(**config)
