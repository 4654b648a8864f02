"""How many tokens a prompt has, roughly, for next to nothing.

No tokenizer: one costs more than all the rest of a request, and what is estimated here is settled
by what the response tells. ``tokens = (body bytes - media bytes) / 4 + 1024 * media``, where media
are the strings of base64 in the body, as images and audio are sent. Four bytes are what the usual
tokenizers make a token of, in English text and code, and JSON's own signs count as well; 1024
tokens are what the usual models see in a picture of about a megapixel.
"""

import re
from typing import Final

__all__ = ["MOST_TOKENS", "estimated_tokens"]

MOST_TOKENS: Final = 1 << 20
"""No prompt is taken for longer: hardly a model has a context of more."""

_BYTES_PER_TOKEN: Final = 4
_TOKENS_PER_MEDIUM: Final = 1024

# A look every 4 KiB finds each run of base64 that is longer; a shorter one counts as text, and so
# for up to the tokens of a medium.
_STRIDE_BYTES: Final = 4096
_LEAST_BYTES: Final = _STRIDE_BYTES + 64
_looks_like_base64: Final = re.compile(rb"[A-Za-z0-9+/=_-]{64}").match


def estimated_tokens(body: bytes, *, is_readable: bool) -> int:
    """Return the estimate for a request body, decompressed where that is possible.

    What is not readable and does not even begin as JSON does is an upload: one medium at most.
    """
    if not is_readable and not body[:_STRIDE_BYTES].lstrip().startswith(b"{"):
        return min(len(body) // _BYTES_PER_TOKEN, _TOKENS_PER_MEDIUM)
    if len(body) < _LEAST_BYTES:
        return len(body) // _BYTES_PER_TOKEN
    media, media_bytes = _media(body)
    tokens = media * _TOKENS_PER_MEDIUM + (len(body) - media_bytes) // _BYTES_PER_TOKEN
    return min(tokens, MOST_TOKENS)


def _media(body: bytes) -> tuple[int, int]:
    """Return how many long strings of base64 there are, and their bytes together."""
    media = media_bytes = 0
    last_end = 0
    position = _STRIDE_BYTES
    while position < len(body):
        if _looks_like_base64(body, position):
            start = body.rfind(b'"', last_end, position) + 1 or last_end
            end = body.find(b'"', position)
            end = len(body) if end < 0 else end
            # Prose that merely has a long word in it is given away by its spaces.
            if end - start >= _LEAST_BYTES and body.find(b" ", start, end) < 0:
                media += 1
                media_bytes += end - start
            last_end = position = end
        position += _STRIDE_BYTES
    return media, media_bytes
