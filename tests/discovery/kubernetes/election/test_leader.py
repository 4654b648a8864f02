"""Electors and the API server: what they ask, what they make of the answers, what they tell."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

from epp.errors import UsageError
from tests.apiserver import lease as lease_object
from tests.discovery.kubernetes.election.electors import (
    DURATION_S,
    INTERVAL_S,
    NAME,
    Electors,
    elector,
    electors,
    now_s,
)
from tests.discovery.kubernetes.election.lease_api import LATENCY_S, LeaseApi, LeaseConnection
from tests.engines.virtual_time import run_virtual

if TYPE_CHECKING:
    from epp.discovery.kubernetes.api.connection import ClusterConnection


def test_the_first_leads_and_the_others_follow_with_few_requests() -> None:
    async def main() -> None:
        async with electors("a", "b", "c") as all_of:
            await asyncio.sleep(1.0)
            all_of.api.asked.clear()
            await asyncio.sleep(60.0)
            assert all_of.leaders == ["a"]
            assert all_of.all["a"].may_write
            assert all_of.told == {"a": [True], "b": [], "c": []}
            assert [all_of.all[name].holder for name in "abc"] == ["a", "a", "a"]
            assert set(all_of.api.asked) == {"update"}  # the watches go on
            assert 28 <= len(all_of.api.asked) <= 31

    run_virtual(main())


def test_an_orderly_release_is_taken_up_at_once() -> None:
    async def main() -> None:
        async with electors("a", "b", "c") as all_of:
            await asyncio.sleep(10.0)
            await all_of.all["a"].release()
            assert not all_of.all["a"].is_leader
            assert all_of.tasks["a"].done() or await asyncio.wait_for(all_of.tasks["a"], 1) is None
            leader, took_s = await all_of.leader()
            assert leader in ("b", "c")
            assert took_s < 0.1
            assert all_of.told["a"] == [True, False]
            assert all_of.all[leader].transitions == 1

    run_virtual(main())


def test_after_a_kill_another_leads_when_the_lease_has_run_out() -> None:
    async def main() -> None:
        async with electors("a", "b", "c") as all_of:
            await asyncio.sleep(9.0)
            await all_of.kill("a")
            _, took_s = await all_of.leader()
            assert DURATION_S - INTERVAL_S < took_s <= DURATION_S + INTERVAL_S
            await asyncio.sleep(10.0)
            assert len(all_of.leaders) == 1

    run_virtual(main())


@pytest.mark.parametrize("refused", [["watch"], ["list", "watch"]])
def test_a_release_is_seen_without_a_watch_too(refused: list[str]) -> None:
    async def main() -> None:
        async with electors("a") as all_of:
            deaf = LeaseConnection(all_of.api)
            deaf.refuses = dict.fromkeys(refused, 403)
            all_of.start("b", deaf)
            await asyncio.sleep(10.0)
            assert all_of.leaders == ["a"]
            await all_of.all["a"].release()
            _, took_s = await all_of.leader()
            assert took_s <= INTERVAL_S + 1.0

    run_virtual(main())


def test_a_watch_that_has_fallen_silent_is_soon_replaced() -> None:
    async def main() -> None:
        async with electors("a", "b") as all_of:
            await asyncio.sleep(10.0)
            all_of.connections["b"].generation += 1
            await asyncio.sleep(2 * DURATION_S + INTERVAL_S + 1.0)
            await all_of.all["a"].release()
            _, took_s = await all_of.leader()
            assert took_s < 0.1

    run_virtual(main())


def test_a_watch_that_is_silent_takes_nothing_from_the_holder() -> None:
    async def main() -> None:
        async with electors("a") as all_of:
            deaf = LeaseConnection(all_of.api)
            deaf.is_silent = True
            all_of.start("b", deaf)
            await asyncio.sleep(120.0)
            assert all_of.leaders == ["a"]
            assert all_of.told == {"a": [True], "b": []}
            assert all_of.all["b"].results["conflict"] > 0

    run_virtual(main())


def test_without_an_api_server_the_leader_goes_on_and_the_others_wait() -> None:
    async def main() -> None:
        async with electors("a", "b") as all_of:
            await asyncio.sleep(10.0)
            for connection in all_of.connections.values():
                connection.is_cut = True
            await asyncio.sleep(DURATION_S)
            assert all_of.all["a"].is_leader
            assert not all_of.all["a"].may_write
            await asyncio.sleep(300.0)
            assert all_of.leaders == ["a"]
            for connection in all_of.connections.values():
                connection.is_cut = False
            await asyncio.sleep(DURATION_S + INTERVAL_S)
            assert len(all_of.leaders) == 1
            assert all_of.all[all_of.leaders[0]].may_write

    run_virtual(main())


def test_a_leader_that_alone_is_cut_off_steps_down_once_it_sees_the_other() -> None:
    async def main() -> None:
        async with electors("a", "b") as all_of:
            await asyncio.sleep(10.0)
            all_of.connections["a"].is_cut = True
            await asyncio.sleep(2 * DURATION_S)
            assert all_of.leaders == ["a", "b"]  # the one case in which two serve
            assert [each.may_write for each in all_of.all.values()] == [False, True]
            all_of.connections["a"].is_cut = False
            await asyncio.sleep(INTERVAL_S + 4 * LATENCY_S)
            assert all_of.leaders == ["b"]

    run_virtual(main())


def test_a_lease_that_is_deleted_is_made_again_by_who_led() -> None:
    async def main() -> None:
        async with electors("a", "b") as all_of:
            await asyncio.sleep(10.0)
            all_of.api.delete()
            await asyncio.sleep(0.1)
            assert all_of.api.holder == "a"
            assert all_of.leaders == ["a"]
            assert all_of.all["a"].may_write

    run_virtual(main())


def test_a_lease_whose_deletion_was_not_seen_is_made_again_with_the_next_renewal() -> None:
    async def main() -> None:
        async with electors("a") as all_of:
            all_of.connections["a"].is_silent = True
            await asyncio.sleep(3.0)
            all_of.api.delete()
            await asyncio.sleep(INTERVAL_S + 0.1)
            assert all_of.api.holder == "a"
            assert all_of.told["a"] == [True]

    run_virtual(main())


@pytest.mark.parametrize("verb", ["get", "create", "update"])
def test_who_may_not_is_told_once_which_verb_is_missing(
    verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        all_of = Electors()
        if verb != "create":
            all_of.api.store(lease_object(NAME, "", "2026-01-01T00:00:00.000000Z"))
        connection = LeaseConnection(all_of.api)
        for refused in (verb, "list", "watch") if verb == "get" else (verb,):
            connection.refuses[refused] = 403
        all_of.start("a", connection)
        await asyncio.sleep(100.0)
        assert all_of.leaders == []
        assert 3 <= all_of.all["a"].results["refused"] <= 4
        connection.refuses.clear()
        await asyncio.sleep(40.0)
        assert all_of.leaders == ["a"]
        await all_of.stop()

    with caplog.at_level(logging.WARNING, "epp.discovery.kubernetes.election.leader"):
        run_virtual(main())
    [line] = [r.message for r in caplog.records if r.name.endswith("leader")]
    assert f"may not {verb} leases of coordination.k8s.io in namespace default" in line


def test_a_release_without_an_answer_ends_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with electors("a") as all_of:
            all_of.connections["a"].is_cut = True
            releasing = asyncio.create_task(all_of.all["a"].release())
            await asyncio.sleep(0.001)
            assert all_of.told["a"] == [True, False]
            await releasing
            assert not all_of.all["a"].is_leader
            assert now_s() < 2 * DURATION_S

    run_virtual(main())
    assert "could not be released" in caplog.text


def test_no_answer_in_time_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(_verb: str) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with electors("a") as all_of:
            monkeypatch.setattr(all_of.connections["a"], "_ask", hang)
            await asyncio.sleep(2 * DURATION_S)

    run_virtual(main())
    assert "leader election: unreachable: no answer in time" in caplog.text


def test_what_is_no_lease_makes_no_leader() -> None:
    async def main() -> None:
        all_of = Electors()
        all_of.api.lease = {"metadata": {"name": NAME, "resourceVersion": "10"}, "spec": 7}
        all_of.start("a")
        await asyncio.sleep(10.0)
        assert all_of.leaders == []
        assert all_of.all["a"].results["error"] > 2
        await all_of.stop()

    run_virtual(main())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"renew_interval_s": 4.1}, "found a renew interval of 4.1 s"),
        ({"renew_interval_s": 0.0}, "found a renew interval of 0 s"),
        ({"lease_duration_s": 0.5}, "found a lease duration of 0.5 s"),
        ({"identity": ""}, "found no identity"),
    ],
)
def test_times_that_cannot_work_are_refused(options: dict[str, Any], problem: str) -> None:
    connection = cast("ClusterConnection", LeaseConnection(LeaseApi()))
    with pytest.raises(UsageError, match=problem):
        elector(connection, options.pop("identity", "a"), **options)
