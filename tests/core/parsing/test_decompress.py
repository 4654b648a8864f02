"""Decompression for inspection: right, bounded in memory and time, and never raising."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from epp.core.parsing.decompress import decompressed

_Compress = Callable[[bytes], bytes]


def _zstd_of_unknown_size(plain: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(plain) + compressor.flush()


def _brotli(plain: bytes) -> bytes:
    compressed: bytes = brotli.compress(plain, quality=1)
    return compressed


CODECS: dict[str, tuple[bytes, _Compress]] = {
    "gzip": (b"gzip", lambda plain: gzip.compress(plain, 1)),
    "x-gzip": (b"x-gzip", lambda plain: gzip.compress(plain, 1)),
    "deflate": (b"deflate", lambda plain: zlib.compress(plain, 1)),
    "br": (b"br", _brotli),
    "zstd": (b"zstd", zstandard.compress),
    "zstd of unknown size": (b"zstd", _zstd_of_unknown_size),
}

codecs = pytest.mark.parametrize(("encoding", "compress"), CODECS.values(), ids=CODECS.keys())


@codecs
@pytest.mark.parametrize("size_bytes", [0, 1, 1000, 3 << 20])
def test_returns_the_whole_body(encoding: bytes, compress: _Compress, size_bytes: int) -> None:
    plain = (b"%d," * (size_bytes // 4 + 1) % ((7,) * (size_bytes // 4 + 1)))[:size_bytes]
    assert decompressed(compress(plain), encoding, max_bytes=4 << 20) == plain


@codecs
def test_the_name_is_read_in_any_case(encoding: bytes, compress: _Compress) -> None:
    assert decompressed(compress(b"{}"), b" " + encoding.upper() + b" ", max_bytes=10) == b"{}"


@codecs
@pytest.mark.parametrize("size_bytes", [1, 10, 5000, (1 << 20) + 1, (2 << 20) + 10])
def test_the_bound_is_exact(encoding: bytes, compress: _Compress, size_bytes: int) -> None:
    compressed = compress(b"x" * size_bytes)
    assert decompressed(compressed, encoding, max_bytes=size_bytes) is not None
    assert decompressed(compressed, encoding, max_bytes=size_bytes - 1) is None


@codecs
def test_what_is_cut_off_is_nothing(encoding: bytes, compress: _Compress) -> None:
    compressed = compress(bytes(range(256)) * 8)
    for size_bytes in range(len(compressed)):
        assert decompressed(compressed[:size_bytes], encoding, max_bytes=10_000) is None


@codecs
def test_a_bomb_is_given_up_early(encoding: bytes, compress: _Compress) -> None:
    bomb = compress(b"\0" * (64 << 20))
    tracemalloc.start()
    try:
        assert decompressed(bomb, encoding, max_bytes=1 << 20) is None
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_that_lies_about_its_size_takes_no_memory() -> None:
    bomb = zstandard.compress(b"\0" * (64 << 20))
    assert zstandard.frame_content_size(bomb) == 64 << 20
    tracemalloc.start()
    try:
        assert decompressed(bomb, b"zstd", max_bytes=1 << 20) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", [b"", b"compress", b"gzip, br", b"\xff\xfe", b"identity"])
def test_an_unknown_encoding_is_not_undone(encoding: bytes) -> None:
    assert decompressed(gzip.compress(b"{}"), encoding, max_bytes=100) is None


@given(
    body=st.binary(max_size=200),
    codec=st.sampled_from(sorted(CODECS)),
    max_bytes=st.integers(min_value=0, max_value=300),
)
def test_any_bytes_are_survived(body: bytes, codec: str, max_bytes: int) -> None:
    encoding, compress = CODECS[codec]
    plain = decompressed(body, encoding, max_bytes=max_bytes)
    assert plain is None or len(plain) <= max_bytes
    expected = body if len(body) <= max_bytes else None
    assert decompressed(compress(body), encoding, max_bytes=max_bytes) == expected


@given(
    body=st.binary(min_size=1, max_size=500),
    codec=st.sampled_from(sorted(CODECS)),
    position=st.integers(min_value=0),
    flip=st.integers(min_value=1, max_value=255),
)
def test_a_damaged_body_is_survived(body: bytes, codec: str, position: int, flip: int) -> None:
    encoding, compress = CODECS[codec]
    damaged = bytearray(compress(body))
    damaged[position % len(damaged)] ^= flip
    plain = decompressed(bytes(damaged), encoding, max_bytes=1000)
    assert plain is None or len(plain) <= 1000
