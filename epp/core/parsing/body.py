"""What routing needs of a request body.

A body that cannot be read, whatever the reason, is routed with defaults: the model server knows
best what is wrong with it and says so. The original bytes are never changed.
"""

from typing import Final

import msgspec

from epp.core.parsing.decompress import decompressed
from epp.core.parsing.numbers import count_in
from epp.core.parsing.tokens import estimated_tokens

__all__ = ["BodyFacts", "inspect_body"]


class BodyFacts(msgspec.Struct, frozen=True, gc=False):
    """What was found.

    ``model`` is empty where none is named. ``prompt_tokens`` is estimated
    (:mod:`epp.core.parsing.tokens`). ``max_output_tokens`` is the most that all answers together
    may have (a request can ask for ``n``), None where the body sets no limit.
    """

    model: str = ""
    prompt_tokens: int = 0
    max_output_tokens: int | None = None


_ABSENT: Final = msgspec.Raw()


class _Body(msgspec.Struct, gc=False):
    """The fields that matter of all the APIs: OpenAI's chat, completions and responses, and
    Anthropic's messages. Each is read by itself, so that none fails for another's sake."""

    model: msgspec.Raw = _ABSENT
    max_completion_tokens: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    max_output_tokens: msgspec.Raw = _ABSENT
    n: msgspec.Raw = _ABSENT


_decoder: Final = msgspec.json.Decoder(_Body)
_text_decoder: Final = msgspec.json.Decoder(str)


def inspect_body(body: bytes, content_encoding: bytes, *, max_inspected_bytes: int) -> BodyFacts:
    """Read the facts out of a body.

    A body under ``content-encoding`` gzip, deflate, br or zstd is decompressed for the look, up to
    ``max_inspected_bytes``; what is larger is not read, and only its tokens are estimated.
    """
    if not body:
        return BodyFacts()
    plain: bytes | None = body
    if content_encoding and content_encoding.strip().lower() not in (b"", b"identity"):
        plain = decompressed(body, content_encoding, max_bytes=max_inspected_bytes)
    elif len(body) > max_inspected_bytes:
        plain = None
    if plain is None:
        return BodyFacts(prompt_tokens=estimated_tokens(body, is_readable=False))
    try:
        found = _decoder.decode(plain)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return BodyFacts(prompt_tokens=estimated_tokens(plain, is_readable=False))
    return BodyFacts(
        _text(found.model), estimated_tokens(plain, is_readable=True), _max_output_tokens(found)
    )


def _text(raw: msgspec.Raw) -> str:
    if raw is _ABSENT:
        return ""
    try:
        return _text_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _max_output_tokens(found: _Body) -> int | None:
    """Return the limit by the first field that sets one, in the order in which servers heed
    them."""
    for raw in (found.max_completion_tokens, found.max_tokens, found.max_output_tokens):
        if raw is not _ABSENT:
            limit = count_in(raw)
            if limit is not None:
                return limit * (count_in(found.n) or 1)
    return None
