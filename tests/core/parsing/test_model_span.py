"""Where the model is named: the bytes that the engine reads it from, and no others."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.parsing import inspect_body, model_span


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (b'{"model":', b'"a"', b"}"),
        (b' {\n "model" :\t', b'"meta/llama-3"', b' , "x":1}\n'),
        (b'{"model":', b'""', b"}"),
        (b'{"x":{"model":"b"},"model":', b'"a"', b',"y":[{"model":"c"}]}'),
        (b'{"messages":[{"content":"{\\"model\\":\\"b\\"}"}],"model":', b'"a"', b"}"),
        (b'{"model":"b","model":', b'"a"', b',"z":"a"}'),
        (b'{"model":"a","mod\\u0065l":', b'"a"', b"}"),
        (b'{"model":', b'"\\u00e9\\/\\"x"', b',"model2":"a"}'),
        ('{"é":"é","model":'.encode(), '"é中"'.encode(), b"}"),
        (b'{"x":"\xff","model":', b'"a"', b"}"),
        (b'{"a:":"model","b":",\\"model\\":","model":', b'","', b',"c":["a:","b"]}'),
        (b'{"tools":[' + b'{"model":"a"},' * 5_000 + b'0],"model":', b'"a"', b"}"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_the_span_is_that_of_the_value(before: bytes, value: bytes, after: bytes) -> None:
    body = before + value + after
    assert model_span(body) == (len(before), len(before) + len(value))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'"model"',
        b'["model","a"]',
        b'{"model":null}',
        b'{"model":5}',
        b'{"model":"a","model":null}',
        b'{"model":["a"]}',
        b'{"model":{"model":"a"}}',
        b'{"x":{"model":"a"}}',
        b'{"Model":"a"}',
        b'{"model":"a"',
        b'{"model":"a"}x',
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        b"[" * 100_000,
        b"\x1f\x8b\x08",
    ],
    ids=lambda value: repr(value[:40]),
)
def test_there_is_none(body: bytes) -> None:
    assert model_span(body) is None


_JSON = st.recursive(
    st.none() | st.text(max_size=8) | st.just("model") | st.just('"model":"a"'),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.just("model") | st.text(max_size=4), children, max_size=3)
    ),
    max_leaves=9,
)


@settings(max_examples=80)
@given(
    members=st.lists(st.tuples(st.sampled_from(["model", "models", "x"]), _JSON), max_size=6),
    is_ascii=st.booleans(),
    separators=st.sampled_from([(",", ":"), (" , ", " : ")]),
    name=st.text(max_size=9),
)
def test_only_the_model_is_another(
    members: list[tuple[str, Any]], is_ascii: bool, separators: tuple[str, str], name: str
) -> None:
    """Duplicates included: the document is written member by member."""
    texts = [
        json.dumps({key: value}, ensure_ascii=is_ascii, separators=separators)[1:-1]
        for key, value in members
    ]
    body = ("{" + separators[0].join(texts) + "}").encode()
    span = model_span(body)
    models = [number for number, (key, _) in enumerate(members) if key == "model"]
    if not models or not isinstance(members[models[-1]][1], str):
        assert span is None
        return
    assert span is not None
    start, end = span
    replaced = body[:start] + msgspec.json.encode(name) + body[end:]
    assert inspect_body(replaced, b"", max_inspected_bytes=1 << 20).model == name
    members[models[-1]] = ("model", name)
    expected = msgspec.json.decode(replaced, type=dict[str, msgspec.Raw])
    assert {key: msgspec.json.decode(raw) for key, raw in expected.items()} == dict(members)
