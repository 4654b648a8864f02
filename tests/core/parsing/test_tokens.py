"""The estimate of a prompt's tokens: text by its length, media by their number."""

import base64
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.parsing import inspect_body
from epp.core.parsing.tokens import MOST_TOKENS, estimated_tokens

from .test_decompress import CODECS

_PROSE = "Once upon a time there was a pool of engines, and each took what it could. " * 200


def _medium(size_bytes: int, seed: int = 0) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size_bytes * 3 // 4)).decode()


def _chat(*parts: object) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": parts}]})


def _data_url(data: str) -> object:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + data}}


def _anthropic(data: str) -> object:
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return {"type": "image", "source": source}


def _audio(data: str) -> object:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


@pytest.mark.parametrize("size_bytes", [0, 1, 3, 4, 400, 4095, 4096, 4160, 60_000])
def test_four_bytes_are_a_token(size_bytes: int) -> None:
    body = (b'{"prompt":"' + b"many words " * 6_000)[:size_bytes]
    assert estimated_tokens(body, is_readable=True) == size_bytes // 4


@pytest.mark.parametrize("part", [_data_url, _anthropic, _audio])
@pytest.mark.parametrize("size_bytes", [4_400, 20_000, 1_000_000])
def test_a_medium_counts_as_one_whatever_its_size(part: object, size_bytes: int) -> None:
    assert callable(part)
    text = {"type": "text", "text": _PROSE}
    without = inspect_body(_chat(text), b"", max_inspected_bytes=1 << 24).prompt_tokens
    body = _chat(text, part(_medium(size_bytes)), text)
    tokens = inspect_body(body, b"", max_inspected_bytes=1 << 24).prompt_tokens
    assert 2 * without - 50 <= tokens - 1024 <= 2 * without + 50


def test_each_medium_counts() -> None:
    parts = [_data_url(_medium(10_000, seed)) for seed in range(7)]
    tokens = estimated_tokens(_chat(*parts), is_readable=True)
    assert 7 * 1024 <= tokens <= 7 * 1024 + 150


def test_a_medium_counts_in_a_compressed_body_too() -> None:
    body = _chat(_data_url(_medium(20_000)))
    plain = inspect_body(body, b"", max_inspected_bytes=1 << 20)
    for encoding, compress in CODECS.values():
        assert inspect_body(compress(body), encoding, max_inspected_bytes=1 << 20) == plain


@pytest.mark.parametrize(
    "text",
    [
        _PROSE,
        "这是一个没有空格的长句子" * 1_000,
        "x" * 70 + " " + _PROSE,
        _PROSE + "x" * 3_000 + _PROSE,
        "a,b;" * 5_000,
    ],
)
def test_text_is_no_medium(text: str) -> None:
    body = _chat({"type": "text", "text": text})
    assert estimated_tokens(body, is_readable=True) == len(body) // 4


@pytest.mark.parametrize(
    "size_bytes", [4_160 + offset for offset in (0, 1, 63, 64, 1_000, 4_095, 4_096, 4_097)]
)
@pytest.mark.parametrize("before_bytes", [0, 1, 2_000, 4_031, 4_032, 4_095, 4_096, 5_000])
def test_where_a_long_medium_stands_does_not_matter(size_bytes: int, before_bytes: int) -> None:
    body = b" " * before_bytes + b'"' + b"A" * size_bytes + b'"'
    assert estimated_tokens(body, is_readable=True) == 1024 + (before_bytes + 2) // 4


@pytest.mark.parametrize("size_bytes", [100, 3_000, 4_096, 4_159])
@pytest.mark.parametrize("before_bytes", [0, 1, 1_500, 4_031, 4_032, 4_095])
def test_a_short_one_counts_as_text_wherever_it_stands(size_bytes: int, before_bytes: int) -> None:
    body = b" " * before_bytes + b'"' + b"A" * size_bytes + b'"' + b" " * 5_000
    assert estimated_tokens(body, is_readable=True) == len(body) // 4


def test_a_medium_that_never_ends_or_never_began() -> None:
    assert estimated_tokens(b"A" * 10_000, is_readable=True) == 1024
    assert estimated_tokens(b'{"a":"' + b"A" * 10_000, is_readable=True) == 1024 + 1


def test_an_upload_is_one_medium_at_most() -> None:
    form = b"--boundary\r\nContent-Disposition: form-data\r\n\r\n" + bytes(range(256)) * 1_000
    assert inspect_body(form, b"", max_inspected_bytes=1 << 20).prompt_tokens == 1024
    assert inspect_body(b"tiny form", b"", max_inspected_bytes=1 << 20).prompt_tokens == 2


def test_what_looks_like_json_counts_also_where_it_is_not_read() -> None:
    body = b' {"prompt":"' + b"many words " * 6_000
    for bound in (10, 1 << 20):
        found = inspect_body(body, b"", max_inspected_bytes=bound)
        assert found.prompt_tokens == len(body) // 4


def test_no_estimate_is_beyond_measure() -> None:
    body = b'{"prompt":"' + b"many words " * 1_000_000
    assert estimated_tokens(body, is_readable=True) == MOST_TOKENS


@given(st.lists(st.sampled_from([b'"', b" ", b"A" * 5_000, b"{", b"text, ", b"\xff" * 300])))
def test_any_body_has_an_estimate_that_its_size_bounds(parts: list[bytes]) -> None:
    body = b"".join(parts)
    for is_readable in (True, False):
        assert 0 <= estimated_tokens(body, is_readable=is_readable) <= len(body) // 4
