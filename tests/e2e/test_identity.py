"""Whose a request is, as the configuration says, and what it was found to have cost."""

import base64
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from epp.core.parsing import inspect_body
from epp.gateway.options import BodyMode

from .conftest import logged_stack
from .http1 import Http1, Response
from .stack import Gateway, Stack, model_server
from .support import chat, completion, eventually
from .test_trust import headers_at_the_server

CONFIG = """\
flowControl:
  fairness:
    idSources:
      - {type: header, header: X-Tenant, remove: true}
      - {type: jwtClaim, claim: org.tenant}
      - {type: jwtClaim, header: x-session, remove: true}
      - {type: defaultHeaders}
      - {type: model}
trust:
  fairnessId: false
"""
DEFAULT_HEADERS = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
FAIRNESS_ID = DEFAULT_HEADERS[0]
CHAT = "/v1/chat/completions"
ECHO = "/debug/echo"

Headers = list[tuple[str, str]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("identity")
    servers = [model_server("fast", step_s=0.0002)]
    async with logged_stack(directory, servers, arguments=["--config-text", CONFIG]) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def told(module_stack: Stack) -> AsyncIterator[Stack]:
    """An EPP that was told where fairness ids come from, which every test must leave at rest."""
    yield module_stack
    await module_stack.at_rest()


def token(claims: object) -> str:
    """Return a JSON Web Token with a signature that nobody has made."""
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
    return ".".join(part.decode().rstrip("=") for part in [*encoded, b"bm90LXNpZ25lZA"])


async def flows(stack: Stack) -> dict[str, float]:
    """Return how many requests each fairness id has sent."""
    series = (await stack.metrics()).series("request_total")
    return {labels["fairness_id"]: value for labels, value in series if value}


async def assert_flow(stack: Stack, fairness_id: str, headers: Headers, model: str = "m") -> None:
    """A request with these headers belongs to this flow alone, none of which was seen before."""
    before = await flows(stack)
    assert fairness_id not in before
    gateway = await stack.gateway()
    async with Http1(gateway.port) as http1:
        body = json.dumps({"model": model, "prompt": "hello"}).encode()
        assert (await http1.post(ECHO, body, headers)).status == 200
    assert await flows(stack) == before | {fairness_id: 1.0}


async def test_a_header_of_ones_own_says_whose_a_request_is(told: Stack) -> None:
    """Also where the client says something else; the first source that has an id counts."""
    tenant = str(uuid4())
    claim = ("authorization", f"Bearer {token({'org': {'tenant': 'other'}})}")
    await assert_flow(told, tenant, [("x-tenant", tenant), claim, (FAIRNESS_ID, "other")], "other")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", ""])
async def test_a_claim_of_a_token_says_whose_a_request_is(told: Stack, scheme: str) -> None:
    tenant = f"tenant-ä-{uuid4()}"
    claims = {"sub": "someone", "org": {"tenant": tenant}, "padding": "~?" * 5}
    await assert_flow(told, tenant, [("authorization", scheme + token(claims))])


async def test_a_claim_of_a_token_in_another_header_counts_where_there_is_no_other(
    told: Stack,
) -> None:
    subject = uuid4().int >> 80
    headers = [
        ("authorization", "Basic dXNlcjpwYXNzd29yZA=="),
        ("x-session", token({"sub": subject})),
    ]
    await assert_flow(told, str(subject), headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-tenant", "")],
        [("authorization", "Bearer not.a.token")],
        [("authorization", f"Bearer {token({'sub': 'without the claim'})}")],
        [(name, "someone else") for name in DEFAULT_HEADERS],
    ],
    ids=["no header", "empty header", "no token", "no claim", "default headers"],
)
async def test_the_model_is_the_flow_where_nothing_better_is_believed(
    told: Stack, headers: Headers
) -> None:
    """``trust.fairnessId: false``: the default headers are a source, and are not heeded."""
    model = f"model-{uuid4()}"
    await assert_flow(told, model, headers, model)


@pytest.mark.parametrize("mode", ["BUFFERED", "FULL_DUPLEX_STREAMED"])
async def test_headers_to_be_removed_never_reach_the_model_server(
    told: Stack, mode: BodyMode
) -> None:
    """Those that were heeded, those that were not, and those of requests without a body."""
    gateway = await told.gateway(request_body_mode=mode)
    bearer = f"Bearer {token({'org': {'tenant': 'acme'}})}"
    for body in (completion(), b"", None):
        request_id = str(uuid4())
        headers = [
            ("x-request-id", request_id),
            *((name, "acme") for name in ("x-tenant", "X-Tenant", "x-tenants")),
            ("authorization", bearer),
            ("x-session", token({"sub": "acme"})),
        ]
        async with Http1(gateway.port) as http1:
            method, path = ("GET", "/v1/models") if body is None else ("POST", ECHO)
            assert (await http1.request(method, path, headers, body)).status == 200
        found = dict(headers_at_the_server(told, request_id))
        assert not found.keys() & {"x-tenant", "x-session"}
        assert (found["x-tenants"], found["authorization"]) == ("acme", bearer)


async def post(gateway: Gateway, tenant: str, body: bytes) -> Response:
    async with Http1(gateway.port) as http1:
        answer = await http1.post(CHAT, body, [(FAIRNESS_ID, tenant)])
    assert answer.status == 200
    return answer


def usage_of(answer: Response) -> tuple[int, int]:
    """Return the tokens of prompt and output that an answer tells, JSON or a stream."""
    documents = [answer.body]
    if answer.headers["content-type"].startswith("text/event-stream"):
        events = answer.body.decode().split("\n\n")
        documents = [each.removeprefix("data: ").encode() for each in events if "usage" in each]
    usage = json.loads(documents[-1])["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


def estimated(body: bytes) -> int:
    """Return the tokens of the prompt where no response tells them."""
    return inspect_body(body, b"", max_inspected_bytes=len(body)).prompt_tokens


async def assert_cost(stack: Stack, tenant: str, expected: int) -> None:
    async def settled() -> None:
        page = await stack.metrics()
        assert page.sum("flow_control_served_cost_total", fairness_id=tenant) == expected

    await eventually(settled)


@pytest.mark.parametrize(
    "more",
    [{}, {"stream": True, "stream_options": {"include_usage": True}}],
    ids=["JSON", "stream"],
)
async def test_a_response_tells_what_it_has_cost(fast: Stack, more: dict[str, object]) -> None:
    """Prompt tokens, and output tokens twice, by the ``usage`` that passes through the EPP."""
    gateway = await fast.gateway(response_body_mode="FULL_DUPLEX_STREAMED")
    tenant, expected = str(uuid4()), 0
    for output_tokens in (1, 90):
        body = chat("what will it have been, " * 40, output_tokens, **more)
        prompt_tokens, told_tokens = usage_of(await post(gateway, tenant, body))
        assert told_tokens == output_tokens
        assert prompt_tokens != estimated(body)  # so it was not the estimate
        expected += prompt_tokens + 2 * output_tokens
        await assert_cost(fast, tenant, expected)


async def test_the_events_of_a_stream_that_does_not_tell_are_its_tokens(fast: Stack) -> None:
    gateway = await fast.gateway(response_body_mode="FULL_DUPLEX_STREAMED")
    tenant = str(uuid4())
    body = chat("what will it have been, " * 40, 90, stream=True)
    answer = await post(gateway, tenant, body)
    assert b"usage" not in answer.body
    events = answer.body.count(b"data:") - 1  # but for [DONE]
    assert 90 <= events <= 92
    await assert_cost(fast, tenant, estimated(body) + 2 * events)


async def test_a_response_that_is_not_seen_costs_by_its_time(stack: Stack) -> None:
    """A longer one has cost more, and none more than the most that it may bring."""
    gateway = await stack.gateway(response_body_mode="NONE")
    costs = []
    for output_tokens in (1, 40):
        tenant, body = str(uuid4()), chat("hello", output_tokens)
        await post(gateway, tenant, body)
        await stack.at_rest()
        page = await stack.metrics()
        costs.append(page.sum("flow_control_served_cost_total", fairness_id=tenant))
        assert 0 < costs[-1] <= estimated(body) + 2 * output_tokens
    assert costs[0] < costs[1]
