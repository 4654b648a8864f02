"""Events on pools: which, when, how often; and that nobody waits for them."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.errors import ApiError, ApiUnreachable
from epp.discovery.kubernetes.objects import InferencePool, ObjectMeta
from epp.discovery.kubernetes.writing.events import (
    CONFIGURATION_REJECTED,
    OBJECTIVE_REJECTED,
    EventSubject,
    EventWriter,
)
from tests.apiserver import ApiServer
from tests.discovery.support import wait_until
from tests.engines.virtual_time import run_virtual

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
POOL = EventSubject(
    api_version="inference.networking.k8s.io/v1", namespace="default", name="llm", uid="u-1"
)
KEY = POOL.key


def now_s() -> float:
    return asyncio.get_running_loop().time()


class Server:
    """Events in virtual time: ``told`` has the time and the whole of each request."""

    def __init__(self) -> None:
        self.told: list[tuple[float, dict[str, Any]]] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.fault: Exception | None = None

    async def apply(self, path: str, body: Any, *, field_manager: str) -> bytes:
        event = msgspec.json.decode(msgspec.json.encode(body))
        name = event["metadata"]["name"]
        assert path == f"/apis/events.k8s.io/v1/namespaces/default/events/{name}"
        self.told.append((now_s(), event))
        await asyncio.sleep(0.01)
        if self.fault is not None:
            raise self.fault
        self.events[name] = event
        return b"{}"

    @property
    def reasons(self) -> list[str]:
        return [event["reason"] for _, event in self.told]


def writer(server: Any, *, may_write: Callable[[], bool] = lambda: True) -> EventWriter:
    made = EventWriter(
        cast("ClusterConnection", server),
        identity="epp-0",
        may_write=may_write,
        rng=random.Random(1),
        clock=now_s,
        utc_now=lambda: START + timedelta(seconds=now_s()),
    )
    made.follow_pools([POOL])
    return made


def virtually(
    main: Callable[[Server, EventWriter], Any], may_write: Callable[[], bool] = lambda: True
) -> None:
    async def run() -> None:
        server = Server()
        made = writer(server, may_write=may_write)
        running = asyncio.create_task(made.run())
        try:
            await main(server, made)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(run())


def test_a_pool_without_endpoints_is_told_of_after_a_while_and_when_it_has_some_again() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        events.follow_endpoints(KEY, 0)
        await asyncio.sleep(4.9)
        assert server.told == []
        events.follow_endpoints(KEY, 0)
        await asyncio.sleep(0.2)
        assert server.reasons == ["NoEndpoints"]
        await asyncio.sleep(30.0)
        events.follow_endpoints(KEY, 3)
        events.follow_endpoints(KEY, 2)
        await asyncio.sleep(1.0)
        assert server.reasons == ["NoEndpoints", "EndpointsAvailable"]
        assert [event["type"] for _, event in server.told] == ["Warning", "Normal"]

    virtually(main)


def test_a_short_gap_and_a_pool_that_is_gone_are_no_news() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        events.follow_endpoints(KEY, 0)
        await asyncio.sleep(4.0)
        events.follow_endpoints(KEY, 1)
        await asyncio.sleep(4.0)
        events.follow_endpoints(KEY, 0)
        events.follow_pools([])
        events.follow_endpoints(KEY, 0)
        events.tell(KEY, OBJECTIVE_REJECTED, "whose?")
        await asyncio.sleep(60.0)
        assert server.told == []

    virtually(main)


def test_a_pool_that_comes_back_without_endpoints_is_told_of_again() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        for _ in range(2):
            events.follow_pools([POOL])
            events.follow_endpoints(KEY, 0)
            await asyncio.sleep(6.0)
            events.follow_pools([])
        assert server.reasons == ["NoEndpoints"] * 2

    virtually(main)


def test_the_same_again_is_one_event_whose_series_grows_every_ten_minutes() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        for _ in range(1500):
            events.tell(KEY, OBJECTIVE_REJECTED, "default/batch: spec.priority: found text")
            await asyncio.sleep(1.0)
        assert [round(at_s) for at_s, _ in server.told] == [0, 600, 1200]
        assert len(server.events) == 1
        [event] = server.events.values()
        assert event["series"]["count"] == 1201
        assert event["series"]["lastObservedTime"] == "2026-01-31T12:20:00.000000Z"
        assert event["eventTime"] == "2026-01-31T12:00:00.000000Z"
        first = {k: v for k, v in server.told[0][1].items() if k != "series"}
        assert {k: v for k, v in event.items() if k != "series"} == first

    virtually(main)


def test_what_has_not_happened_for_ten_minutes_is_a_new_event() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        for _ in range(2):
            events.tell(KEY, OBJECTIVE_REJECTED, "the same")
            await asyncio.sleep(700.0)
        assert len(server.events) == 2
        assert not any("series" in event for event in server.events.values())

    virtually(main)


def test_another_note_is_another_event_at_once_but_not_without_bound() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        for number in range(1000):
            events.tell(KEY, CONFIGURATION_REJECTED, f"line {number}")
        await asyncio.sleep(5.0)
        assert len(server.told) == 25
        await asyncio.sleep(595.0)
        assert 43 <= len(server.told) <= 46
        assert events.results["dropped"] == 1000 - 256
        await asyncio.sleep(60.0)
        assert events.results["dropped"] + events.results["ok"] == 1000

    virtually(main)


def test_what_was_told_of_longest_ago_makes_room() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        events.tell(KEY, OBJECTIVE_REJECTED, "a again and again")
        for number in range(255):
            events.tell(KEY, OBJECTIVE_REJECTED, f"b {number:03}")
        events.tell(KEY, OBJECTIVE_REJECTED, "a again and again")
        events.tell(KEY, OBJECTIVE_REJECTED, "c")
        await asyncio.sleep(11.0)
        notes = [event["note"] for _, event in server.told]
        assert notes[:2] == ["a again and again", "b 001"]

    virtually(main, may_write=lambda: now_s() >= 5.0)


def test_a_follower_writes_nothing_until_it_leads_and_then_what_is_new() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        events.tell(KEY, OBJECTIVE_REJECTED, "old")
        events.follow_endpoints(KEY, 0)
        await asyncio.sleep(900.0)
        events.tell(KEY, OBJECTIVE_REJECTED, "new")
        await asyncio.sleep(90.0)
        assert server.told == []
        await asyncio.sleep(20.0)
        assert [event["note"] for _, event in server.told] == ["new"]
        assert server.told[0][0] <= 1005.1

    virtually(main, may_write=lambda: now_s() >= 1000.0)


def test_what_was_over_before_anybody_heard_of_it_is_no_news() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        events.follow_endpoints(KEY, 0)
        await asyncio.sleep(50.0)
        events.follow_endpoints(KEY, 1)
        await asyncio.sleep(100.0)
        assert server.told == []

    virtually(main, may_write=lambda: now_s() >= 100.0)


@pytest.mark.parametrize(
    ("fault", "result", "at_most", "is_written_later"),
    [
        (ApiUnreachable("nobody answers"), "failed", 60, True),
        (ApiError("PATCH", 503, "Unavailable", retry_after_s=20.0), "failed", 16, True),
        (ApiError("PATCH", 403, "Forbidden"), "refused", 6, True),
        (ApiError("PATCH", 422, "Invalid"), "failed", 1, False),
    ],
)
def test_failures_are_counted_and_logged_once(
    fault: Exception,
    result: str,
    at_most: int,
    is_written_later: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(server: Server, events: EventWriter) -> None:
        server.fault = fault
        events.tell(KEY, OBJECTIVE_REJECTED, "bad")
        await asyncio.sleep(300.0)
        assert 1 <= len(server.told) <= at_most
        assert events.results[result] == len(server.told)
        server.fault = None
        await asyncio.sleep(100.0)
        assert len(server.events) == is_written_later

    virtually(main)
    assert len(caplog.records) == 1


def test_notes_and_names_fit() -> None:
    async def main(server: Server, events: EventWriter) -> None:
        long = EventSubject(api_version="v1", namespace="default", name="p" * 253)
        events.follow_pools([long])
        events.tell(long.key, CONFIGURATION_REJECTED, "ä" * 2000)
        await asyncio.sleep(1.0)
        [(_, event)] = server.told
        assert len(event["note"].encode()) <= 1024
        assert len(event["metadata"]["name"]) <= 253

    virtually(main)


async def test_the_api_server_takes_events_and_series(tmp_path: Path) -> None:
    async with ApiServer() as api:
        connection = ClusterConnection(api.kubeconfig(tmp_path))
        await connection.open()
        events = writer(connection)
        found = InferencePool(metadata=ObjectMeta(name="llm", namespace="default", uid="u-1"))
        assert EventSubject.of(found, "inference.networking.k8s.io/v1") == POOL
        events.tell(KEY, OBJECTIVE_REJECTED, "default/batch names another group")
        running = asyncio.create_task(events.run())

        async def written(count: int) -> dict[str, Any]:
            await wait_until(lambda: events.results["ok"] >= count)
            [event] = api.items("events.k8s.io/v1", "Event", "default")
            return event

        event = await written(1)
        assert event["note"] == "default/batch names another group"
        assert event["reason"] == "ObjectiveRejected"
        assert event["action"] == "ReadObjective"
        assert event["type"] == "Warning"
        assert event["reportingController"] == "inference-epp"
        assert event["reportingInstance"] == "epp-0"
        assert event["regarding"] == {
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "namespace": "default",
            "name": "llm",
            "uid": "u-1",
        }
        [series] = events._series.values()
        series.wrote_at_s -= 600.0
        events.tell(KEY, OBJECTIVE_REJECTED, "default/batch names another group")
        assert (await written(2))["series"]["count"] == 2
        assert events.results["failed"] == 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.close()
