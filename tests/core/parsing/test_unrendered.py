"""What is left out of prompts, and that nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.parsing.unrendered import without_billing_blocks, without_cache_marks

_KEY = b'"cache_control"'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b'{"a":1,"cache_control":{"type":"ephemeral"}}', b'{"a":1}'),
        (b'{"a":1,"cache_control":null,"b":2}', b'{"a":1,"b":2}'),
        (b'{"a":1 ,\n "cache_control" : { } }', b'{"a":1 }'),
        (b'[{"a":1,"cache_control":{}},{"a":2,"cache_control":{}}]', b'[{"a":1},{"a":2}]'),
        (b'{"a":1,"cache_control":{}', b'{"a":1'),
    ],
)
def test_marks_are_left_out(text: bytes, left: bytes) -> None:
    assert without_cache_marks(text) == left


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"cache_control":{"type":"ephemeral"},"a":1}',
        b'["a","cache_control","b"]',
        b'{"a":1,"cache_control":{"nested":{}}}',
        b'{"a":1,"cache_control":5}',
        b'{"a":1,"cache_control":{"type":"eph',
        b'{"a":1,' + b" " * 100 + b'"cache_control":{}}',
        json.dumps({"a": ',"cache_control":{}', "b": '{"x":1,"cache_control":{}}'}).encode(),
        _KEY * 100_000,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_all_else_is_left_as_it_is(text: bytes) -> None:
    assert without_cache_marks(text) == text


def test_no_more_than_64_marks_are_left_out() -> None:
    text = b'{"a":1,"cache_control":{}}' * 100
    assert without_cache_marks(text) == b'{"a":1}' * 64 + text[64 * 26 :]


_VALUES = st.recursive(
    st.integers() | st.text() | st.just(',"cache_control":{}'),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, min_size=1)
    ),
    max_leaves=9,
)


@settings(max_examples=50)
@given(_VALUES, st.sampled_from([None, 1]))
def test_a_document_is_left_as_it_was_before_it_was_marked(value: Any, indent: int | None) -> None:
    def marked(value: Any) -> Any:
        if isinstance(value, list):
            return [marked(each) for each in value]
        if isinstance(value, dict):
            inner = {name: marked(each) for name, each in value.items()}
            return inner | {"cache_control": {"type": "ephemeral"}}
        return value

    text = json.dumps(marked(value), indent=indent).encode()
    assert without_cache_marks(text) == json.dumps(value, indent=indent).encode()


_ACCOUNT = {"type": "text", "text": "x-anthropic-billing-header: cch=1;"}


def test_accounting_blocks_are_left_out() -> None:
    speaks_of_it = {"type": "text", "text": 'Of "x-anthropic-billing-header" say nothing.'}
    system = json.dumps([_ACCOUNT, speaks_of_it, _ACCOUNT, {"type": "text", "text": "b"}])
    found = json.loads(without_billing_blocks(system.encode()))
    assert found == [speaks_of_it, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(
    "system",
    [b'"x-anthropic-billing-header: 1"', b'[{"type":"text","text":"a"} ]', b"[]", b"5"],
)
def test_other_instructions_are_left_as_they_are(system: bytes) -> None:
    assert without_billing_blocks(system) == system


def test_instructions_of_more_than_a_mebibyte_are_not_read() -> None:
    for text_bytes, is_read in ((1 << 19, True), (1 << 20, False)):
        system = json.dumps([_ACCOUNT, {"type": "text", "text": "x" * text_bytes}]).encode()
        assert (without_billing_blocks(system) != system) is is_read
