"""The chain of a prompt's hashes: the same as far as prompts are the same, and no further."""

import base64
import json
import random
import string
from array import array
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from epp.core.parsing import inspect_body

_BLOCK_BYTES = 256
_PROSE = "Once upon a time there was a pool of engines, and each took what it could. " * 30


def _chain(
    document: dict[str, Any], *, most: int = 131_072, block: int = 64, dumps: Any = None
) -> list[int]:
    body = (dumps or msgspec.json.encode)({"model": "m", **document})
    found = inspect_body(
        body,
        b"",
        max_inspected_bytes=1 << 24,
        prefix_block_tokens=block,
        max_prefix_tokens=most,
    )
    return array("Q", found.prefix).tolist()


def _same(one: list[int], other: list[int]) -> int:
    """Return how many blocks two chains have in common; from there on they have none."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    assert not set(one[count:]) & set(other[count:])
    return count


def _user(text: object) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_the_chain_is_that_of_the_formula() -> None:
    text = f'"{_PROSE}'.encode()
    links = [0]
    for start in range(0, len(text) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        links.append(xxh3_64_intdigest(text[start : start + _BLOCK_BYTES], links[-1]))
    assert _chain({"prompt": _PROSE}) == links[1:]
    assert len(links) == 1 + 2251 // 256


@pytest.mark.parametrize(("size", "blocks"), [(0, 0), (254, 0), (255, 1), (510, 1), (511, 2)])
def test_only_full_blocks_are_hashed(size: int, blocks: int) -> None:
    """The quote that begins a text is its first byte."""
    assert len(_chain({"prompt": "x" * size})) == blocks


def test_nothing_is_hashed_unless_that_is_asked_for() -> None:
    assert _chain({"prompt": _PROSE}, block=0) == []
    assert _chain({"prompt": _PROSE}, most=0) == []
    assert inspect_body(b'{"prompt":"x"}', b"", max_inspected_bytes=99).prefix == b""


@pytest.mark.parametrize("most", [64, 100, 127, 128, 300])
@pytest.mark.parametrize("prompt", [_PROSE, list(range(1_000)), [_user("a")] * 200])
def test_so_much_of_a_prompt_counts(most: int, prompt: object) -> None:
    whole = _chain({"prompt": prompt})
    assert len(whole) > 5
    assert _chain({"prompt": prompt}, most=most) == whole[: most // 64]


_TEXTS = st.text(alphabet=string.printable + "\u00e9\u4e2d\U0001f600", min_size=1, max_size=600)


@settings(max_examples=40)
@given(
    turns=st.lists(_TEXTS, min_size=1, max_size=12),
    indent=st.sampled_from([None, 2]),
    system=st.none() | _TEXTS,
)
def test_a_chat_that_gets_longer_keeps_its_chain(
    turns: list[str], indent: int | None, system: str | None
) -> None:
    def dumps(document: object) -> bytes:
        return json.dumps(document, indent=indent).encode()

    messages = [_user(text) for text in turns]
    chains = [
        _chain({"system": system, "messages": messages[:count]}, dumps=dumps)
        for count in range(1, len(turns) + 1)
    ]
    for shorter, longer in pairwise(chains):
        assert longer[: len(shorter)] == shorter


@pytest.mark.parametrize("indent", [None, 2])
def test_wherever_the_last_block_ends_it_stays(indent: int | None) -> None:
    def dumps(document: object) -> bytes:
        return json.dumps(document, indent=indent).encode()

    for size in range(_BLOCK_BYTES):
        shorter, longer = (
            _chain({"messages": [_user("x" * (600 + size))] * count}, dumps=dumps)
            for count in (1, 2)
        )
        assert longer[: len(shorter)] == shorter


@settings(max_examples=40)
@given(data=st.data(), size=st.integers(1, 3_000))
def test_prompts_are_the_same_up_to_where_they_differ(data: st.DataObject, size: int) -> None:
    at = data.draw(st.integers(0, size - 1))
    text = "".join(random.Random(size).choices(string.ascii_lowercase, k=size))
    other = text[:at] + "!" + text[at + 1 :]
    count = _same(_chain({"prompt": text}), _chain({"prompt": other}))
    assert count == min((at + 1) // _BLOCK_BYTES, (size + 1) // _BLOCK_BYTES)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("tools", "messages"), ("system", "messages"), ("instructions", "input"),
        ("tools", "system"), ("tools", "instructions"), ("image_data", "text"),
    ],
)  # fmt: skip
def test_what_engines_render_first_is_hashed_first(first: str, then: str) -> None:
    """Whatever the order in the body."""
    rest = {"messages": [_user("hi")]} if then == "system" else {}
    rest |= {"input": "hi"} if then == "instructions" else {}
    one, other = [_user(_PROSE + "one")], [_user(_PROSE + "other")]
    base = _chain({first: one, then: one} | rest)
    assert base == _chain(rest | {then: one, first: one})
    blocks = len(msgspec.json.encode(one)) // _BLOCK_BYTES
    assert _same(base, _chain({first: one, then: other} | rest)) >= 2 * blocks - 1
    assert _same(base, _chain({first: other, then: one} | rest)) == blocks


@pytest.mark.parametrize("field", ["messages", "prompt", "input", "text", "input_ids", "token_ids"])
def test_each_api_has_its_prompt(field: str) -> None:
    one: object = [_user(_PROSE)] if field == "messages" else _PROSE
    other: object = [_user("x" + _PROSE)] if field == "messages" else "x" + _PROSE
    if field.endswith("ids"):
        one, other = list(range(300)), list(range(1, 301))
    assert len(_chain({field: one})) >= 4
    assert _same(_chain({field: one}), _chain({field: other})) == 0


def test_what_the_responses_call_prompt_and_text_is_none() -> None:
    prompt = {"id": "pmpt_" + "x" * 300}
    assert _chain({"input": _PROSE, "prompt": prompt, "text": {"format": _PROSE}}) == _chain(
        {"input": _PROSE}
    )


@pytest.mark.parametrize("nothing", [None, [], "", {}])
def test_what_is_empty_is_absent(nothing: object) -> None:
    base = _chain({"messages": [_user(_PROSE)]})
    for field in ("tools", "system", "instructions", "prompt", "input"):
        assert _chain({"messages": [_user(_PROSE)], field: nothing}) == base
    assert _chain({"messages": nothing, "prompt": _PROSE}) == _chain({"prompt": _PROSE})
    assert _chain({"messages": nothing}) == []


def test_what_is_no_prompt_does_not_matter() -> None:
    base = _chain({"messages": [_user(_PROSE)]})
    more = {"temperature": 1, "stream": True, "user": "x" * 600, "cache_salt": "s", "model": "n"}
    assert _chain({**more, "messages": [_user(_PROSE)]}) == base


# Media


def _picture(seed: int, size_bytes: int = 60_000) -> dict[str, Any]:
    data = base64.b64encode(random.Random(seed).randbytes(size_bytes)).decode()
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}}


def test_a_picture_is_as_many_blocks_as_it_counts_tokens() -> None:
    small, large = (_user([_picture(1, size)]) for size in (9_000, 900_000))
    for chain in (_chain({"messages": [small]}), _chain({"messages": [large]})):
        assert len(chain) == 1024 // 64
    # Also in the middle of what counts at most.
    assert _chain({"messages": [large]}, most=640) == _chain({"messages": [large]})[:10]


def test_pictures_differ_and_a_chat_with_them_keeps_its_chain() -> None:
    text = _user(_PROSE)
    messages = [text, _user([_picture(1)]), text, _user([_picture(2)]), text]
    chains = [_chain({"messages": messages[:count]}) for count in range(1, 6)]
    for shorter, longer in pairwise(chains):
        assert longer[: len(shorter)] == shorter
        assert len(longer) > len(shorter)
    other = _chain({"messages": [text, _user([_picture(3)]), text]})
    assert len(chains[0]) <= _same(chains[-1], other) <= len(chains[0]) + 1


# Token ids


@settings(max_examples=40)
@given(
    size=st.integers(1, 400), bits=st.integers(1, 32), is_nested=st.booleans(),
    indent=st.sampled_from([None, 1]),
)  # fmt: skip
def test_token_ids_count_four_bytes_each(
    size: int, bits: int, is_nested: bool, indent: int | None
) -> None:
    ids = [random.Random(number).getrandbits(bits) for number in range(size)]
    packed = array("I", ids).tobytes()
    links = [0]
    for start in range(0, len(packed) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        links.append(xxh3_64_intdigest(packed[start : start + _BLOCK_BYTES], links[-1]))
    value = [ids[:100], *([ids[100:]] if size > 100 else [])] if is_nested else ids
    body = json.dumps({"prompt": value}, indent=indent).encode()
    found = inspect_body(
        body, b"", max_inspected_bytes=1 << 20, prefix_block_tokens=64, max_prefix_tokens=1 << 20
    )
    assert array("Q", found.prefix).tolist() == links[1:]
    other_tokens = (len(body) - len(json.dumps(value, indent=indent))) / 4
    if indent is None:
        assert len(ids) <= found.prompt_tokens <= len(ids) + other_tokens


def test_what_stands_before_token_ids_is_hashed_before() -> None:
    base, other = ({"instructions": text + _PROSE, "input": [7] * 300} for text in "ab")
    assert _same(_chain(base), _chain(other)) == 0
    blocks = len(_PROSE) // _BLOCK_BYTES
    assert _same(_chain(base), _chain(base | {"input": [8] * 300})) in (blocks, blocks + 1)


def test_many_token_ids_are_not_all_looked_at() -> None:
    ids = [4_294_967_295] * 9_000
    spaced = json.dumps({"prompt": ids}).encode()
    found = inspect_body(
        spaced, b"", max_inspected_bytes=1 << 20, prefix_block_tokens=1, max_prefix_tokens=5_000
    )
    assert len(found.prefix) == 8 * 5_000
    assert found.prefix == array("Q", _chain({"token_ids": ids[:5_000]}, block=1)).tobytes()


@pytest.mark.parametrize("odd", [-1, 1.5, 1e300, "x", None, [2], {"a": 2}, True])
def test_what_are_no_ids_after_all_is_hashed_as_it_is(odd: object) -> None:
    one, other = [*range(400), odd], [*range(400), odd, 8]
    assert len(_chain({"prompt": one})) == len(msgspec.json.encode(one)[:-1]) // _BLOCK_BYTES
    assert _same(_chain({"prompt": one}), _chain({"prompt": other})) == len(_chain({"prompt": one}))


def _features(*media: tuple[str, int, int]) -> dict[str, Any]:
    return {
        "mm_hashes": {"image": [name for name, _, _ in media]},
        "mm_placeholders": {
            "image": [{"offset": offset, "length": length} for _, offset, length in media]
        },
        "kwargs_data": {"image": ["x"] * len(media)},
    }


def test_media_among_token_ids_differ_by_their_hash() -> None:
    ids = [7] * 640
    plain = _chain({"token_ids": ids})
    one = _chain({"token_ids": ids, "features": _features(("a", 128, 64))})
    assert _same(plain, one) == 2
    assert one == _chain({"token_ids": ids, "features": _features(("a", 128, 64))})
    assert _same(one, _chain({"token_ids": ids, "features": _features(("b", 128, 64))})) == 2
    assert _same(one, _chain({"token_ids": ids, "features": _features(("a", 192, 64))})) == 2
    # A later one leaves the beginning as it was.
    two = _chain({"token_ids": ids, "features": _features(("a", 128, 64), ("b", 320, 64))})
    assert _same(one, two) == 5


@pytest.mark.parametrize(
    "features",
    [
        None, [], "x", 5, {}, {"mm_hashes": 5}, {"mm_hashes": {"image": ["a"]}},
        {"mm_hashes": {}, "mm_placeholders": {"image": [{"offset": 0, "length": 9}]}},
        _features(("a", -100, 64)), _features(("a", 0, -64)), _features(("a", 0, 10**30)),
        _features(("a", 10**30, 64)), _features(("a", 9_000, 64)), _features(("a", 0, 0)),
        _features(("a", 10**15, 64)),
    ],
    ids=repr,
)  # fmt: skip
def test_features_that_make_no_sense_are_passed_over(features: object) -> None:
    ids = [7] * 640
    assert _chain({"token_ids": ids, "features": features}) == _chain({"token_ids": ids})


def test_media_are_no_more_than_the_tokens() -> None:
    """However often a body puts them over each other."""
    ids = [7] * 640
    media = [(str(number), 0, 640) for number in range(9)]
    first = _chain({"token_ids": ids, "features": _features(media[0])})
    assert _chain({"token_ids": ids, "features": _features(*media)}) == first


# What clients write and engines leave out

_MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n ", " :\t")])
def test_marks_that_move_on_do_not_matter(separators: tuple[str, str]) -> None:
    def dumps(document: object) -> bytes:
        return json.dumps(document, separators=separators).encode()

    def messages(*marked: int) -> list[dict[str, Any]]:
        parts = [{"type": "text", "text": f"{number} {_PROSE}"} for number in range(3)]
        return [
            _user([part | (_MARK if number in marked else {})]) for number, part in enumerate(parts)
        ]

    base = _chain({"messages": messages()}, dumps=dumps)
    for marked in ((0,), (1,), (2,), (0, 1, 2)):
        assert _chain({"messages": messages(*marked)}, dumps=dumps) == base
    system = [{"type": "text", "text": _PROSE}]
    marked_system = [{**system[0], "cache_control": None}]
    chains = [
        _chain({"system": each, "messages": messages()}, dumps=dumps)
        for each in (system, marked_system)
    ]
    assert chains[0] == chains[1] != base


def test_what_accounts_for_a_request_does_not_matter() -> None:
    def chain(number: int) -> list[int]:
        account = {"type": "text", "text": f"x-anthropic-billing-header: cch={number};"}
        system = [account, {"type": "text", "text": _PROSE}]
        return _chain({"system": system, "messages": [_user(_PROSE)]})

    system = [{"type": "text", "text": _PROSE}]
    assert chain(1) == chain(2) == _chain({"system": system, "messages": [_user(_PROSE)]})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children)
    ),
    max_leaves=20,
)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(
            ["tools", "system", "messages", "prompt", "input", "token_ids", "features"]
        ),
        _JSON | st.lists(st.integers(-5, 2**40), max_size=30),
    )
)
def test_any_document_has_a_chain(document: dict[str, Any]) -> None:
    chain = _chain(document, block=1)
    assert chain == _chain(document, block=1)
    assert len(chain) <= len(msgspec.json.encode(document)) // 2


@pytest.mark.parametrize(("spaces", "blocks"), [(0, 1), (4096, 1), (4096 + 512, 3)])
def test_space_before_the_end_is_left_out_and_only_so_much_of_it(spaces: int, blocks: int) -> None:
    """Looking for the beginning of 30 MB of it would take seconds."""
    body = b'{"messages":["%b"%b]}' % (b"x" * 256, b" " * spaces)
    found = inspect_body(
        body, b"", max_inspected_bytes=1 << 24, prefix_block_tokens=64, max_prefix_tokens=1 << 16
    )
    assert len(found.prefix) == 8 * blocks
