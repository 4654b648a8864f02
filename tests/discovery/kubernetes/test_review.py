"""Who may read the metrics, asked of the API server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.errors import ApiError, ApiUnreachable
from epp.discovery.kubernetes.review import MetricsReview
from tests.apiserver import ApiServer

TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class World:
    """An API server, and a review under a clock of its own."""

    def __init__(self, api: ApiServer, connection: ClusterConnection) -> None:
        self.api = api
        self.now = 0.0
        self.review = MetricsReview(connection, lambda: self.now)

    @property
    def questions(self) -> int:
        return sum("reviews" in request.path for request in self.api.requests)

    async def status(self, token: str) -> int:
        denial = await self.review(token)
        return 200 if denial is None else denial.status


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with ApiServer() as api:
        api.access.add_token("prometheus", "scraper", ("monitoring",))
        api.access.add_token("nobody", "nobody")
        api.access.add_token("ours", "epp")
        api.access.allow("monitoring", "get", "/metrics")
        connection = ClusterConnection(api.kubeconfig(tmp_path, token="ours"))
        await connection.open()
        world = World(api, connection)
        yield world
        await world.review.close()
        await connection.close()


async def test_who_may_read_is_told_by_token_and_access(world: World) -> None:
    assert await world.status("prometheus") == 200
    assert await world.status("nobody") == 403
    assert await world.status("invented") == 401
    denial = await world.review("nobody")
    assert denial is not None
    assert 'nobody may not read: expected a ClusterRole with {nonResourceURLs: ["/metrics"]' in (
        denial.text
    )


async def test_answers_are_remembered_for_a_while(world: World) -> None:
    async def asks(token: str) -> bool:
        before = world.questions
        await world.review(token)
        return world.questions > before

    assert await asks("prometheus")
    assert await asks("invented")
    world.now = 9.9
    assert not await asks("invented")
    world.now = 10.0
    assert await asks("invented")
    world.now = 59.9
    assert not await asks("prometheus")
    world.now = 60.0
    world.api.access.expire_token("prometheus")
    assert await world.status("prometheus") == 401


async def test_readers_with_one_token_ask_once(world: World) -> None:
    assert await asyncio.gather(*(world.status("prometheus") for _ in range(5))) == [200] * 5
    assert world.questions == 2


async def test_a_reader_who_goes_away_takes_the_answer_from_nobody(world: World) -> None:
    first = asyncio.create_task(world.status("prometheus"))
    second = asyncio.create_task(world.status("prometheus"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 200


async def test_without_an_api_server_those_who_were_allowed_still_are(world: World) -> None:
    assert await world.status("prometheus") == 200
    assert await world.status("nobody") == 403
    await world.api.stop()
    world.now = 599.9
    assert await world.status("prometheus") == 200
    denial = await world.review("nobody")
    assert denial is not None
    assert denial.status == 503
    assert denial.text.startswith("the API server cannot say who may read: ")
    world.now = 600.0
    assert await world.status("prometheus") == 503
    await world.api.start()
    assert await world.status("prometheus") == 200


class Stub:
    """A connection that answers as it is told to."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.is_open = asyncio.Event()
        self.asked = 0

    async def create(self, path: str, body: object) -> bytes:
        self.asked += 1
        if not self.answers:
            await self.is_open.wait()
            raise ApiUnreachable("gone")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def forbidden() -> ApiError:
    return ApiError("POST /x", 403, "Forbidden", "epp may not")


async def test_a_missing_role_is_named_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    works = b'{"status": {}}'
    stub = Stub(forbidden(), forbidden(), works, forbidden())
    review = MetricsReview(stub, lambda: 0.0)
    for token in ("a", "b"):
        denial = await review(token)
        assert denial is not None
        assert denial.status == 500
        for rule in (
            '{apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"]',
            '{apiGroups: ["authorization.k8s.io"], resources: ["subjectaccessreviews"], verbs',
        ):
            assert rule in denial.text
    assert len(caplog.records) == 1
    await review("c")
    await review("d")
    assert len(caplog.records) == 2


async def test_credentials_of_our_own_that_do_not_hold_are_no_fault_of_the_reader() -> None:
    review = MetricsReview(Stub(ApiError("POST /x", 401, "Unauthorized")), lambda: 0.0)
    denial = await review("a")
    assert denial is not None
    assert denial.status == 500
    assert "this EPP's own credentials" in denial.text


@pytest.mark.parametrize("answer", [b"[]", b"", ApiError("POST /x", 500, "InternalError")])
async def test_what_is_no_answer_lets_nobody_in(answer: bytes | Exception) -> None:
    denial = await MetricsReview(Stub(answer), lambda: 0.0)("a")
    assert denial is not None
    assert denial.status == 503


async def test_an_api_server_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("epp.discovery.kubernetes.review._PATIENCE_S", 0.01)
    denial = await MetricsReview(Stub(), lambda: 0.0)("a")
    assert denial is not None
    assert denial.status == 503
    assert "no answer within 0.01 s" in denial.text


async def test_tokens_of_strangers_cost_a_bounded_amount() -> None:
    stub = Stub()
    review = MetricsReview(stub, lambda: 0.0)
    readers = [asyncio.create_task(review(str(number))) for number in range(105)]
    denial = await readers[-1]
    assert denial is not None
    assert denial.status == 503
    assert "too many tokens" in denial.text
    assert stub.asked == 4
    assert not any(reader.done() for reader in readers[:-1])
    await review.close()
    await asyncio.gather(*readers, return_exceptions=True)
    assert stub.asked == 4


async def test_a_thousand_tokens_are_remembered_and_strangers_displace_nobody() -> None:
    user = b'{"status": {"authenticated": true, "user": {"username": "u"}}}'
    allowed = b'{"status": {"allowed": true}}'
    unknown = b'{"status": {}}'
    stub = Stub(user, allowed, *[unknown] * 1001)
    review = MetricsReview(stub, lambda: 0.0)
    assert await review("good") is None
    for number in range(1001):
        await review(str(number))
    asked = stub.asked
    await review("good")
    await review("1000")
    await review("1")
    assert stub.asked == asked
    stub.answers.append(unknown)
    await review("0")
    assert stub.asked == asked + 1
