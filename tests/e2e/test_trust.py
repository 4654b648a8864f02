"""What a client must not be able to do by its headers."""

from uuid import uuid4

import pytest

from epp.core.headers import CONTROL_HEADERS
from epp.gateway.options import BodyMode

from .http1 import Http1
from .http2 import Http2
from .stack import Stack
from .support import HINT_HEADER, completion, subset_hint

COMPLETIONS = "/v1/completions"
DESTINATION = "x-gateway-destination-endpoint"
CONTROL = [name.decode() for name in CONTROL_HEADERS]


def headers_at_the_server(stack: Stack, request_id: str) -> list[tuple[str, str]]:
    records = [record for server in stack.servers for record in server.state().requests]
    (found,) = (record.headers for record in records if record.request_id == request_id)
    return found


def test_the_control_headers_are_those_that_steer_the_picker() -> None:
    """Duty: these names, the present ones and their aliases."""
    assert {
        DESTINATION,
        "x-gateway-destination-endpoint-subset",
        "x-gateway-destination-endpoint-served",
        "x-llm-d-inference-objective",
        "x-gateway-inference-objective",
        "x-llm-d-inference-fairness-id",
        "x-gateway-inference-fairness-id",
        "x-gateway-request-ttl-ms",
    } <= set(CONTROL)


@pytest.mark.parametrize("strip", [True, False], ids=["envoy strips too", "only the EPP"])
@pytest.mark.parametrize(
    "mode", ["NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED"]
)
async def test_control_headers_of_a_client_never_reach_the_model_server(
    fast: Stack, mode: BodyMode, strip: bool
) -> None:
    """Trap: remove what steers the picker from what came in, whatever the proxy has done."""
    gateway = await fast.gateway(request_body_mode=mode, strip_destination=strip)
    for body in (completion(), None, b""):
        request_id = str(uuid4())
        sent = [(name, "127.0.0.1:1") for name in CONTROL for _ in range(2)]
        sent += [(name.upper(), "EVIL") for name in CONTROL]
        async with Http1(gateway.port) as http1:
            answer = await http1.request(
                "GET" if body is None else "POST",
                "/v1/models" if body is None else "/debug/echo",
                [*sent, ("x-request-id", request_id), ("x-kept", "1"), ("x-kept", "2")],
                body,
            )
        assert answer.status == 200
        found = headers_at_the_server(fast, request_id)
        steering = [(name, value) for name, value in found if name in CONTROL]
        # The one that the EPP has set is the gateway's own affair.
        assert steering == [(DESTINATION, fast.destination(0))]
        assert [value for name, value in found if name == "x-kept"] in (["1", "2"], ["1,2"])


@pytest.mark.parametrize("strip", [True, False], ids=["envoy strips too", "only the EPP"])
@pytest.mark.parametrize("mode", ["BUFFERED", "FULL_DUPLEX_STREAMED"])
async def test_a_destination_of_the_client_does_not_choose(
    stack: Stack, mode: BodyMode, strip: bool
) -> None:
    """Trap: a client must not be able to name its destination."""
    gateway = await stack.gateway(
        request_body_mode=mode, strip_destination=strip, subset_hint_header=HINT_HEADER
    )
    wanted, given = stack.destination(0), stack.destination(1)
    for name in (DESTINATION, f"{DESTINATION}-subset", f"{DESTINATION}-served"):
        for _ in range(3):
            headers = [(name, wanted), (name, f"{wanted},{wanted}"), subset_hint(given)]
            async with Http1(gateway.port) as http1:
                answer = await http1.post(COMPLETIONS, completion(max_tokens=1), headers)
                assert (answer.status, answer.headers["x-served-by"]) == (200, "two")
                answer = await http1.request("GET", "/v1/models", headers)
                assert (answer.status, answer.headers["x-served-by"]) == (200, "two")
            async with Http2(gateway.port) as http2:
                answer = await http2.post(COMPLETIONS, completion(max_tokens=1), headers)
                assert (answer.status, answer.headers["x-served-by"]) == (200, "two")
    assert (await stack.metrics()).leases().keys() == {
        stack.destination(number) for number in range(3)
    }


async def test_without_a_hint_all_servers_are_picked_whatever_the_client_says(
    stack: Stack,
) -> None:
    """One that had much to do of late has its turn after the others have caught up."""
    gateway = await stack.gateway()
    names: set[str] = set()
    for _ in range(300):
        async with Http1(gateway.port) as http1:
            headers = [(DESTINATION, stack.destination(0))]
            names.add((await http1.post("/debug/echo", b"x", headers)).headers["x-served-by"])
        if len(names) == 3:
            break
    assert names == {"one", "two", "three"}


@pytest.mark.parametrize(
    ("header", "alias"),
    [
        ("x-llm-d-inference-objective", "x-gateway-inference-objective"),
        ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"),
    ],
)
async def test_headers_have_aliases_and_the_present_name_counts_first(
    fast: Stack, header: str, alias: str
) -> None:
    """Duty: the headers' names and their aliases."""
    gateway = await fast.gateway()
    is_objective = "objective" in header
    one, other = ("interactive", "batch") if is_objective else (str(uuid4()), str(uuid4()))

    async def counted(value: str) -> float:
        metrics = await fast.metrics()
        if is_objective:
            priority = {"interactive": 10, "batch": -10}[value]
            return metrics.sum("request_total", priority=priority)
        return metrics.sum("request_total", fairness_id=value)

    async with Http1(gateway.port) as http1:
        for headers, expected in (
            ([(header, one)], one),
            ([(alias, one)], one),
            ([(alias, other), (header, one)], one),
            ([(header, ""), (alias, one)], one),
        ):
            before = await counted(expected)
            assert (await http1.post("/debug/echo", b"x", headers)).status == 200
            assert await counted(expected) == before + 1, headers
