"""The limits that `adaptive` finds, against the best fixed ones, with the simulated engine itself.

A shorter version of `benchmarks/adaptive.py`: one seed, fewer fixed limits to choose the best from.
"""

from functools import cache

import pytest

from benchmarks.saturation_rig import (
    PROFILES,
    Figures,
    Load,
    Profile,
    Reports,
    best_fixed,
    fresh,
    frozen,
    late,
    outage,
    run,
)
from epp.core.flow.saturation import AdaptiveOptions

_SEED = 1
_LIMITS = (32, 44, 64, 80, 112, 160)
_LOAD = Load(from_s=60, until_s=180)
_PROFILES = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


@cache
def best(profile: Profile, load: Load = _LOAD) -> float:
    return best_fixed(profile, load, _SEED, _LIMITS)[1]


def adaptive(profile: Profile, reports: Reports = fresh, load: Load = _LOAD) -> Figures:
    return run(profile, AdaptiveOptions(), load, _SEED, reports)


@_PROFILES
def test_the_best_fixed_limit_is_hardly_better_and_next_to_nothing_waits(profile: Profile) -> None:
    figures = adaptive(profile)
    assert figures.tokens_per_s >= 0.95 * best(profile)
    assert figures.waiting <= 2.0


@_PROFILES
def test_within_30_s_it_has_followed_four_times_the_load(profile: Profile) -> None:
    change = Load(
        from_s=150,
        until_s=240,
        rate_per_s=0.4 * best(profile) / profile.output_tokens,
        change_s=120,
        change_factor=4.0,
    )
    figures = adaptive(profile, load=change)
    assert figures.tokens_per_s >= 0.9 * best(profile, change)
    assert figures.waiting <= 2.0


@_PROFILES
@pytest.mark.parametrize(
    "reports",
    [late(5), frozen(60), outage(60)],
    ids=["five-seconds-late", "frozen", "none-any-more"],
)
def test_reports_that_are_worth_little_cost_little(profile: Profile, reports: Reports) -> None:
    assert adaptive(profile, reports).tokens_per_s >= 0.9 * best(profile)
