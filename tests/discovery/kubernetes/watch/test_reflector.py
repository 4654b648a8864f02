"""List and watch, word by word: what is asked for after which answer, and what is told of it."""

import logging
from pathlib import Path

import pytest

from epp.discovery.kubernetes.watch.mirror import Key
from epp.discovery.kubernetes.watch.pace import Pace
from tests.discovery.kubernetes.following import PATH, following
from tests.discovery.kubernetes.scripted import (
    ScriptedServer,
    answer,
    bookmark,
    event,
    listed,
    refusal,
    thing,
    watched,
)

LIST, WATCH = False, True


async def test_a_list_in_pages_then_a_watch_from_its_version(tmp_path: Path) -> None:
    async with (
        ScriptedServer(
            listed(10, thing("a", 4, 1), next_page="p2"), listed(10, thing("b", 5, 2))
        ) as server,
        following(server, tmp_path, params={"labelSelector": "app in (x)"}) as seen,
    ):
        await server.exhausted()
        first, second, watch = server.queries
        assert first == {"labelSelector": "app in (x)", "limit": "500"}
        assert second == first | {"continue": "p2"}
        assert 240 <= int(watch.pop("timeoutSeconds")) <= 480
        assert watch == {
            "labelSelector": "app in (x)",
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": "10",
        }
        assert {request.path for request in server.requests} == {PATH}
        assert seen.told == [({"a": 1, "b": 2}, [])]
        assert set(seen.reflector.objects) == {Key("ns", "a"), Key("ns", "b")}
        assert seen.reflector.statistics.objects == 2
        assert (seen.reflector.statistics.relists, seen.pauses_s) == (0, [])


async def test_an_empty_collection_is_told_of_once(tmp_path: Path) -> None:
    async with ScriptedServer(listed(10)) as server, following(server, tmp_path) as seen:
        await seen.reflector.known()
        await server.exhausted()
        assert seen.told == [({}, [])]
        assert seen.reflector.problem == ""


async def test_events_in_any_pieces_and_a_bookmark_to_go_on_from(tmp_path: Path) -> None:
    text = b"".join(
        (
            event("ADDED", thing("a", 11, 1)),
            event("MODIFIED", thing("a", 12, 2)),
            event("MODIFIED", thing("a", 12, 2)),
            event("ADDED", thing("b", 13, 3)),
            event("DELETED", thing("a", 14, 2)),
            bookmark(20),
        )
    )
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    async with (
        ScriptedServer(listed(10), watched(*pieces)) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert seen.told == [({}, []), ({"a": 1}, []), ({"a": 2}, []), ({"b": 3}, []), ({}, ["a"])]
        assert server.watches == [LIST, WATCH, WATCH]
        assert server.queries[-1]["resourceVersion"] == "20"
        statistics = seen.reflector.statistics
        assert (statistics.events, statistics.objects) == (5, 1)
        assert statistics.restarts["timeout"] == 1
        assert seen.pauses_s == []  # it ended in order: nobody need wait


@pytest.mark.parametrize(("ends", "reason"), [("broken", "dropped"), ("silent", "silent")])
async def test_a_watch_that_breaks_goes_on_without_a_list(
    tmp_path: Path, ends: str, reason: str
) -> None:
    begun = event("ADDED", thing("b", 12))[:30]
    async with (
        ScriptedServer(
            listed(10), watched(event("ADDED", thing("a", 11)), begun, ends=ends)
        ) as server,
        following(server, tmp_path, pace=Pace(idle_limit_s=0.1)) as seen,
    ):
        await server.exhausted()
        assert server.watches == [LIST, WATCH, WATCH]
        assert server.queries[-1]["resourceVersion"] == "11"
        assert seen.values == {"a": 0}
        assert seen.reflector.statistics.restarts[reason] == 1
        assert len(seen.pauses_s) == 1
        assert seen.pauses_s[0] <= 0.8


@pytest.mark.parametrize("form", ["status", "event"])
async def test_a_forgotten_version_makes_it_list_again_after_a_while(
    tmp_path: Path, form: str
) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    expired = refusal(410, "Expired") if form == "status" else watched(event("ERROR", status))
    async with (
        ScriptedServer(
            listed(10, thing("a", 4), thing("b", 5), thing("c", 6)),
            expired,
            listed(30, thing("a", 4), thing("c", 21, 7)),
        ) as server,
        following(server, tmp_path, pace=Pace(relist_spread_s=1000.0)) as seen,
    ):
        await server.exhausted()
        assert server.watches == [LIST, WATCH, LIST, WATCH]
        # From the memory of the API server, which has no pages, and no older than what is known.
        assert server.queries[2] == {
            "resourceVersion": "10",
            "resourceVersionMatch": "NotOlderThan",
        }
        assert server.queries[3]["resourceVersion"] == "30"
        assert seen.told[1:] == [({"c": 7}, ["b"])]
        assert len(seen.pauses_s) == 1
        assert 0.8 < seen.pauses_s[0] <= 1000.8
        statistics = seen.reflector.statistics
        assert (statistics.relists, statistics.restarts["expired"]) == (1, 1)


async def test_versions_that_have_gone_back_need_a_consistent_list(tmp_path: Path) -> None:
    async with (
        ScriptedServer(
            listed(1000, thing("a", 900)),
            refusal(410),
            refusal(504, "Timeout", "Too large resource version: 1000, current: 50"),
            listed(50, thing("a", 40, 1)),
            watched(event("MODIFIED", thing("a", 51, 2))),
        ) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert server.queries[3] == {"limit": "500"}
        assert seen.values == {"a": 2}


async def test_a_snapshot_that_expires_between_pages_is_read_at_once(tmp_path: Path) -> None:
    async with (
        ScriptedServer(
            listed(10, thing("a", 4), next_page="p2"),
            refusal(410, "Expired"),
            listed(12, thing("b", 11), thing("c", 12)),
        ) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert server.queries[2] == {}
        assert seen.told == [({"b": 0, "c": 0}, [])]
        assert seen.pauses_s == []


async def test_missing_rights_are_named_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    no = refusal(403, "Forbidden", 'things is forbidden: User "u" cannot list resource "things"')
    async with ScriptedServer(no, no, no) as server, following(server, tmp_path) as seen:
        await server.exhausted()
        assert seen.reflector.problem == (
            "things.example.com in namespace ns: may not list it: expected a role that allows list "
            f"and watch (GET {PATH}: 403 Forbidden: things is forbidden: "
            'User "u" cannot list resource "things")'
        )
        assert not seen.reflector.is_known
        assert [record.message for record in caplog.records] == [seen.reflector.problem]
        assert len(seen.pauses_s) == 3


async def test_a_problem_is_over_when_the_watch_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="epp")
    async with (
        ScriptedServer(listed(10), refusal(403, "Forbidden"), watched(ends="silent")) as server,
        following(server, tmp_path, pace=Pace(idle_limit_s=0.2)),
    ):
        await server.exhausted()
        texts = [record.message for record in caplog.records]
        assert "may not watch it" in texts[0]
        assert texts[1] == "things.example.com in namespace ns: followed again"


async def test_a_kind_that_is_not_installed_is_empty_until_it_is(tmp_path: Path) -> None:
    none = refusal(404, "NotFound", "the server could not find the requested resource")
    async with (
        ScriptedServer(none, none, listed(10, thing("a", 4))) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert seen.told == [({}, []), ({"a": 0}, [])]
        assert all(30 <= pause_s <= 90 for pause_s in seen.pauses_s)
        assert len(set(seen.pauses_s)) == 2
        assert seen.reflector.statistics.relists == 1


async def test_a_kind_that_was_there_is_gone_when_that_was_said_three_times(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedServer(
            listed(10, thing("a", 4)),
            refusal(404),
            refusal(404),
            listed(11, thing("a", 4)),
            refusal(404),
            refusal(404),
        ) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert seen.told == [({"a": 0}, [])]
        assert all(2 <= pause_s <= 6 for pause_s in seen.pauses_s)
        server.release(refusal(404))
        await server.exhausted()
        assert seen.told == [({"a": 0}, []), ({}, ["a"])]


@pytest.mark.parametrize("status", [429, 503])
async def test_it_waits_as_long_as_it_is_told_to(tmp_path: Path, status: int) -> None:
    async with (
        ScriptedServer(
            refusal(status, **{"Retry-After": "17"}), refusal(status, **{"Retry-After": "86400"})
        ) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        first_s, second_s = seen.pauses_s
        assert 17 <= first_s <= 17.8
        assert 120 <= second_s <= 122


@pytest.mark.parametrize(
    "nonsense",
    [
        b"no JSON\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"PARTED","object":{}}\n',
        event("ADDED", thing("big", 12, "x" * 3000)),
        event("ERROR", {"kind": "Status", "code": 400, "message": "bad version"}),
    ],
)
async def test_nonsense_is_passed_by_with_a_list_when_it_comes_again(
    tmp_path: Path, nonsense: bytes
) -> None:
    good = event("ADDED", thing("a", 11))
    async with (
        ScriptedServer(
            listed(10),
            watched(good, nonsense),
            watched(nonsense),
            watched(nonsense),
            listed(20, thing("a", 11)),
            watched(nonsense),
            watched(nonsense),
        ) as server,
        following(server, tmp_path, limits={"max_line_bytes": 2000}) as seen,
    ):
        await server.exhausted()
        assert server.watches == [LIST, WATCH, WATCH, WATCH, LIST, WATCH, WATCH, WATCH]
        assert server.queries[3]["resourceVersion"] == "11"
        assert seen.values == {"a": 0}
        assert len(seen.pauses_s) == 5


async def test_nonsense_between_what_is_good_is_no_reason_for_a_list(tmp_path: Path) -> None:
    broken = [watched(event("ADDED", thing("a", 11 + n)), b"no JSON\n") for n in range(5)]
    async with (
        ScriptedServer(listed(10), *broken) as server,
        following(server, tmp_path),
    ):
        await server.exhausted()
        assert server.watches == [LIST] + [WATCH] * 6


async def test_other_errors_are_no_reason_for_a_list(tmp_path: Path) -> None:
    status = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd"}
    async with (
        ScriptedServer(listed(10), *[watched(event("ERROR", status))] * 4) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert server.watches == [LIST] + [WATCH] * 5
        assert seen.reflector.statistics.restarts["refused"] == 4


async def test_what_cannot_be_read_stops_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        ScriptedServer(
            listed(10, thing("a", 4, "bad"), thing("b", 5, 1)),
            watched(
                event("MODIFIED", thing("a", 11, "bad")),
                event("ADDED", thing("c", 12, 3)),
                event("MODIFIED", thing("b", 13, "bad")),
                ends="broken",
            ),
            refusal(410),
            listed(14, thing("b", 13, "bad"), thing("c", 12, 3), thing("d", 14, 4)),
        ) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert seen.told == [({"b": 1}, []), ({"c": 3}, []), ({"d": 4}, [])]
        assert server.queries[2]["resourceVersion"] == "13"
        texts = [record.message for record in caplog.records if "read" in record.message]
        place, why = (
            "things.example.com in namespace ns",
            "Expected `int`, got `str` - at `$.value`",
        )
        assert texts == [f"{place}: {name} cannot be read: {why}" for name in ("a", "b")]
        assert seen.reflector.statistics.unreadable == 1
        server.release(watched(event("MODIFIED", thing("b", 15, 9))))
        await server.exhausted()
        assert seen.values == {"b": 9, "c": 3, "d": 4}
        assert seen.reflector.statistics.unreadable == 0


@pytest.mark.parametrize(
    "nonsense", [b"no JSON", {"items": 7}, {"items": []}, {"items": [7], "metadata": {}}]
)
async def test_a_list_that_is_none_empties_nothing(tmp_path: Path, nonsense: object) -> None:
    async with (
        ScriptedServer(listed(10, thing("a", 4)), refusal(410), answer(nonsense)) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert seen.told == [({"a": 0}, [])]
        assert seen.reflector.problem


async def test_items_may_be_null(tmp_path: Path) -> None:
    empty = answer({"metadata": {"resourceVersion": "10"}, "items": None})
    async with ScriptedServer(empty) as server, following(server, tmp_path) as seen:
        await server.exhausted()
        assert seen.told == [({}, [])]


async def test_watches_that_end_at_once_are_a_failure(tmp_path: Path) -> None:
    async with (
        ScriptedServer(listed(10), *[watched(bookmark(11))] * 6) as server,
        following(server, tmp_path, watch_lasts_s=0.0) as seen,
    ):
        await server.exhausted()
        assert len(seen.pauses_s) == 6
        assert max(seen.pauses_s) > 1.6  # they grow, though each was opened
        assert seen.reflector.statistics.restarts["dropped"] == 6


async def test_pauses_begin_anew_after_a_watch_that_has_lasted(tmp_path: Path) -> None:
    broken = watched(ends="broken")
    async with (
        ScriptedServer(listed(10), *[refusal(500)] * 9, *[broken] * 20) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert max(seen.pauses_s[:9]) > 10
        assert max(seen.pauses_s[9:]) <= 0.8


async def test_the_last_state_stays_while_nobody_answers_and_none_lists_after(
    tmp_path: Path,
) -> None:
    drop = watched(ends="broken")
    async with (
        ScriptedServer(listed(10, thing("a", 4)), drop, *[refusal(503)] * 20) as server,
        following(server, tmp_path) as seen,
    ):
        await server.exhausted()
        assert server.watches == [LIST] + [WATCH] * 22
        assert {query["resourceVersion"] for query in server.queries[1:]} == {"10"}
        assert seen.values == {"a": 0}
        assert 5 < max(seen.pauses_s) <= 30
