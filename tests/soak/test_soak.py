"""Random trouble for a minute, or for ``EPP_SOAK_S`` seconds, a minute in each test."""

import math
import os
import time
from collections import Counter

import pytest

from .world import SoakWorld

_SECONDS = float(os.environ.get("EPP_SOAK_S", "60"))
_MINUTE_S = 60.0
_STEPS = 2_000
_PROGRESS_EVERY_S = 10.0


@pytest.mark.parametrize("minute", range(max(1, math.ceil(_SECONDS / _MINUTE_S))))
def test_whatever_happens_nothing_is_left_at_rest(
    minute: int, capsys: pytest.CaptureFixture[str]
) -> None:
    start_s = time.monotonic()
    end_s = start_s + min(_MINUTE_S, _SECONDS - minute * _MINUTE_S)
    told_s, lives, outcomes = start_s, 0, Counter[str]()
    while lives == 0 or time.monotonic() < end_s:
        seed = minute * 100_000 + lives
        world = SoakWorld(seed)
        try:
            world.live(_STEPS)
            world.come_to_rest()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        lives += 1
        outcomes.update({each.value: n for each, n in world.recorder.outcomes.items()})
        if time.monotonic() - told_s >= _PROGRESS_EVERY_S:
            told_s = time.monotonic()
            with capsys.disabled():
                print(f"\nsoak: {told_s - start_s:.0f} s, {lives} lives, {dict(outcomes)}")
