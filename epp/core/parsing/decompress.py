"""A bounded, decompressed copy of a body, for inspection only."""

import zlib

import brotli
import zstandard

__all__ = ["decompressed"]

_STEP_BYTES = 1 << 20


def decompressed(body: bytes, content_encoding: bytes, *, max_bytes: int) -> bytes | None:
    """Return what ``body`` holds, or None if it is larger than ``max_bytes``, broken, or of a kind
    unknown.

    ``content_encoding`` is the header's value: gzip, x-gzip, deflate, br or zstd, in any case.
    Several encodings one over the other are not undone.
    """
    encoding = content_encoding.strip().lower()
    try:
        if encoding in (b"gzip", b"x-gzip"):
            return _inflate(body, zlib.MAX_WBITS | 16, max_bytes)
        if encoding == b"deflate":
            return _inflate(body, zlib.MAX_WBITS, max_bytes)
        if encoding == b"br":
            return _unbrotli(body, max_bytes)
        if encoding == b"zstd":
            return _unzstd(body, max_bytes)
    except (zlib.error, brotli.error, zstandard.ZstdError):
        return None
    return None


def _inflate(body: bytes, window_bits: int, max_bytes: int) -> bytes | None:
    inflater = zlib.decompressobj(window_bits)
    plain = inflater.decompress(body, max_bytes + 1)
    return plain if inflater.eof and len(plain) <= max_bytes else None


def _unbrotli(body: bytes, max_bytes: int) -> bytes | None:
    decompressor = brotli.Decompressor()
    parts = [decompressor.process(body, output_buffer_limit=_STEP_BYTES)]
    size = len(parts[0])
    while not decompressor.is_finished():
        part = decompressor.process(b"", output_buffer_limit=_STEP_BYTES)
        size += len(part)
        if not part or size > max_bytes:
            return None
        parts.append(part)
    return b"".join(parts) if size <= max_bytes else None


def _unzstd(body: bytes, max_bytes: int) -> bytes | None:
    if zstandard.frame_content_size(body) > max_bytes:  # -1 where the frame does not say
        return None
    plain = zstandard.ZstdDecompressor().decompress(body, max_output_size=max_bytes + 1)
    return plain if len(plain) <= max_bytes else None
