"""Why a request would go where: the answer, the page that gives it, and the command that asks."""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import numpy as np
import pytest

from epp.cli import main
from epp.core.claims import ClaimsOptions, ClaimsReader, RequestClaims
from epp.core.flow import FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions, make_detector
from epp.core.gate import Route
from epp.core.headers import Headers
from epp.core.pool import Column, EngineLoad
from epp.core.ports import NullRecorder
from epp.core.request import Outcome
from epp.core.resources import Endpoint, Objective, PoolResources, PoolSpec
from epp.core.router import Router
from epp.core.scheduling import (
    Candidates,
    LeastLoaded,
    NamedFilter,
    ProfileScheduler,
    Scheduler,
    SchedulingProfile,
    WeightedScorer,
)
from epp.core.scheduling.default import default_scheduler
from epp.core.scheduling.pickers.max_score import MaxScorePicker
from epp.core.scheduling.scorers.queue import QueueScorer
from epp.core.timers import Timers
from epp.observability.explain import PickAnswer, explain_pick
from epp.observability.http import ObservabilityServer

from ..core.scheduling.support import make

_NOW = 100.0


class _Waiter:
    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        pass

    def passed(self, destination: str, now: float) -> None:
        raise AssertionError

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        raise AssertionError(outcome)

    def evicted(self, retry_after_s: int, now: float) -> None:
        raise AssertionError


def _router(scheduler: Scheduler, waiting: list[float], limit: int = 10) -> Router:
    router = Router(
        scheduler=scheduler,
        options=FlowOptions(),
        make_detector=partial(make_detector, ConcurrencyOptions(max_requests=limit)),
        timers=Timers(),
        rng=random.Random(1),
        recorder=NullRecorder(),
    )
    endpoints = tuple(
        Endpoint(name=f"ns/{name}", address=f"10.0.0.{number}", port=80, labels={"tier": name})
        for number, name in enumerate("abc"[: len(waiting)])
    )
    objectives = {"chat": Objective(name="chat", priority=7)}
    resources = PoolResources(
        pool=PoolSpec(name="pool"), objectives=objectives, endpoints=endpoints
    )
    router.apply(resources, _NOW)
    for number, each in enumerate(waiting):
        router.scraped(f"10.0.0.{number}:80", EngineLoad(each, 2.0, 0.25), _NOW)
    return router


def _queue_profile(*filters: NamedFilter) -> ProfileScheduler:
    scorers = [WeightedScorer("queue-scorer", QueueScorer(), 2.0)]
    return ProfileScheduler(SchedulingProfile("default", filters, scorers, MaxScorePicker()))


def test_candidates_scores_and_the_reason_are_told() -> None:
    router = _router(_queue_profile(), [4.0, 0.0, 2.0])
    answer = explain_pick(
        router, RequestClaims(objective="chat", model="m", prompt_tokens=12), _NOW
    )
    assert [(each.endpoint, each.fate, each.total) for each in answer.candidates] == [
        ("ns/b", "picked", 2.0),
        ("ns/c", "outscored", 1.0),
        ("ns/a", "outscored", 0.0),
    ]
    assert (answer.model, answer.priority, answer.prompt_tokens) == ("m", 7, 12)
    first = answer.candidates[0]
    assert (first.waiting, first.running, first.kv_ratio, first.limit) == (0.0, 2.0, 0.25, 10)
    assert answer.verdict == (
        "ns/b is picked: it scores 1 more than ns/c, the next, and 1 of that by queue-scorer."
    )
    assert router.pool.total_in_flight == 0


def test_the_request_that_is_told_of_is_the_one_that_is_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The model that it is for may be drawn by chance."""
    router = _router(_queue_profile(), [0.0])
    resolved = [router.resolve(RequestClaims(model=name)) for name in ("first", "second")]
    monkeypatch.setattr(router, "resolve", lambda claims: resolved.pop(0))
    assert explain_pick(router, RequestClaims(), _NOW).model == "first"
    assert len(resolved) == 1


def test_who_is_left_out_is_told_with_the_reason() -> None:
    only = make("label-selector-filter", {"matchLabels": {"tier": "a"}})
    router = _router(_queue_profile(NamedFilter("only-a", only)), [0.0, 0.0, 0.0], limit=1)
    router.admit(RequestClaims(subset=frozenset(["10.0.0.0:80"])), _Waiter(), _NOW)
    claims = RequestClaims(subset=frozenset(["10.0.0.0:80", "10.0.0.1:80"]))
    answer = explain_pick(router, claims, _NOW)
    assert [(each.endpoint, each.fate, each.by) for each in answer.candidates] == [
        ("ns/a", "no room", ""),
        ("ns/b", "filtered", "only-a"),
        ("ns/c", "not in subset", ""),
    ]
    assert answer.verdict == "Nobody is picked: filtered by only-a, no room, not in subset."


@pytest.mark.parametrize(
    ("scheduler", "waiting", "verdict"),
    [
        (_queue_profile(), [1.0, 1.0], "by chance: ns/"),
        (_queue_profile(), [1.0], "ns/a is picked: it is the only one left."),
        (_queue_profile(), [], "There is no endpoint."),
        (LeastLoaded(), [1.0], "The scheduler cannot tell"),
    ],
)
def test_the_verdict_says_what_decided(
    scheduler: Scheduler, waiting: list[float], verdict: str
) -> None:
    assert verdict in explain_pick(_router(scheduler, waiting), RequestClaims(), _NOW).verdict


def test_the_default_scorer_tells_what_its_scores_are_made_of() -> None:
    router = _router(default_scheduler(), [3.0, 0.0])
    answer = explain_pick(router, RequestClaims(prompt_tokens=100), _NOW)
    parts = [each.scores[0].parts for each in answer.candidates]
    assert parts[0]["uncached"] == parts[1]["uncached"] > 0
    assert parts[0]["waiting"] == 0 < parts[1]["waiting"]


@pytest.fixture
async def server_url() -> AsyncIterator[str]:
    router = _router(default_scheduler(), [3.0, float("nan")])
    reader = ClaimsReader(ClaimsOptions())

    def explain(headers: Headers, body: bytes) -> PickAnswer:
        claims = reader.read(headers, body, None, max_inspected_bytes=1 << 20)
        return explain_pick(router, claims, _NOW)

    server = ObservabilityServer(lambda: [], lambda: True, explain, max_body_bytes=1000)
    await server.start("127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.port}"
    await server.stop()


async def test_the_command_prints_a_table(
    server_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 80}]}))
    arguments = ["explain-pick", "--server", server_url, "-H", "x-llm-d-inference-objective: chat"]
    code = await asyncio.to_thread(main, [*arguments, str(body)])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0].startswith("request: model m, about ")
    assert "priority 7, flow default-flow" in lines[0]
    assert lines[1].startswith("pool: ")
    assert lines[5].split() == [
        "endpoint", "address", "in", "flight", "waiting", "running", "KV",
        "first-token-scorer", "x", "1", "total",
    ]  # fmt: skip
    assert lines[6].startswith("ns/b")
    assert lines[6].endswith("picked")
    assert "made of:" in lines


async def test_the_command_gives_json_to_machines(
    server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await asyncio.to_thread(main, ["explain-pick", "--server", server_url, "--json"])
    assert code == 0
    answer = msgspec.json.decode(capsys.readouterr().out, type=PickAnswer)
    assert [each.endpoint for each in answer.candidates] == ["ns/b", "ns/a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-file.json"], "epp: cannot read no-such-file.json: No such file or directory"),
        (["-H", "nonsense"], "epp: --header: found 'nonsense'; expected 'NAME: VALUE'"),
        (["--server", "http://127.0.0.1:1"], "epp: cannot ask http://127.0.0.1:1/debug/explain"),
        (["--server", "nonsense"], "epp: cannot ask nonsense/debug/explain-pick"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain-pick", *arguments]) == 2
    assert message in capsys.readouterr().err


async def test_a_body_that_is_too_large_is_refused(
    server_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.json"
    body.write_text("x" * 5000)
    arguments = ["explain-pick", "--server", server_url, str(body)]
    assert await asyncio.to_thread(main, arguments) == 2
    assert "answered 413" in capsys.readouterr().err


async def test_a_compressed_body_is_read_as_on_the_way_to_a_model_server(server_url: str) -> None:
    data = gzip.compress(json.dumps({"model": "m", "prompt": "x " * 40_000}).encode())
    assert len(data) < 1000
    url = f"{server_url}/debug/explain-pick"
    async with (
        aiohttp.ClientSession() as client,
        client.post(url, data=data, headers={"content-encoding": "gzip"}) as response,
    ):
        answer = msgspec.json.decode(await response.read(), type=PickAnswer)
    assert (answer.model, answer.prompt_tokens > 20_000 - 100) == ("m", True)


class _Odd:
    """A scorer of others, with parts that are no numbers."""

    def score(self, candidates: Candidates) -> Column:
        return np.full(len(candidates), np.nan)

    def parts(self, candidates: Candidates) -> dict[str, Column]:
        count = len(candidates)
        return {"far": np.full(count, np.inf), "near": np.ones(count)}


def test_what_is_no_number_is_not_told() -> None:
    profile = SchedulingProfile("odd", (), [WeightedScorer("odd", _Odd())], MaxScorePicker())
    answer = explain_pick(_router(ProfileScheduler(profile), [0.0]), RequestClaims(), _NOW)
    told = msgspec.json.decode(msgspec.json.encode(answer), type=PickAnswer)
    assert told.candidates[0].scores[0].parts == {"near": 1.0}
