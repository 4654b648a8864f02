"""What a configuration says is what the flow control and the scheduler do."""

import json

import pytest

from epp.core.claims import ClaimsReader
from epp.core.headers import Headers
from epp.core.request import Outcome

from ..core.flow.offers import offer
from ..core.support import Harness, RecordingGateWaiter, headers, request
from .support import parse


def places(text: str, prompts: list[str], extra: Headers | None = None) -> list[str]:
    """Where requests with these prompts go, one after the other, in a pool of eight."""
    config = parse(text)
    reader = ClaimsReader(config.claims)
    harness = Harness(range(1, 9), scheduler=config.new_scheduler(), max_concurrency=100)
    found: list[str] = []
    for prompt in prompts:
        body = json.dumps({"model": "m", "prompt": prompt}).encode()
        claims = reader.read(extra or headers(), body, None, max_inspected_bytes=1 << 20)
        waiter = RecordingGateWaiter()
        harness.router.admit(claims, waiter, harness.now)
        found.append(waiter.destination)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "plugins: [{type: prefix-cache-scorer}]",
        "schedulingProfiles: [{name: a, plugins: [{pluginRef: prefix-cache-scorer}]}]",
        "plugins: [{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 16}},"
        " {type: prefix-cache-scorer}, {type: active-request-scorer, name: a}]\n"
        "schedulingProfiles: [{name: a, plugins: [{pluginRef: prefix-cache-scorer, weight: 9},"
        " {pluginRef: a}]}]",
    ],
)
def test_the_same_prompt_goes_where_it_is_cached(text: str) -> None:
    assert len(set(places(text, ["the same " * 400] * 20))) == 1


def test_weights_decide_what_counts_more() -> None:
    text = """
        schedulingProfiles:
        - name: a
          plugins:
          - {pluginRef: prefix-cache-scorer, weight: %s}
          - {pluginRef: active-request-scorer, weight: 1}
        """
    prompts = ["the same " * 400] * 8
    assert len(set(places(text % 3, prompts))) == 1
    assert len(set(places(text % 0.001, prompts))) == 8


def test_the_profile_that_a_header_names_is_run() -> None:
    text = """
        plugins: [{type: header-profile-handler, parameters: {defaultProfile: stay}}]
        schedulingProfiles:
        - {name: stay, plugins: [{pluginRef: prefix-cache-scorer}]}
        - {name: spread, plugins: [{pluginRef: active-request-scorer}]}
        """
    prompts = ["the same " * 400] * 8
    assert len(set(places(text, prompts))) == 1
    named = headers((b"epp-profile", b"spread"))
    assert len(set(places(text, prompts, named))) == 8


def test_a_band_whose_wait_has_no_limit_waits_without_end() -> None:
    flow = parse("""
        flowControl:
          defaultRequestTTL: 1s
          priorityBands: [{priority: 1, requestTTL: 0s}, {priority: 2, requestTTL: 3s}]
        """).flow
    harness = Harness([1], options=flow)
    harness.occupy(1)
    waiters = {priority: offer(harness, request(priority))[0] for priority in (0, 1, 2)}
    own, ticket = offer(harness, request(1, wait_limit_s=5.0))
    assert ticket.deadline_s == harness.now + 5.0
    harness.clock.advance(2.0)
    assert waiters[0].outcome is Outcome.EXPIRED
    assert waiters[2].outcome is None
    harness.clock.advance(2.0)
    assert waiters[2].outcome is Outcome.EXPIRED
    harness.clock.advance(1e9)
    assert waiters[1].outcome is None
    assert own.outcome is Outcome.EXPIRED


def test_bounds_are_those_of_each_band() -> None:
    flow = parse("""
        flowControl:
          defaultPriorityBand: {maxRequests: 2}
          defaultNegativePriorityBand: {maxRequests: 1}
          priorityBands: [{priority: 5, maxRequests: 3}]
        """).flow
    harness = Harness([1], options=flow)
    harness.occupy(1)
    for priority, room in ((7, 2), (5, 3), (0, 2), (-1, 1)):
        waiters = [offer(harness, request(priority))[0] for _ in range(room + 1)]
        outcomes = [waiter.outcome for waiter in waiters]
        assert outcomes == [None] * room + [Outcome.REJECTED_CAPACITY]
