"""What routing needs of a request body.

A body that cannot be read, whatever the reason, is routed with defaults: the model server knows
best what is wrong with it and says so. The original bytes are never changed.
"""

import msgspec

from epp.core.parsing.decompress import decompressed

__all__ = ["BodyFacts", "inspect_body"]


class BodyFacts(msgspec.Struct, frozen=True, gc=False):
    """What was found: the model's name, empty where none was."""

    model: str = ""


class _OpenAIBody(msgspec.Struct, gc=False):
    model: str = ""


_UNREADABLE = BodyFacts()
_decoder = msgspec.json.Decoder(_OpenAIBody)


def inspect_body(body: bytes, content_encoding: bytes, *, max_inspected_bytes: int) -> BodyFacts:
    """Read the facts out of a body.

    A body under ``content-encoding`` gzip, deflate, br or zstd is decompressed for the look, up to
    ``max_inspected_bytes``; what is larger is not looked at.
    """
    if not body:
        return _UNREADABLE
    if content_encoding.strip().lower() not in (b"", b"identity"):
        plain = decompressed(body, content_encoding, max_bytes=max_inspected_bytes)
        if plain is None:
            return _UNREADABLE
        body = plain
    elif len(body) > max_inspected_bytes:
        return _UNREADABLE
    try:
        return BodyFacts(_decoder.decode(body).model)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _UNREADABLE
