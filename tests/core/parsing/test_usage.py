"""Usage in responses: found however the bytes are cut, believed only where it makes sense."""

import gzip
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import brotli
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.parsing import TokenUsage, UsageReader

_Result = tuple[int | None, int | None]


def _usage(chunks: Iterable[bytes]) -> TokenUsage:
    reader = UsageReader()
    for chunk in chunks:
        reader.feed(chunk)
    return reader.result()


def _read(chunks: Iterable[bytes]) -> _Result:
    found = _usage(chunks)
    return found.prompt_tokens, found.output_tokens


def _json(document: object) -> bytes:
    return msgspec.json.encode(document)


def _stream(*events: object, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: %b\n\n" % _json(event) for event in events) + end


def _named(*events: dict[str, object]) -> bytes:
    """Return events as Anthropic and the responses API send them."""
    lines = (b"event: %b\ndata: %b\n\n" % (str(e["type"]).encode(), _json(e)) for e in events)
    return b"".join(lines)


def _chunk(text: str, **more: object) -> dict[str, object]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": text}}], **more}


_USAGE = {"prompt_tokens": 12, "total_tokens": 45, "completion_tokens": 33}
_DETAILS = {
    **_USAGE,
    "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
_RESPONSES_USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 33,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 45,
}
_WORDS = [_chunk(f"word{number}") for number in range(300)]
_MESSAGE_START = {
    "type": "message_start",
    "message": {"id": "msg_1", "content": [], "usage": {"input_tokens": 12, "output_tokens": 1}},
}
_DELTAS: list[dict[str, object]] = [
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": f"word{number}"}}
    for number in range(300)
]
_MESSAGE_DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn"},
    "usage": {"output_tokens": 33},
}
_MESSAGE_STOP = {"type": "message_stop"}


def _sglang(text: str, output: int, reason: object = None) -> dict[str, object]:
    info = {
        "id": "g", "finish_reason": reason, "prompt_tokens": 12, "weight_version": "default",
        "completion_tokens": output, "cached_tokens": 4, "e2e_latency": 0.5,
    }  # fmt: skip
    return {"text": text, "output_ids": [5] * output, "meta_info": info}


_SGLANG_END = _sglang("word" * 900, 33, {"type": "length", "length": 33})

_TELLING = {
    "chat": _json({"id": "c", "choices": [{"text": "hi" * 5_000}], "usage": _USAGE}),
    "chat with details": _json({"choices": [], "usage": _DETAILS, "prompt_logprobs": None}),
    "indented": b'\n{\n  "choices": [],\n  "usage" : {\n    "prompt_tokens": 12,\n'
    b'    "completion_tokens": 33\n  }\n}\n',
    "responses": _json({"output": ["text " * 2_000], "usage": _RESPONSES_USAGE, "user": None}),
    "messages": _json(
        {"content": [], "usage": {"input_tokens": 12, "output_tokens": 33, "service_tier": "x"}}
    ),
    "messages with a cache": _json(
        {
            "usage": {
                "input_tokens": 2,
                "cache_creation_input_tokens": 4,
                "cache_read_input_tokens": 6,
                "cache_creation": {"ephemeral_5m_input_tokens": 4},
                "output_tokens": 33,
            }
        }
    ),
    "chat stream": _stream(*_WORDS, {"choices": [], "usage": _USAGE}),
    "chat stream that tells once": _stream(
        *({**word, "usage": None} for word in _WORDS), {"choices": [], "usage": _DETAILS}
    ),
    "chat stream that tells all the time": _stream(
        *(_chunk("x", usage={**_USAGE, "completion_tokens": n}) for n in range(34))
    ),
    "short chat stream": _stream(_chunk("a"), {"choices": [], "usage": _USAGE}),
    "responses stream": _named(
        {"type": "response.created", "response": {"id": "r", "usage": None}},
        *({"type": "response.output_text.delta", "delta": "x"} for _ in range(300)),
        {"type": "response.completed", "response": {"id": "r", "usage": _RESPONSES_USAGE}},
    ),
    "messages stream": _named(_MESSAGE_START, *_DELTAS, _MESSAGE_DELTA, _MESSAGE_STOP),
    "short messages stream": _named(_MESSAGE_START, *_DELTAS[:2], _MESSAGE_DELTA, _MESSAGE_STOP),
    "messages stream with pings": b": ping\n\n"
    + _named(_MESSAGE_START, *_DELTAS, _MESSAGE_DELTA, _MESSAGE_STOP),
    "SGLang": _json(_SGLANG_END),
    "SGLang stream": _stream(
        *(_sglang("word" * number, number) for number in range(1, 33)), _SGLANG_END
    ),
    "stream of lines with carriage returns": _stream(*_WORDS, {"usage": _USAGE}).replace(
        b"\n", b"\r\n"
    ),
}


@pytest.mark.parametrize("body", _TELLING.values(), ids=_TELLING.keys())
def test_what_is_told_is_found(body: bytes) -> None:
    assert _read([body]) == (12, 33)
    assert _read(body[i : i + 1] for i in range(len(body))) == (12, 33)


_OTHERS = {
    "empty": (b"", (None, None)),
    "no usage": (_json({"choices": [{"text": "hi"}]}), (None, None)),
    "null": (_json({"usage": None}), (None, None)),
    "embeddings": (
        _json({"data": [[0.5] * 900], "usage": {"prompt_tokens": 8, "total_tokens": 8}}),
        (8, 0),
    ),
    "a silent stream": (_stream(*_WORDS), (None, 300)),
    "a silent stream that is cut": (_stream(*_WORDS, end=b""), (None, 300)),
    "a silent stream that is cut in an event": (_stream(*_WORDS)[:-20], (None, 300)),
    "nothing but the end": (b"data: [DONE]\n\n", (None, 0)),
    "no space after the colon": (b"data:{}\n\ndata:{}\n\ndata:[DONE]\n\n", (None, 2)),
    "messages that are cut": (_named(_MESSAGE_START, *_DELTAS[:9]), (12, 10)),
    "many messages that are cut": (_named(_MESSAGE_START, *_DELTAS), (12, 301)),
    "a stream in JSON": (b'{"text":"\ndata: x\ndata: y"}', (None, None)),
    "gzip": (gzip.compress(_TELLING["chat stream"]), (None, None)),
    "brotli": (brotli.compress(_TELLING["chat stream"]), (None, None)),
    "a text that speaks of it": (
        _stream(*_WORDS, _chunk('"usage":{"prompt_tokens":5,"completion_tokens":6}')),
        (None, 301),
    ),
    "a usage that is cut": (b'{"usage":{"prompt_tokens":5,"completion_tokens":6', (None, None)),
    "a usage that is too far from the end": (
        _json({"usage": _USAGE, "rest": "x" * 5_000}),
        (12, None),
    ),
}


@pytest.mark.parametrize(("body", "result"), _OTHERS.values(), ids=_OTHERS.keys())
def test_what_else_comes(body: bytes, result: _Result) -> None:
    assert _read([body]) == result
    assert _read(body[i : i + 1] for i in range(len(body))) == result


_HOSTILE = [
    b'"oops"', b"-5", b"1e99", b"1.5", b"null", b"[]", b"{}", b"true", b"9" * 400, b'{"usage":{}}',
    b"[[[[[[[[", b"[" * 1_900 + b"]" * 1_900, b'"', b"}", b"{" * 1_000, b'{"usage":' * 300,
    b'"usage":{}' * 300,
]  # fmt: skip


@pytest.mark.parametrize("value", _HOSTILE, ids=lambda value: repr(value[:12]))
def test_hostile_values_are_passed_over(value: bytes) -> None:
    names = (b"prompt_tokens", b"completion_tokens", b"input_tokens", b"output_tokens")
    for name in names:
        for body in (b'{"usage":{"%b":%b}}' % (name, value), b'{"usage":%b}' % value):
            assert _read([body]) == (None, None)
            assert _read([b"data: %b\n\n" % body]) == (None, 1)


def test_one_hostile_value_does_not_lose_the_other() -> None:
    assert _read([b'{"usage":{"prompt_tokens":"oops","completion_tokens":7}}']) == (None, 7)
    assert _read([b'{"usage":{"prompt_tokens":7,"completion_tokens":-1}}']) == (7, None)
    assert _read([b'{"usage":{"input_tokens":7,"cache_read_input_tokens":"x"}}']) == (7, None)


def test_an_output_that_only_the_total_tells() -> None:
    assert _read([b'{"usage":{"prompt_tokens":8,"total_tokens":10}}']) == (8, 2)
    assert _read([b'{"usage":{"prompt_tokens":8,"total_tokens":7}}']) == (8, None)
    assert _read([b'{"usage":{"total_tokens":7}}']) == (None, None)


def test_only_so_many_objects_are_looked_into() -> None:
    told = b'{"usage":{"prompt_tokens":8,"total_tokens":10}'
    assert _read([told + b',"usage":{}' * 15]) == (8, 2)
    assert _read([told + b',"usage":{}' * 16]) == (None, None)
    assert _read([told + b',"usage":null' * 100]) == (8, 2)


@pytest.mark.parametrize(
    ("name", "cached"),
    [
        ("chat", None), ("chat with details", 3), ("responses", 1), ("messages", None),
        ("messages with a cache", 6), ("chat stream that tells once", 3), ("responses stream", 1),
        ("SGLang", 4), ("SGLang stream", 4),
    ],
)  # fmt: skip
def test_what_was_in_the_cache(name: str, cached: int | None) -> None:
    body = _TELLING[name]
    assert _usage([body]) == TokenUsage(12, 33, cached)
    assert _usage(body[i : i + 1] for i in range(len(body))) == TokenUsage(12, 33, cached)


@pytest.mark.parametrize("deltas", [2, 300])
def test_what_was_in_the_cache_is_told_by_the_first_event(deltas: int) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 1}
    start = {"type": "message_start", "message": {"content": [], "usage": usage}}
    body = _named(start, *_DELTAS[:deltas], _MESSAGE_DELTA, _MESSAGE_STOP)
    assert _usage([body]) == TokenUsage(12, 33, 7)
    again = {**_MESSAGE_DELTA, "usage": {"output_tokens": 33, "cache_read_input_tokens": 6}}
    body = _named(start, *_DELTAS[:deltas], again, _MESSAGE_STOP)
    assert _usage([body]) == TokenUsage(12, 33, 6)


@pytest.mark.parametrize(
    "details",
    [b"null", b"5", b"[]", b"{}", b'{"cached_tokens":null}', b'{"cached_tokens":-1}', b'"x"'],
)
def test_details_that_tell_nothing_are_passed_over(details: bytes) -> None:
    body = b'{"usage":{"prompt_tokens":12,"prompt_tokens_details":%b,"completion_tokens":33%b}}'
    assert _usage([body % (details, b"")]) == TokenUsage(12, 33, None)
    more = b',"input_tokens_details":{"cached_tokens":3}'
    assert _usage([body % (details, more)]) == TokenUsage(12, 33, 3)


def _cut(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in pairwise(edges)]


_BODIES = [*_TELLING.values(), *(body for body, _ in _OTHERS.values())]


@given(
    body=st.sampled_from(_BODIES),
    cuts=st.lists(st.integers(min_value=0), max_size=40),
    empties=st.booleans(),
)
def test_any_split_gives_the_same(body: bytes, cuts: list[int], empties: bool) -> None:
    chunks = _cut(body, cuts)
    if empties:
        chunks = [piece for chunk in chunks for piece in (b"", chunk)]
    assert _usage(chunks) == _usage([body])


_PIECES = st.sampled_from(
    [
        b"\n", b"\ndata:", b"data:", b"data: [DONE]", b'"usage"', b":", b" ", b"{", b"}", b"5",
        b'"prompt_tokens":5', b'"output_tokens":6', b",", b'"message_start"', b"x" * 1_500,
        b"\xff", b'"', b"\\",
    ]
)  # fmt: skip


@given(pieces=st.lists(_PIECES, max_size=60), cuts=st.lists(st.integers(min_value=0), max_size=9))
def test_any_split_of_any_bytes_gives_the_same_and_survives(
    pieces: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(pieces)
    whole = _read([body])
    assert _read(_cut(body, cuts)) == whole
    assert _read(pieces) == whole
    assert _usage(pieces) == _usage([body])
    for tokens in whole:
        assert tokens is None or 0 <= tokens < 4_000_000_000


def test_events_are_counted_on_the_way() -> None:
    reader = UsageReader()
    event = _stream(_chunk("a"), end=b"")
    for number in range(1, 200):
        reader.feed(event)
        assert number - 16 <= reader.events <= number
    assert reader.result() == TokenUsage(None, 199, None)


def test_memory_is_bounded() -> None:
    reader = UsageReader()
    tracemalloc.start()
    try:
        for number in range(20_000):
            reader.feed(b'data: {"number":%d}\n\n' % number)
        for _ in range(200):
            reader.feed(bytes(60_000))
        assert tracemalloc.get_traced_memory()[0] < 100_000
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()
