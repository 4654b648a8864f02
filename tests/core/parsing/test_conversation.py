"""Conversations: the same number for all turns, another for each other conversation."""

import base64
from typing import Any

import msgspec
import pytest

from epp.core.parsing import inspect_body


def _hash(document: dict[str, Any]) -> int:
    body = msgspec.json.encode({"model": "m", **document})
    found = inspect_body(body, b"", max_inspected_bytes=1 << 24, reads_conversation=True)
    assert 0 <= found.conversation < 1 << 64
    assert inspect_body(body, b"", max_inspected_bytes=1 << 24).conversation == 0
    return found.conversation


def _message(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


_SYSTEM = _message("system", "Be kind.")
_QUESTION = _message("user", "Why?")
_TURNS = [_SYSTEM, _QUESTION, _message("assistant", "So."), _message("user", "And why?")]


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize("instructions", [{}, {"system": "Be kind."}, {"instructions": "Be kind."}])
def test_all_turns_have_the_same(field: str, instructions: dict[str, str]) -> None:
    found = {_hash({field: _TURNS[:count], **instructions}) for count in (2, 3, 4)}
    assert len(found) == 1
    assert found != {0}


def test_messages_that_are_none_are_passed_over() -> None:
    assert _hash({"messages": None, "input": _TURNS}) == _hash({"input": _TURNS}) != 0


def test_each_conversation_has_its_own() -> None:
    base: dict[str, Any] = {"messages": _TURNS}
    others = [
        base,
        base | {"model": "n"},
        base | {"cache_salt": "s"},
        base | {"extra_key": "t"},
        base | {"system": "Be brief."},
        base | {"instructions": "Be brief!"},
        {"messages": [_message("system", "Be cruel."), *_TURNS[1:]]},
        {"messages": [_SYSTEM, _message("user", "How?")]},
        {"messages": [_QUESTION]},
        {"messages": [_message("developer", "Be kind."), *_TURNS[1:]]},
        {"messages": [_SYSTEM, _message("user", [{"type": "text", "text": "Why?"}])]},
        {"input": "Why? "},
        {"conversation": "conv_1"},
        {"conversation": "conv_2"},
        {"conversation": "conv_1", "model": "n"},
    ]
    found = [_hash(other) for other in others]
    assert len(set(found)) == len(others)
    assert 0 not in found


def test_a_name_counts_before_all_else() -> None:
    named = _hash({"conversation": "conv_1"})
    assert _hash({"conversation": {"id": "conv_1"}, "input": _TURNS}) == named
    assert _hash({"conversation": "conv_1", "input": "x", "instructions": "y"}) == named
    assert _hash({"conversation": '"Why?"'}) != _hash({"input": "Why?"})


@pytest.mark.parametrize("name", [None, "", {}, {"id": ""}, {"id": 5}, 5, [], ["conv_1"]])
def test_what_is_no_name_is_passed_over(name: object) -> None:
    assert _hash({"conversation": name, "messages": _TURNS}) == _hash({"messages": _TURNS})


def test_a_text_is_the_first_message_of_the_user() -> None:
    """As clients of the responses begin, before they send what was said as a list."""
    assert _hash({"input": "Why?"}) == _hash({"input": [_QUESTION, _message("assistant", "So.")]})


def test_what_applications_have_in_common_is_not_heeded() -> None:
    shared = {"prompt_cache_key": "app", "metadata": {"user_id": "app"}, "user": "app"}
    assert _hash({"messages": _TURNS, **shared}) == _hash({"messages": _TURNS})


def test_marks_that_move_on_do_not_matter() -> None:
    text = {"type": "text", "text": "Why?"}
    mark = {"cache_control": {"type": "ephemeral"}}
    plain = {"system": [text], "messages": [_message("user", [text])]}
    marked = {"system": [text | mark], "messages": [_message("user", [text | mark])]}
    assert _hash(plain) == _hash(marked)


def test_a_conversation_about_a_picture() -> None:
    def document(letter: bytes, *more: object) -> dict[str, Any]:
        url = "data:image/png;base64," + base64.b64encode(letter * 90_000).decode()
        picture = {"type": "image_url", "image_url": {"url": url}}
        return {"messages": [_message("user", [picture]), *more]}

    assert _hash(document(b"a")) == _hash(document(b"a", _message("assistant", "I see.")))
    assert _hash(document(b"a")) != _hash(document(b"b"))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"prompt": "What came before, all in one, is another text each time."},
        {"text": "Why?"},
        {"input": [1, 2, 3]},
        {"messages": []},
        {"messages": [_SYSTEM]},
        {"messages": ["a", "b"]},
        {"messages": [{"role": 5}]},
        {"messages": [{"role": ["user"]}]},
        {"messages": {"role": "user"}},
        {"messages": [5, _QUESTION]},
        {"messages": [_SYSTEM, 5, _QUESTION]},
        {"messages": 5},
    ],
    ids=repr,
)
def test_where_it_cannot_be_told(document: dict[str, Any]) -> None:
    assert _hash(document) == 0


def test_the_first_message_of_the_user_is_looked_for_among_so_many() -> None:
    for others, is_found in ((63, True), (64, False)):
        messages = [*[_SYSTEM] * others, _QUESTION]
        assert bool(_hash({"messages": messages})) is is_found
