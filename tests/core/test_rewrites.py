"""Which model stands for the one that a client named."""

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.claims import RequestClaims
from epp.core.resources import ModelTarget, RewriteRule
from epp.core.rewrites import ModelRewrites

_RNG = random.Random(1)
_CONVERSATIONS = [_RNG.randrange(1, 1 << 64) for _ in range(4_000)]


def _rule(*models: str, to: str | dict[str, int | None]) -> RewriteRule:
    targets = {to: None} if isinstance(to, str) else to
    return RewriteRule(models=models, targets=tuple(ModelTarget(*each) for each in targets.items()))


def _target(
    rules: Iterable[RewriteRule], model: str = "m", conversation: int = 0, seed: int = 0
) -> str | None:
    claims = RequestClaims(model=model, conversation=conversation)
    return ModelRewrites(rules).target(claims, random.Random(seed))


def _choices(weights: dict[str, int | None]) -> list[str | None]:
    """Return the targets of all conversations."""
    rewrites = ModelRewrites([_rule(to=weights)])
    rng = random.Random(0)
    claims = (RequestClaims(model="m", conversation=each) for each in _CONVERSATIONS)
    return [rewrites.target(each, rng) for each in claims]


@pytest.mark.parametrize(
    ("rules", "model", "expected"),
    [
        ((), "m", None),
        ((_rule("m", to="n"),), "m", "n"),
        ((_rule("m", to="n"),), "other", None),
        ((_rule("l", "m", to="n"),), "m", "n"),
        ((_rule(to="any"),), "m", "any"),
        ((_rule(to="any"),), "", None),
        ((_rule("m", to="m"),), "m", None),
        ((_rule(to="any"), _rule("m", to="n")), "m", "n"),
        ((_rule("m", to="first"), _rule("m", to="second")), "m", "first"),
        ((_rule(to="first"), _rule(to="second")), "m", "first"),
        ((_rule("m", to="m"), _rule(to="any")), "m", None),
    ],
)
def test_exact_rules_come_before_generic_ones_and_of_each_kind_the_first_counts(
    rules: tuple[RewriteRule, ...], model: str, expected: str | None
) -> None:
    assert _target(rules, model) == expected
    assert bool(ModelRewrites(rules)) == bool(rules)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": 70, "b": 30}, {"a": 0.7, "b": 0.3}),
        ({"a": 50, "b": 50}, {"a": 0.5, "b": 0.5}),
        ({"a": None, "b": None}, {"a": 0.5, "b": 0.5}),
        ({"a": 100, "b": None}, {"a": 1.0}),
        ({"a": 1, "b": 2, "c": 1}, {"a": 0.25, "b": 0.5, "c": 0.25}),
    ],
)
def test_each_target_gets_its_share(
    weights: dict[str, int | None], expected: dict[str, float]
) -> None:
    """Of conversations, and of requests that belong to none."""
    rewrites, rng = ModelRewrites([_rule(to=weights)]), random.Random(5)
    drawn = [rewrites.target(RequestClaims(model="m"), rng) for _ in _CONVERSATIONS]
    for choices in (_choices(weights), drawn):
        shares = {model: count / len(choices) for model, count in Counter(choices).items()}
        assert shares == pytest.approx(expected, abs=0.04)


def test_a_target_that_stands_twice_has_both_weights() -> None:
    targets = (ModelTarget("a", 40), ModelTarget("b", 20), ModelTarget("a", 40))
    rewrites, rng = ModelRewrites([RewriteRule(targets=targets)]), random.Random(0)
    drawn = [rewrites.target(RequestClaims(model="m"), rng) for _ in _CONVERSATIONS]
    assert drawn.count("a") / len(drawn) == pytest.approx(0.8, abs=0.03)


@given(conversation=st.integers(1, (1 << 64) - 1), seed=st.integers())
@settings(max_examples=30)
def test_a_conversation_stays_with_its_target(conversation: int, seed: int) -> None:
    rule = _rule(to={"a": 1, "b": 1, "c": 1})
    reversed_rule = _rule(to={"c": 1, "b": 1, "a": 1})
    expected = _target([rule], conversation=conversation)
    assert _target([reversed_rule], conversation=conversation, seed=seed) == expected


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        ({"a": 90, "b": 10}, {"a": 80, "b": 20}, {("a", "b"): 0.1}),
        ({"a": 50, "b": 50}, {"a": 5, "b": 5}, {}),
        ({"a": 50, "b": 50}, {"a": 45, "b": 45, "c": 10}, {("a", "c"): 0.05, ("b", "c"): 0.05}),
        ({"a": 60, "b": 20, "c": 20}, {"b": 50, "c": 50}, {("a", "b"): 0.3, ("a", "c"): 0.3}),
    ],
)
def test_a_change_of_weights_moves_no_more_than_it_must(
    before: dict[str, int | None],
    after: dict[str, int | None],
    moves: dict[tuple[str, str], float],
) -> None:
    pairs = Counter(zip(_choices(before), _choices(after), strict=True))
    moved = {pair: count / len(_CONVERSATIONS) for pair, count in pairs.items()}
    assert {pair: share for pair, share in moved.items() if pair[0] != pair[1]} == pytest.approx(
        moves, abs=0.02
    )


def test_conversations_matter_where_there_is_a_choice() -> None:
    single = _rule("m", to={"a": 1, "b": None})
    assert not ModelRewrites([single, _rule(to="n")]).has_choices
    assert ModelRewrites([single, _rule(to={"a": None, "b": None})]).has_choices
    assert ModelRewrites([_rule("m", to={"a": 1, "b": 1})]).has_choices
