"""What routing reads from a body: the model's name and limits, or nothing, but never an error."""

import gzip

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.parsing import BodyFacts, inspect_body
from epp.core.parsing.tokens import MOST_TOKENS, estimated_tokens

from .test_decompress import CODECS

_MODEL = "meta/llama-3"
_BODY = b'{"messages":[{"role":"user","content":"hi"}],"model":"meta/llama-3","stream":true}'


def _model(body: bytes, encoding: bytes = b"", *, max_inspected_bytes: int = 1 << 20) -> str:
    return inspect_body(body, encoding, max_inspected_bytes=max_inspected_bytes).model


def _nested(depth: int) -> bytes:
    return b'{"tools":' + b"[" * depth + b"]" * depth + b',"model":"meta/llama-3"}'


@pytest.mark.parametrize("encoding", [b"", b"identity", b"Identity", b" identity "])
def test_reads_the_model_of_a_plain_body(encoding: bytes) -> None:
    assert _model(_BODY, encoding) == _MODEL


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_reads_the_model_of_a_compressed_body(codec: str) -> None:
    encoding, compress = CODECS[codec]
    assert _model(compress(_BODY), encoding) == _MODEL


def test_a_body_larger_than_the_bound_is_not_looked_at() -> None:
    assert _model(_BODY, max_inspected_bytes=len(_BODY)) == _MODEL
    assert _model(_BODY, max_inspected_bytes=len(_BODY) - 1) == ""
    packed = gzip.compress(_BODY)
    assert _model(packed, b"gzip", max_inspected_bytes=len(_BODY)) == _MODEL
    assert _model(packed, b"gzip", max_inspected_bytes=len(_BODY) - 1) == ""


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b"", ""),
        (b"{}", ""),
        (b"[]", ""),
        (b'"model"', ""),
        (b"null", ""),
        (b"not json", ""),
        (_BODY[:-1], ""),
        (_BODY + b"x", ""),
        (_BODY + b"\n ", _MODEL),
        (b'{"model":5}', ""),
        (b'{"model":null}', ""),
        (b'{"model":["a"]}', ""),
        (b'{"model":"\xff"}', ""),
        (b'{"model":"\\ud800"}', ""),
        (b'{"model":""}', ""),
        (b'{"mod\\u0065l":"a"}', "a"),
        (b'{"model":"\\u00e9\\n"}', "\u00e9\n"),
        (b'{"prompt":"\xff\xfe","model":"a"}', "a"),
        (b'{"\xff":1,"model":"a"}', "a"),
        (b'{"model":"a","model":"b"}', "b"),
        (b'{"max_tokens":' + b"9" * 10_000 + b',"model":"a"}', "a"),
        (b'{"max_tokens":1e999,"model":"a"}', "a"),
        (b'\xef\xbb\xbf{"model":"a"}', ""),
        ('{"model":"a"}'.encode("utf-16"), ""),
        (b"\0" * 100, ""),
        (_nested(100), _MODEL),
        (_nested(100_000), ""),
        (b"[" * 100_000, ""),
        (b'{"model":' * 100_000, ""),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_read_from(body: bytes, model: str) -> None:
    found = inspect_body(body, b"", max_inspected_bytes=1 << 20)
    assert (found.model, found.max_output_tokens) == (model, None)


def test_nothing_is_found_in_nothing() -> None:
    assert inspect_body(b"", b"gzip", max_inspected_bytes=10) == BodyFacts("", 0, None)


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        (b'"max_tokens":100', 100),
        (b'"max_completion_tokens":100', 100),
        (b'"max_output_tokens":100', 100),
        (b'"max_tokens":7,"max_completion_tokens":100', 100),
        (b'"max_tokens":100,"max_output_tokens":7', 100),
        (b'"max_tokens":100,"n":3', 300),
        (b'"max_tokens":0', 0),
        (b'"max_tokens":999999999,"n":999999999', 999_999_999**2),
        (b'"n":3', None),
        (b'"max_tokens":null', None),
        (b'"max_tokens":"oops"', None),
        (b'"max_tokens":-1', None),
        (b'"max_tokens":1e99', None),
        (b'"max_tokens":1.5', None),
        (b'"max_tokens":true', None),
        (b'"max_tokens":[5]', None),
        (b'"max_tokens":{"max_tokens":5}', None),
        (b'"max_tokens":' + b"9" * 10_000, None),
        (b'"max_completion_tokens":null,"max_tokens":100', 100),
        (b'"max_completion_tokens":"oops","max_tokens":100', 100),
        (b'"max_tokens":100,"n":null', 100),
        (b'"max_tokens":100,"n":0', 100),
        (b'"max_tokens":100,"n":-2', 100),
        (b'"max_tokens":100,"n":"2"', 100),
        (b'"parameters":{"max_tokens":5}', None),
        (b'"sampling_params":{"max_tokens":5}', 5),
        (b'"sampling_params":{"max_new_tokens":5,"n":3}', 15),
        (b'"sampling_params":{"max_new_tokens":5,"n":3},"n":2', 10),
        (b'"sampling_params":{"max_tokens":null,"max_new_tokens":5}', 5),
        (b'"sampling_params":{"max_tokens":5},"max_tokens":7', 7),
        (b'"sampling_params":[{"max_new_tokens":5}]', None),
        (b'"sampling_params":{"max_new_tokens":"oops","n":[]}', None),
        (b'"sampling_params":null', None),
        (b'"sampling_params":"oops"', None),
    ],
    ids=lambda value: repr(value[:50]) if isinstance(value, bytes) else None,
)
def test_the_limit_of_the_output(fields: bytes, most: int | None) -> None:
    found = inspect_body(b'{%b,"model":"m"}' % fields, b"", max_inspected_bytes=1 << 20)
    assert (found.model, found.max_output_tokens) == ("m", most)


@pytest.mark.parametrize("model", [b"5", b"null", b'["a"]', b'"\xff"', b"{}"])
def test_a_wrong_model_does_not_lose_the_limit(model: bytes) -> None:
    found = inspect_body(b'{"model":%b,"max_tokens":9}' % model, b"", max_inspected_bytes=100)
    assert (found.model, found.max_output_tokens) == ("", 9)


@pytest.mark.parametrize(
    ("fields", "salt"),
    [
        (b'"cache_salt":"s"', "s"),
        (b'"extra_key":"s"', "s"),
        (b'"cache_salt":"s","extra_key":"t"', "s"),
        (b'"cache_salt":null,"extra_key":"s"', "s"),
        (b'"cache_salt":5', ""),
        (b'"extra_key":["s","t"]', ""),
        (b'"metadata":{"cache_salt":"s"}', ""),
    ],
)
def test_the_salt(fields: bytes, salt: str) -> None:
    found = inspect_body(b'{%b,"model":"m"}' % fields, b"", max_inspected_bytes=100)
    assert (found.model, found.cache_salt) == ("m", salt)


@pytest.mark.parametrize(
    ("value", "is_streamed"),
    [(b"true", True), (b"false", False), (b"null", False), (b'"true"', False), (b"1", False)],
)
def test_whether_the_answer_is_streamed(value: bytes, is_streamed: bool) -> None:
    body = b'{"stream" : %b , "model":"m"}' % value
    assert inspect_body(body, b"", max_inspected_bytes=100).is_streamed is is_streamed


_VLLM = {
    "request_id": "r",
    "token_ids": [128_000, 9_906, 1_917],
    "sampling_params": {"max_tokens": 9, "temperature": 0.5},
    "model": "m",
    "stream": True,
    "cache_salt": "s",
}
_SGLANG = {
    "input_ids": [128_000, 9_906, 1_917],
    "sampling_params": {"max_new_tokens": 9},
    "stream": True,
    "extra_key": "s",
}
_ANTHROPIC = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "Be kind."}],
    "messages": [{"role": "user", "content": "Why?"}],
    "stream": True,
    "cache_salt": "s",
}
_RESPONSES = {
    "model": "m",
    "max_output_tokens": 9,
    "instructions": "Be kind.",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}],
    "text": {"format": {"type": "text"}},
    "stream": True,
    "cache_salt": "s",
}


@pytest.mark.parametrize("document", [_VLLM, _SGLANG, _ANTHROPIC, _RESPONSES])
def test_each_api_is_read(document: dict[str, object]) -> None:
    body = msgspec.json.encode(document)
    found = inspect_body(
        body,
        b"",
        max_inspected_bytes=1 << 20,
        prefix_block_tokens=1,
        max_prefix_tokens=99,
        reads_conversation=True,
    )
    assert found.model == document.get("model", "")
    assert (found.max_output_tokens, found.is_streamed, found.cache_salt) == (9, True, "s")
    assert len(found.prefix) >= 3 * 8
    assert bool(found.conversation) == (document in (_ANTHROPIC, _RESPONSES))


@pytest.mark.parametrize(
    "document",
    [
        {"model": "m", "prompt": "A cat.", "n": 2, "size": "1024x1024"},
        {"model": "m", "input": "Read this.", "instructions": "Slowly.", "voice": "alloy"},
        {"model": "m", "input": ["What is near", "what?"], "dimensions": 256},
    ],
    ids=["images", "speech", "embeddings"],
)
def test_apis_without_a_limit_are_read(document: dict[str, object]) -> None:
    body = msgspec.json.encode(document)
    found = inspect_body(
        body, b"", max_inspected_bytes=1 << 20, prefix_block_tokens=1, max_prefix_tokens=99
    )
    assert (found.model, found.max_output_tokens) == ("m", None)
    assert found.prompt_tokens == len(body) // 4
    assert len(found.prefix) >= 8


def test_token_ids_are_as_many_as_they_are() -> None:
    for ids, count in (([7] * 999, 999), ([100_000] * 999, 999), ([[5, 6], [7]], 3)):
        for field in ("prompt", "input", "input_ids", "token_ids"):
            body = msgspec.json.encode({"model": "m", field: ids})
            tokens = inspect_body(body, b"", max_inspected_bytes=1 << 20).prompt_tokens
            assert count <= tokens <= count + 9


@pytest.mark.parametrize("digits", [1, 9])
def test_so_many_token_ids_that_no_model_takes_them(digits: int) -> None:
    body = b'{"prompt":[' + b"1" * digits + (b"," + b"1" * digits) * 1_100_000 + b"]}"
    assert inspect_body(body, b"", max_inspected_bytes=1 << 24).prompt_tokens == MOST_TOKENS


def test_tokens_are_estimated_of_what_was_compressed() -> None:
    body = b'{"prompt":"%b"}' % (b"many words " * 1_000)
    tokens = estimated_tokens(body, is_readable=True)
    assert inspect_body(body, b"", max_inspected_bytes=1 << 20).prompt_tokens == tokens
    for encoding, compress in CODECS.values():
        found = inspect_body(compress(body), encoding, max_inspected_bytes=1 << 20)
        assert found.prompt_tokens == tokens
        assert inspect_body(compress(body), encoding, max_inspected_bytes=100).prompt_tokens < 100


_ENCODINGS = st.one_of(
    st.sampled_from([b"", b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"identity", b"gzip,br"]),
    st.binary(max_size=12),
)


@given(body=st.binary(max_size=300), encoding=_ENCODINGS)
def test_any_bytes_under_any_encoding_are_survived(body: bytes, encoding: bytes) -> None:
    _model(body, encoding).encode()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=6), children)
    ),
    max_leaves=8,
)


@given(
    document=st.dictionaries(
        st.sampled_from(["model", "stream", "messages", "max_tokens", "n"]), _JSON
    ),
    codec=st.sampled_from([None, *sorted(CODECS)]),
)
def test_any_document_gives_its_model_if_that_is_text(
    document: dict[str, object], codec: str | None
) -> None:
    model = document.get("model")
    expected = model if isinstance(model, str) else ""
    encoding, compress = CODECS[codec] if codec else (b"", bytes)
    assert _model(compress(msgspec.json.encode(document)), encoding) == expected
