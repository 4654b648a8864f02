import random
from collections import deque

import pytest

from epp.core.flow.saturation.climb import Climb
from epp.core.gate import Ending


def ending(*, status: int = 200, cause: str = "complete", tokens: int | None, first_s: float):
    return Ending(
        status=status,
        cause=cause,
        duration_s=1.0,
        response_bytes=None,
        first_byte_s=first_s,
        output_tokens=tokens,
        prompt_tokens=100,
    )


class Machine:
    """Runs so many at a time, each for ``0.02 s`` a token, whatever else it runs; others wait."""

    def __init__(self, runs: int, limit: int, *, tell: float = 1.0, doubles: bool = True) -> None:
        self.climb = Climb(limit, 1000, doubles=doubles, now=0.0)
        self.runs = runs
        self.telling_share = tell
        self.is_used = True
        self.rng = random.Random(1)
        self.waiting: deque[tuple[float, int]] = deque()
        self.running: list[tuple[float, float, float, int]] = []
        self.now = 0.0

    def run(self, seconds: float, **said: object) -> None:
        until_s = self.now + seconds
        while self.now < until_s:
            limit = self.climb.limit if self.is_used else self.climb.limit - 1
            while len(self.waiting) + len(self.running) < limit:
                self.waiting.append((self.now, self.rng.randint(50, 150)))
                self.climb.dispatched(len(self.waiting) + len(self.running), self.now)
            while self.waiting and len(self.running) < self.runs:
                since_s, tokens = self.waiting.popleft()
                ends_s = self.now + 0.02 * tokens
                self.running.append((ends_s, since_s, self.now - since_s + 0.02, tokens))
            first = min(self.running)
            self.running.remove(first)
            ends_s, since_s, first_s, tokens = first
            self.now = ends_s
            tells = self.rng.random() < self.telling_share
            told = ending(tokens=tokens if tells else None, first_s=first_s, **said)
            self.climb.ended(told, self.now - since_s, self.now)


@pytest.mark.parametrize(("tell", "most"), [(1.0, 55), (0.5, 70), (0.0, 70)])
def test_it_finds_what_the_machine_runs(tell: float, most: int) -> None:
    machine = Machine(40, 8, tell=tell)
    machine.run(400)
    assert 30 <= machine.climb.limit <= most


def test_it_comes_down_from_too_many() -> None:
    machine = Machine(20, 60, doubles=False)
    machine.run(1500)
    assert machine.climb.limit <= 30


def test_a_limit_that_is_not_used_stays() -> None:
    machine = Machine(1000, 8)
    machine.is_used = False
    machine.run(200)
    assert machine.climb.limit == 8


@pytest.mark.parametrize("said", [{"status": 503}, {"cause": "aborted"}])
def test_what_fails_is_no_work(said: dict[str, object]) -> None:
    machine = Machine(1000, 8)
    machine.run(200, **said)
    assert machine.climb.limit == 8


def test_what_began_before_counts_for_nothing() -> None:
    climb = Climb(1, 10, doubles=True, now=100.0)
    for _ in range(100):
        climb.dispatched(1, 100.0)
        assert not climb.ended(ending(tokens=10, first_s=0.1), 5.0, 104.0)
    assert climb.limit == 1


def test_time_to_the_first_byte_tells_how_many_wait() -> None:
    machine = Machine(40, 32)
    machine.run(30)
    assert 38 <= machine.climb.limit <= 55  # and not back to 32, after 64 were too many


def test_where_responses_tell_no_tokens_any_more_requests_are_counted() -> None:
    machine = Machine(40, 8)
    machine.run(5)
    machine.telling_share = 0.0
    machine.run(400)
    assert 30 <= machine.climb.limit <= 70
