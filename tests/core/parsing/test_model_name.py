"""The client's name for its model comes back, in whatever pieces; all else stays as it was."""

import json
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.parsing import ModelNameRestorer

_TARGET = "meta/llama-3"


def _restored(chunks: Iterable[bytes], target: str = _TARGET, client: str = "mine") -> bytes:
    restorer = ModelNameRestorer(target, client)
    return b"".join([*(restorer.feed(chunk) for chunk in chunks), restorer.end()])


def _bytewise(body: bytes) -> list[bytes]:
    return [body[start : start + 1] for start in range(len(body))]


_RESTORED = [
    (b'{"model":"meta/llama-3"}', b'{"model":"mine"}'),
    (b'{"id":1,"model" :\n\t"meta/llama-3" ,"x":2}', b'{"id":1,"model" :\n\t"mine" ,"x":2}'),
    (b'{"model":"meta\\/llama-3"}', b'{"model":"mine"}'),
    (b'{"model":"m\\u0065ta\\u002Fllama-3"}', b'{"model":"mine"}'),
    (b'{"response":{"model":"meta/llama-3"}}', b'{"response":{"model":"mine"}}'),
    (b'[{"model":"meta/llama-3"},' * 2, b'[{"model":"mine"},' * 2),
    (b'data: {"model":"meta/llama-3"}\r\n\r\n' * 3, b'data: {"model":"mine"}\r\n\r\n' * 3),
    (b'{"text":"\\\\","model":"meta/llama-3"}', b'{"text":"\\\\","model":"mine"}'),
    (b'{"model":"x","model":"meta/llama-3"}', b'{"model":"x","model":"mine"}'),
    (b'"model"model":"meta/llama-3"', b'"model"model":"mine"'),
]  # fmt: skip

_KEPT = [
    b"",
    b"model",
    b'{"model":"meta/llama-33"}',
    b'{"model":"meta/llama-"}',
    b'{"model":"Meta/llama-3"}',
    b'{"model":"meta/llama-3\\""}',
    b'{"model":null,"models":"meta/llama-3"}',
    b'{"the model":"meta/llama-3"}',
    b'{"Model":"meta/llama-3"}',
    b'{"model":["meta/llama-3"]}',
    b'["model","meta/llama-3"]',
    b'{"x":"model","y":"meta/llama-3"}',
    b'{"a\\"model":"meta/llama-3"}',
    b'{"text":"the \\"model\\":\\"meta/llama-3\\" it is"}',
    b'{"text":"\\\\\\"model\\\\\\":\\\\\\"meta/llama-3\\\\\\""}',
    b'{"model":' + b" " * 65 + b'"meta/llama-3"}',
    b'{"model"' + b" " * 300 + b':"meta/llama-3"}',
    b'{"model":"meta/llama-3',
    b'{"model":"meta\\u002',
    b'{"model"',
    b'{"mode',
    b'\\"model":"meta/llama-3"',
]


@pytest.mark.parametrize(("body", "restored"), _RESTORED, ids=lambda body: repr(body[:30]))
def test_the_name_is_replaced(body: bytes, restored: bytes) -> None:
    assert _restored([body]) == restored
    assert _restored(_bytewise(body)) == restored


@pytest.mark.parametrize("body", _KEPT, ids=lambda body: repr(body[:30]))
def test_all_else_is_kept(body: bytes) -> None:
    assert _restored([body]) == body
    assert _restored(_bytewise(body)) == body


@pytest.mark.parametrize(
    "target", ["m", 'a"b', "a\\", "\\", "é中", "\U0001f600/x", "\n\x01\x7f", ""]
)
@pytest.mark.parametrize("client", ["mine", 'q"\\é\n'])
def test_any_name_in_any_writing(target: str, client: str) -> None:
    units = target.encode("utf-16-be").hex().upper()
    numbers = "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4))
    writings = {
        msgspec.json.encode(target),
        json.dumps(target).encode(),
        json.dumps(target).encode().replace(b"/", b"\\/"),
        f'"{numbers}"'.encode(),
    }
    for writing in writings:
        assert json.loads(writing) == target
        body = b'{"model":%b,"x":%b}' % (writing, writing)
        restored = b'{"model":%b,"x":%b}' % (msgspec.json.encode(client), writing)
        assert _restored([body], target, client) == restored
        assert _restored(_bytewise(body), target, client) == restored


@pytest.mark.parametrize(
    ("chunk", "held"),
    [
        (b'data: {"id":"1","choices":[{"delta":{"content":"x"}}]}\n\n', b""),
        (b'data: {"model":"other","x":"', b'"'),
        (b'{"a":"', b'"'),
        (b'{"a":"b', b""),
        (b'{"a":"m', b'"m'),
        (b'{"a":"\\"m', b""),
        (b'{"a":"model"', b'"model"'),
        (b'{"a":"model",', b""),
        (b'{"model" :', b'"model" :'),
        (b'{"model" : n', b""),
        (b'{"model":"met', b'"model":"met'),
        (b'{"model":"mod', b'"mod'),
        (b'{"model":"mx', b""),
        (b'{"model":"m\\u0065\\u00', b'"model":"m\\u0065\\u00'),
        (b'{"model":"m\\u0066', b""),
        (b'{"model":"meta/llama-3', b'"model":"meta/llama-3'),
        (b'{"model":"meta/llama-3x', b""),
        (b'{"model":"meta/llama-3"', b""),
    ],
)
def test_only_the_beginning_of_a_match_is_held_back(chunk: bytes, held: bytes) -> None:
    restorer = ModelNameRestorer(_TARGET, _TARGET)
    assert restorer.feed(chunk) == chunk[: len(chunk) - len(held)]
    assert restorer.end() == held
    assert restorer.end() == b""


def _cut(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in pairwise(edges)]


_NAMES = st.sampled_from(["m", "model", "a/b", 'q"', "\\", "é😀", "mm"])
_CUTS = st.lists(st.integers(min_value=0), max_size=12)
_PIECES = st.sampled_from(
    [
        b'"model"', b'"', b":", b" ", b"\\", b'"m"', b"m", b'"model":"m', b"model", b"\\u006d",
        b"\\u00", b"6d", b"\xc3", b"\xa9", b'"model":"m"', b"{", b"}", b",", b" " * 70, b"mm",
    ]
)  # fmt: skip


@given(pieces=st.lists(_PIECES, max_size=30), cuts=_CUTS, target=_NAMES)
def test_any_split_of_any_bytes_gives_the_same(
    pieces: list[bytes], cuts: list[int], target: str
) -> None:
    body = b"".join(pieces)
    whole = _restored([body], target)
    assert _restored(pieces, target) == whole
    assert _restored(_cut(body, cuts), target) == whole


_JSON = st.recursive(
    st.none() | st.integers() | _NAMES | st.text(max_size=8) | st.just('"model":"m"'),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.just("model") | st.text(max_size=4) | _NAMES, children, max_size=4)
    ),
    max_leaves=12,
)


def _reference(value: Any, target: str, client: str) -> Any:
    if isinstance(value, list):
        return [_reference(each, target, client) for each in value]
    if isinstance(value, dict):
        return {
            key: client if (key, each) == ("model", target) else _reference(each, target, client)
            for key, each in value.items()
        }
    return value


@settings(max_examples=150)
@given(
    document=_JSON, target=_NAMES, cuts=_CUTS, is_ascii=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
)  # fmt: skip
def test_a_document_is_as_if_it_had_been_parsed(
    document: Any, target: str, cuts: list[int], is_ascii: bool, indent: int | None
) -> None:
    def text(value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()

    restored = _restored(_cut(text(document), cuts), target, "clients")
    assert restored == text(_reference(document, target, "clients"))


def test_what_is_held_is_bounded() -> None:
    restorer = ModelNameRestorer("m" * 256, "c")
    tracemalloc.start()
    try:
        for _ in range(200):
            restorer.feed(b'"model":"' + b"m" * 250)
            restorer.feed(b"\\u006" * 200)
        restorer.feed(b'"model"')
        for _ in range(100):
            restorer.feed(b" " * 5_000)
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()
