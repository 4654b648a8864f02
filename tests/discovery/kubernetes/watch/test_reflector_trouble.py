"""How a reflector goes on where it may not, or where there was nobody for long."""

import logging
import random
from pathlib import Path

import pytest
from aiohttp import web

from epp.discovery.kubernetes.watch.pace import Pace
from tests.discovery.kubernetes.following import following
from tests.discovery.kubernetes.scripted import (
    ScriptedServer,
    event,
    listed,
    refusal,
    thing,
    watched,
)


class Highest(random.Random):
    """Draws what is longest."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


async def gone(request: web.Request) -> web.StreamResponse:
    """No answer: the connection is cut."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_what_is_not_needed_and_forbidden_is_empty_until_it_is_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    no = refusal(403, "Forbidden")
    async with (
        ScriptedServer(no, no, no, no, listed(10, thing("a", 4)), watched(), no) as server,
        following(server, tmp_path, is_needed=False, watch_lasts_s=0.0) as seen,
    ):
        await server.exhausted()
        assert seen.told == [({}, []), ({"a": 0}, [])]
        assert len(seen.pauses_s) == 6
        assert "may not list it, so there is nothing of it here: expected" in caplog.text


async def test_one_refusal_is_not_believed(tmp_path: Path) -> None:
    no = refusal(403, "Forbidden")
    async with (
        ScriptedServer(no, no, listed(10, thing("a", 4))) as server,
        following(server, tmp_path, is_needed=False) as seen,
    ):
        await server.exhausted()
        assert seen.told == [({"a": 0}, [])]


async def test_silence_alone_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a kind that nobody changes an API server may say nothing at all, not even by bookmarks."""
    caplog.set_level(logging.INFO, logger="epp")
    silent = watched(ends="silent")
    async with (
        ScriptedServer(listed(10), silent, silent, silent) as server,
        following(server, tmp_path, pace=Pace(idle_limit_s=0.05)) as seen,
    ):
        await server.exhausted()
        assert seen.reflector.statistics.restarts["silent"] == 3
        assert max(seen.pauses_s) <= 0.8
        assert caplog.records == []


async def test_versions_that_went_back_in_an_outage_are_noticed(tmp_path: Path) -> None:
    """Of a version that is still to come a watch says nothing, for as long as that takes."""
    async with (
        ScriptedServer(
            listed(50, thing("a", 40), thing("b", 30)),
            *[gone] * 2,
            listed(33, thing("b", 30), next_page="next"),
            listed(33, thing("b", 30)),
        ) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert [query.get("limit") for query in server.queries[-3:]] == ["1", "500", None]
        assert server.queries[-1]["resourceVersion"] == "33"
        assert seen.values == {"b": 0}


async def test_after_an_outage_the_watch_goes_on_where_versions_did(tmp_path: Path) -> None:
    async with (
        ScriptedServer(listed(50, thing("a", 40)), *[gone] * 2, listed(50)) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert server.queries[-2] == {"limit": "1"}
        assert server.queries[-1]["resourceVersion"] == "50"
        assert seen.told == [({"a": 0}, [])]
        assert seen.reflector.statistics.relists == 0


async def test_after_an_outage_it_waits_no_longer_than_it_must(tmp_path: Path) -> None:
    """Pauses have grown to 30 s; the first answer shows that nobody is to be spared any more."""
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    expired = watched(event("ERROR", status))
    async with (
        ScriptedServer(
            listed(10),
            *[gone] * 20,
            refusal(503, "ServiceUnavailable"),
            listed(10),
            expired,
            listed(30),
            *[expired, listed(30)] * 3,
        ) as server,
        following(
            server, tmp_path, pace=Pace(relist_spread_s=0.0), rng=Highest(), watch_lasts_s=0.0
        ) as seen,
    ):
        await server.exhausted()
        # One that forgets again and again is no better than one that does not answer.
        assert seen.pauses_s[-6:] == [30.0, 4.0, 0.8, 1.6, 3.2, 6.4]
