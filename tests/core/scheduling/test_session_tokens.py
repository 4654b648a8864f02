"""Affinity by tokens that clients carry."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.pool import Pool
from epp.core.resources import Endpoint
from epp.core.scheduling.session import SessionTokens

from .support import NOW, PluginsByName, candidates_of, make, pool_of, request_of

_KEY = b"a key of 16 byte"


def _token(name: str, path: str = "") -> str:
    return SessionTokens("any", PluginsByName().secret(path)).token(name)


def _joined(type_: str, pool: Pool, **parameters: object) -> Any:
    plugin = make(type_, parameters)
    for slot in pool.active.nonzero()[0].tolist():
        plugin.joined(pool, slot)
    return plugin


def _kept(plugin: Any, pool: Pool, token: str, slots: Sequence[int] | None = None) -> list[bool]:
    request = request_of(headers={"x-session-token": token})
    kept: list[bool] = plugin.filter(candidates_of(pool, request, slots=slots)).tolist()
    return kept


def test_a_token_is_the_beginning_of_a_keyed_hash() -> None:
    token = SessionTokens("x-session-token", _KEY).token("default/server-0")
    digest = hmac.new(_KEY, b"default/server-0", hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(token + "==") == digest[:16]
    assert len(token) == 22


def test_replicas_with_the_same_key_make_the_same_tokens_and_nobody_else_does() -> None:
    name = "default/server-0"
    other = SessionTokens("another-header", _KEY)
    assert SessionTokens("x", _KEY).token(name) == other.token(name)
    assert SessionTokens("x", b"another 16 bytes").token(name) != other.token(name)
    assert other.token("default/server-1") != other.token(name)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="a key of 15 bytes; expected at least 16"):
        SessionTokens("x", _KEY[:15])


def test_the_endpoint_of_the_token_is_preferred() -> None:
    pool = pool_of(3)
    token = _token("default/server-1")
    request = request_of(headers={"x-session-token": token})
    scorer = _joined("session-affinity-scorer", pool)
    assert scorer.score(candidates_of(pool, request)).tolist() == [0.0, 1.0, 0.0]
    assert scorer.score(candidates_of(pool, request, slots=[2, 1])).tolist() == [0.0, 1.0]
    assert _kept(_joined("session-affinity-filter", pool), pool, token) == [False, True, False]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "default/server-1",
        base64.b64encode(b"default/server-1").decode(),
        _token("default/server-1", path="/another"),
        _token("default/server-9"),
        _token("default/server-1")[:-1],
    ],
)
def test_what_is_no_token_of_the_pool_prefers_none(token: str) -> None:
    pool = pool_of(3)
    request = request_of(headers={"x-session-token": token})
    scorer = _joined("session-affinity-scorer", pool)
    assert scorer.score(candidates_of(pool, request)).tolist() == [0.0] * 3
    assert _kept(_joined("session-affinity-filter", pool), pool, token) == [True] * 3


def test_without_a_token_there_is_no_preference() -> None:
    pool = pool_of(2)
    scorer = _joined("session-affinity-scorer", pool)
    assert scorer.score(candidates_of(pool)).tolist() == [0.0, 0.0]


def test_while_its_endpoint_is_full_a_session_goes_elsewhere() -> None:
    pool = pool_of(3)
    plugin = _joined("session-affinity-filter", pool)
    assert _kept(plugin, pool, _token("default/server-1"), slots=[0, 2]) == [True, True]


def test_the_response_carries_the_token_of_the_endpoint_once() -> None:
    pool = pool_of(2)
    lease = pool.lease(1)
    lease.response_headers = ((b"another", b"header"),)
    for type_ in ("session-affinity-scorer", "session-affinity-filter"):
        _joined(type_, pool).placed(request_of(), lease, NOW)
    token = _token("default/server-1").encode()
    assert lease.response_headers == ((b"another", b"header"), (b"x-session-token", token))


def test_header_and_key_can_be_chosen() -> None:
    config = {"header": " X-Where ", "keyFile": "/key"}
    pool = pool_of(1)
    plugin = _joined("session-affinity-scorer", pool, encodedEndpointHeaderConfig=config)
    lease = pool.lease(0)
    plugin.placed(request_of(), lease, NOW)
    token = _token("default/server-0", path="/key")
    assert lease.response_headers == ((b"x-where", token.encode()),)
    assert plugin.wanted_headers == ("x-where",)
    request = request_of(headers={"x-where": token})
    assert plugin.score(candidates_of(pool, request)).tolist() == [1.0]


def test_a_name_that_no_header_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encodedEndpointHeaderConfig.header ':path'"):
        make("session-affinity-scorer", {"encodedEndpointHeaderConfig": {"header": ":path"}})


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(
        st.frozensets(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=5), max_size=8
    )
)
def test_tokens_follow_names_through_every_change_of_the_pool(
    steps: list[frozenset[tuple[int, int]]],
) -> None:
    pool = Pool(max_concurrency=5)
    plugin = make("session-affinity-filter")
    pool.on_joined = pool.on_changed = lambda slot: plugin.joined(pool, slot)
    pool.on_freed = plugin.freed
    leases = []
    for step in steps:
        names = dict(step)  # each name at one address
        addresses = {address: name for name, address in names.items()}
        pool.apply(
            Endpoint(name=f"pod-{name}", address=f"10.0.0.{address}", port=1)
            for address, name in addresses.items()
        )
        for name in range(5):
            is_there = name in addresses.values()
            kept = _kept(plugin, pool, _token(f"pod-{name}"))
            found = [
                pool.endpoint(slot).name
                for slot, is_kept in zip(pool.active.nonzero()[0].tolist(), kept, strict=True)
                if is_kept
            ]
            expected = [f"pod-{name}"] if is_there else [f"pod-{n}" for n in addresses.values()]
            assert sorted(found) == sorted(expected)
        while len(leases) > 2:
            leases.pop(0).release()
        leases += [pool.lease(slot) for slot in pool.active.nonzero()[0].tolist()]
