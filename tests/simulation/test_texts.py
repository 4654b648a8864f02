from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.simulation.prefix_store import Text
from epp.simulation.scenario import (
    Adapters,
    Chat,
    Documents,
    Lognormal,
    RandomText,
    SharedPrefix,
    Tenant,
    Uniform,
)
from epp.simulation.texts import HASHED_TOKENS, Ask, Writer, prefix_hashes
from tests.simulation.support import tenant


def _asks(of: Tenant, count: int, most_tokens: int = 100_000, seed: str = "1") -> list[Ask]:
    writer = Writer(of, 0, seed, most_tokens)
    return [ask for _ in range(count) for ask in writer.conversation()]


def test_without_content_there_is_no_text() -> None:
    asks = _asks(tenant(prompt_tokens=100, output_tokens=20), 3)
    assert asks == [Ask(100, 20)] * 3


def test_random_texts_have_nothing_in_common() -> None:
    asks = _asks(tenant(prompt_tokens=100, output_tokens=20, content=RandomText()), 3)
    assert [ask.text for ask in asks] == [((number, 120),) for number in range(3)]


def test_prefixes_are_shared_the_first_ones_most() -> None:
    content = SharedPrefix(prefixes=10, prefix_tokens=Uniform(low=500, high=1500), zipf=1.0)
    asks = _asks(tenant(prompt_tokens=100, output_tokens=20, content=content), 4000)
    uses = Counter(ask.text[0] for ask in asks)
    assert len(uses) == 10
    assert len({ask.text[1] for ask in asks}) == 4000
    # The sum of 1/n up to 10 is 2.93.
    for place, (_, count) in enumerate(uses.most_common(3)):
        assert count == pytest.approx(4000 / 2.93 / (place + 1), rel=0.1)
    for ask in asks:
        (_, begin), (_, end) = ask.text
        assert (ask.prompt_tokens, end) == (begin + 100, begin + 120)


def test_a_chat_repeats_all_that_was_said() -> None:
    content = Chat(turns=4, think_s=10.0, prefixes=2, prefix_tokens=300)
    asks = _asks(tenant(prompt_tokens=100, output_tokens=20, content=content), 50)
    assert len(asks) == 200
    for turn, (before, ask) in enumerate(pairwise(asks), start=1):
        if turn % 4:
            assert ask.text[:-1] == before.text
            assert ask.prompt_tokens == before.prompt_tokens + 120
        else:
            assert ask.prompt_tokens == 400
    thinking_s = [ask.think_s for ask in asks]
    assert sum(thinking_s) / len(thinking_s) == pytest.approx(10.0, rel=0.2)
    assert len({ask.text[0] for ask in asks}) == 2


def test_documents_give_way_when_they_have_been_asked_about() -> None:
    content = Documents(documents=5, document_tokens=1000, questions=3)
    asks = _asks(tenant(prompt_tokens=10, output_tokens=20, content=content), 300)
    uses = Counter(ask.text[0] for ask in asks)
    assert set(uses.values()) <= {1, 2, 3}
    open_at_the_end_or_begun_before = 10
    assert sum(1 for count in uses.values() if count < 3) <= open_at_the_end_or_begun_before
    for number in range(len(asks)):
        latest = {ask.text[0] for ask in asks[max(0, number - 20) : number]}
        assert len(latest) <= 5 + 20 // 3 + 1


def test_each_adapter_has_a_cache_of_its_own() -> None:
    content = SharedPrefix(prefixes=1, prefix_tokens=500)
    of = tenant(prompt_tokens=100, content=content, adapters=Adapters(count=3, zipf=0.0))
    beginnings = {(ask.adapter, ask.text[0][0]) for ask in _asks(of, 100)}
    assert {adapter for adapter, _ in beginnings} == {f"a-adapter-{number}" for number in range(3)}
    assert len({piece for _, piece in beginnings}) == len(beginnings) == 3


@pytest.mark.parametrize(
    "content",
    [
        RandomText(),
        SharedPrefix(prefixes=3, prefix_tokens=900),
        Chat(turns=20, prefix_tokens=100),
        Documents(documents=3, document_tokens=5000),
    ],
)
def test_nothing_is_longer_than_the_engines_take(content: object) -> None:
    lengths = Lognormal(mean=200, sigma=1.5)
    of = tenant(prompt_tokens=lengths, output_tokens=lengths, content=content)
    for ask in _asks(of, 300, most_tokens=1000):
        assert ask.output_tokens >= 1
        assert ask.prompt_tokens >= 1
        assert ask.prompt_tokens + ask.output_tokens <= 1000
        assert ask.text[-1][1] == ask.prompt_tokens + ask.output_tokens


def test_the_same_seed_writes_the_same() -> None:
    of = tenant(content=Chat(prefixes=3), adapters=Adapters(count=5))
    assert _asks(of, 20) == _asks(of, 20)
    assert _asks(of, 20) != _asks(of, 20, seed="2")
    assert {ask.text[0] for ask in _asks(of, 20)}.isdisjoint(
        ask.text[0] for ask in Writer(of, 1, "1", 100_000).conversation()
    )


_LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=6)


@given(_LENGTHS, _LENGTHS, st.integers(0, 6))
@settings(max_examples=50)
def test_hashes_are_equal_as_far_as_texts_are(
    one: list[int], other: list[int], shared: int
) -> None:
    other = [*one[:shared], *other]

    def text(lengths: list[int], own: int) -> Text:
        return tuple(
            (number if number < shared else own + number, sum(lengths[: number + 1]))
            for number in range(len(lengths))
        )

    def hashes(lengths: list[int], own: int) -> list[bytes]:
        found = prefix_hashes(text(lengths, own), sum(lengths))
        assert len(found) == 8 * (sum(lengths) // HASHED_TOKENS)
        return [found[at : at + 8] for at in range(0, len(found), 8)]

    ours, theirs = hashes(one, 1000), hashes(other, 2000)
    common = sum(one[:shared]) // HASHED_TOKENS
    assert ours[:common] == theirs[:common]
    assert set(ours[common:]).isdisjoint(theirs[common:])
    assert len(set(ours)) == len(ours)


def test_a_prompt_without_a_full_block_has_no_hashes() -> None:
    assert prefix_hashes(((1, 63),), 63) == b""
    assert prefix_hashes((), 1000) == b""
