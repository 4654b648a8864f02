"""Writers of conditions: when they write, how often, what they do when they cannot."""

import asyncio

import msgspec
import pytest

from epp.discovery.kubernetes.api.errors import ApiError, ApiUnreachable
from epp.discovery.kubernetes.objects import Condition, ObjectiveStatus
from tests.discovery.kubernetes.writing.objective_cluster import (
    LATENCY_S,
    Cluster,
    knows,
    now_s,
    pool,
    virtually,
)

# ---- one writer ----


def test_an_objective_is_accepted_at_once_and_refused_after_the_others_had_their_say() -> None:
    async def main(cluster: Cluster) -> None:
        cluster.writer().follow_pools(knows("a", "b", wants="a"))
        cluster.put("good", pool("a"))
        cluster.put("bad", pool("b"))
        await asyncio.sleep(1.0)
        assert [name for _, name, _ in cluster.writes] == ["good"]
        assert cluster.accepted("good").last_transition_time == "2026-01-31T12:00:00Z"
        await asyncio.sleep(1.5)
        assert cluster.said("bad") == ("False", "PoolNotServed")

    virtually(main)


def test_nothing_is_written_before_the_pools_are_known() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer()
        cluster.put("one", pool("a"))
        await asyncio.sleep(10.0)
        assert not cluster.writes
        writer.follow_pools(knows("a", wants="a"))
        await asyncio.sleep(1.0)
        assert cluster.said("one") == ("True", "Accepted")

    virtually(main)


def test_a_pool_that_comes_goes_and_comes_changes_what_is_said() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer()
        writer.follow_pools(knows(wants="a"))
        cluster.put("one", pool("a"))
        for there, expected in (
            ((), ("False", "PoolNotFound")),
            (("a",), ("True", "Accepted")),
            ((), ("False", "PoolNotFound")),
            (("a",), ("True", "Accepted")),
        ):
            writer.follow_pools(knows(*there, wants="a"))
            await asyncio.sleep(30.0)
            assert cluster.said("one") == expected
        assert len(cluster.writes) == 4

    virtually(main)


def test_a_pool_that_is_given_up_takes_its_acceptance_with_it() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer()
        writer.follow_pools(knows("a", "b", wants="a"))
        cluster.put("one", pool("a"))
        await asyncio.sleep(5.0)
        writer.follow_pools(knows("a", "b", wants="b"))
        await asyncio.sleep(5.0)
        assert cluster.said("one") == ("False", "PoolNotServed")

    virtually(main)


def test_a_pool_that_is_another_s_by_now_is_left_to_it() -> None:
    async def main(cluster: Cluster) -> None:
        first, second = cluster.writer(), cluster.writer()
        first.follow_pools(knows("a", "b", wants="a"))
        second.follow_pools(knows("a", "b", wants="b"))
        cluster.put("one", pool("a"))
        await asyncio.sleep(5.0)
        first.follow_pools(knows("a", "b", wants="b"))
        await asyncio.sleep(5.0)
        second.follow_pools(knows("a", "b", wants="a"))
        await asyncio.sleep(100.0)
        assert cluster.said("one") == ("True", "Accepted")
        assert len(cluster.writes) == 3

    virtually(main)


def test_a_pool_that_comes_is_left_to_who_serves_it_first() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer()
        writer.follow_pools(knows("a", wants="a"))
        cluster.put("one", pool("b"))
        await asyncio.sleep(30.0)
        assert cluster.said("one") == ("False", "PoolNotFound")
        writer.follow_pools(knows("a", "b", wants="a"))
        await asyncio.sleep(1.9)
        assert cluster.said("one") == ("False", "PoolNotFound")
        await asyncio.sleep(0.2)
        assert cluster.said("one") == ("False", "PoolNotServed")
        writer.follow_pools(knows("a", "b", wants="a"))
        assert writer.waiting == 0  # nothing has changed

    virtually(main)


def test_a_new_leader_writes_nothing_where_the_old_one_has() -> None:
    async def main(cluster: Cluster) -> None:
        leads = [True, False]
        writers = [cluster.writer(may_write=lambda i=i: leads[i]) for i in range(2)]
        for writer in writers:
            writer.follow_pools(knows("a", "b", wants="a"))
        for number in range(30):
            cluster.put(f"o-{number}", pool("ab"[number % 2]))
        await asyncio.sleep(30.0)
        assert len(cluster.writes) == 30
        assert not any(writers[1].writes.values())
        leads.reverse()
        cluster.put("new", pool("a"))
        await asyncio.sleep(30.0)
        assert [name for _, name, _ in cluster.writes[30:]] == ["new"]
        assert writers[1].waiting == 0
        # It knows that what the other has accepted is its own now.
        for writer in writers:
            writer.follow_pools(knows("b", "a", wants="b"))
        await asyncio.sleep(30.0)
        assert cluster.said("o-0") == ("False", "PoolNotServed")

    virtually(main)


def test_ten_thousand_objectives_are_written_slowly_and_all_of_them() -> None:
    async def main(cluster: Cluster) -> None:
        for number in range(10_000):
            cluster.put(f"o-{number}", pool("a"))
        writer = cluster.writer()
        writer.follow_pools(knows("a", wants="a"))
        await asyncio.sleep(10.0)
        assert 95 <= len(cluster.writes) <= 101
        assert writer.waiting + len(cluster.writes) >= 9_999
        for _ in range(3):
            writer.follow_pools(knows("a", "b", wants="a"))
            writer.follow_pools(knows("a", wants="a"))
        assert writer.waiting <= 10_000
        await asyncio.sleep(1_000.0)
        assert len(cluster.writes) == writer.writes["ok"] == 10_000
        assert writer.waiting == 0

    virtually(main)


def test_a_lag_of_the_watch_makes_no_second_write() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer(lag_s=0.9)
        writer.follow_pools(knows("a", wants="a"))
        cluster.put("one", pool("a"))
        await asyncio.sleep(1.2)
        assert len(cluster.writes) == 1
        writer.follow_pools(knows("a", "b", wants="a"))
        await asyncio.sleep(10.0)
        assert len(cluster.writes) == 1

    virtually(main)


def test_another_that_keeps_contradicting_is_answered_less_and_less_often() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer()
        writer.follow_pools(knows("a", wants="a"))
        cluster.put("one", pool("a"))

        async def contradict() -> None:
            while True:
                await asyncio.sleep(0.5)
                one = cluster.objectives["one"]
                said = Condition(
                    type="Accepted", status="False", reason="No", observed_generation=1
                )
                cluster.store(
                    msgspec.structs.replace(one, status=ObjectiveStatus(conditions=(said,)))
                )

        cluster.tasks.append(asyncio.create_task(contradict()))
        await asyncio.sleep(600.0)
        assert 8 <= len(cluster.writes) <= 11
        cluster.put("one", pool("a"))  # a new generation is answered at once
        before = len(cluster.writes)
        await asyncio.sleep(0.3)
        assert len(cluster.writes) == before + 1

    virtually(main)


# ---- when it cannot be written ----


@pytest.mark.parametrize(
    ("error", "result", "at_most"),
    [
        (ApiError("PATCH", 404, "NotFound"), "gone", 1),
        (ApiError("PATCH", 422, "Invalid"), "invalid", 1),
        (ApiError("PATCH", 409, "Conflict"), "conflict", 9),
        (ApiError("PATCH", 403, "Forbidden"), "refused", 6),
        (ApiError("PATCH", 500, "InternalError"), "failed", 60),
        (ApiError("PATCH", 429, "TooManyRequests", retry_after_s=30.0), "failed", 11),
        (ApiUnreachable("nobody answers"), "failed", 60),
    ],
)
def test_a_write_that_fails_is_tried_again_where_that_can_help_and_not_often(
    error: Exception, result: str, at_most: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(cluster: Cluster) -> None:
        cluster.fault = lambda: error
        writer = cluster.writer()
        writer.follow_pools(knows("a", wants="a"))
        cluster.put("one", pool("a"))
        await asyncio.sleep(300.0)
        assert 1 <= len(cluster.writes) <= at_most
        assert writer.writes[result] == len(cluster.writes)
        cluster.fault = lambda: None
        await asyncio.sleep(100.0 if result == "failed" else 300.0)
        if at_most > 1:
            assert cluster.said("one") == ("True", "Accepted")
        else:
            assert len(cluster.writes) == 1

    virtually(main)
    assert len(caplog.records) <= 1


def test_no_other_object_is_tried_while_the_api_server_is_away() -> None:
    async def main(cluster: Cluster) -> None:
        cluster.fault = lambda: ApiUnreachable("nobody answers")
        writer = cluster.writer()
        writer.follow_pools(knows("a", wants="a"))
        for number in range(500):
            cluster.put(f"o-{number}", pool("a"))
        await asyncio.sleep(300.0)
        assert len(cluster.writes) <= 60
        cluster.fault = lambda: None
        await asyncio.sleep(100.0)
        assert writer.writes["ok"] == 500

    virtually(main)


def test_nothing_is_written_once_it_is_not_allowed() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer(may_write=lambda: now_s() < 5.0)
        writer.follow_pools(knows("a", wants="a"))
        for number in range(500):
            cluster.put(f"o-{number}", pool("a"))
        await asyncio.sleep(100.0)
        assert max(at_s for at_s, _, _ in cluster.writes) < 5.0
        assert writer.waiting == 0

    virtually(main)


def test_an_objective_that_vanishes_while_it_is_written_does_no_harm() -> None:
    async def main(cluster: Cluster) -> None:
        writer = cluster.writer()
        writer.follow_pools(knows("a", wants="a"))
        cluster.put("one", pool("a"))
        await asyncio.sleep(1.5 * LATENCY_S)
        assert len(cluster.writes) == 1
        cluster.delete("one")
        cluster.put("two", pool("a"))
        await asyncio.sleep(1.0)
        assert cluster.said("two") == ("True", "Accepted")
        assert writer.writes["gone"] == 1

    virtually(main)
