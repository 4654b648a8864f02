"""Many requests between two pages of metrics do not all go to the endpoint that looked best."""

import random
from collections import Counter
from typing import Any

import pytest

from epp.core.claims import RequestClaims
from epp.core.scheduling import ProfileScheduler, SchedulingProfile, WeightedScorer

from ..support import Harness, RecordingGateWaiter, destination
from .support import PluginsByName, make, told

_ENDPOINTS = range(1, 9)
_REFERENCE_WEIGHTS = {
    "queue-scorer": 2.0,
    "kv-cache-utilization-scorer": 2.0,
    "prefix-cache-scorer": 3.0,
}


def _reference_profile() -> ProfileScheduler:
    """Return a scheduler by the llm-d router's default configuration."""
    plugins = PluginsByName()
    cache = plugins.plugin("", default_type="approx-prefix-cache-producer")
    scorers = [
        WeightedScorer(type_, make(type_, context=plugins), weight)
        for type_, weight in _REFERENCE_WEIGHTS.items()
    ]
    profile = SchedulingProfile("default", (), scorers, make("max-score-picker"))
    return ProfileScheduler(profile, [cache])


def _burst(loads: list[Any], prefixes: list[bytes]) -> Counter[str]:
    """Return who got how many of requests within one millisecond, one second after the pages."""
    harness = Harness(_ENDPOINTS, scheduler=_reference_profile(), max_concurrency=1000)
    for number, load in zip(_ENDPOINTS, loads, strict=False):
        harness.router.scraped(destination(number), load, harness.now)
    harness.clock.advance(1.0)
    waiters = []
    for index, prefix in enumerate(prefixes):
        waiter = RecordingGateWaiter()
        claims = RequestClaims(model="base", prompt_tokens=640, prefix=prefix)
        harness.router.admit(claims, waiter, harness.now + index * 1e-3 / len(prefixes))
        waiters.append(waiter)
    return Counter(waiter.destination for waiter in waiters)


def _prompts(count: int, common_blocks: int = 0) -> list[bytes]:
    """Return the prefixes of prompts of 10 blocks, of which the first ones are the same."""
    rng = random.Random(1)
    common = rng.randbytes(8 * common_blocks)
    return [common + rng.randbytes(8 * (10 - common_blocks)) for _ in range(count)]


@pytest.mark.parametrize("common_blocks", [0, 1, 5])
def test_equal_endpoints_get_equal_shares_of_a_burst(common_blocks: int) -> None:
    shares = _burst([told(kv_ratio=0.5)] * 8, _prompts(64, common_blocks))
    assert len(shares) == 8
    assert max(shares.values()) <= 9


def test_engines_of_which_nothing_is_known_get_equal_shares() -> None:
    assert max(_burst([], _prompts(64)).values()) <= 9


def test_the_endpoint_that_looked_best_gets_only_what_it_has_ahead() -> None:
    loads = [told(waiting=2, kv_ratio=0.5)] * 7 + [told(kv_ratio=0.5)]
    shares = _burst(loads, _prompts(62))
    assert shares[destination(8)] <= 9 + 2
    assert max(shares.values()) <= 11


def test_the_weights_of_the_reference_send_equal_prompts_to_one_endpoint() -> None:
    """All of the prompt counts 3 there, and the shortest queue 2, however long the others are."""
    shares = _burst([told(kv_ratio=0.5)] * 8, _prompts(64, common_blocks=10))
    assert list(shares.values()) == [64]
