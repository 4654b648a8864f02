"""How many tokens a prompt has, roughly, for next to nothing.

No tokenizer: one costs more than all the rest of a request, and what is estimated here is settled
by what the response tells. ``tokens = (body bytes - media bytes) / 4 + 1024 * media``, where media
are the strings of base64 in the body, as images and audio are sent. Four bytes are what the usual
tokenizers make a token of, in English text and code, and JSON's own signs count as well; 1024
tokens are what the usual models see in a picture of about a megapixel. A list of token ids counts
for as many as it has.
"""

import re
from typing import Final

__all__ = ["BYTES_PER_TOKEN", "MOST_TOKENS", "TOKENS_PER_MEDIUM", "estimated_tokens", "media"]

MOST_TOKENS: Final = 1 << 20
"""No prompt is taken for longer: hardly a model has a context of more."""

BYTES_PER_TOKEN: Final = 4
TOKENS_PER_MEDIUM: Final = 1024

# A look every 4 KiB finds each run of base64 that is longer; a shorter one counts as text, and so
# for up to the tokens of a medium.
_STRIDE_BYTES: Final = 4096
_LEAST_BYTES: Final = _STRIDE_BYTES + 64
_looks_like_base64: Final = re.compile(rb"[A-Za-z0-9+/=_-]{64}").match


def estimated_tokens(
    body: bytes, *, is_readable: bool, token_ids: int = 0, token_ids_bytes: int = 0
) -> int:
    """Return the estimate for a request body, decompressed where that is possible.

    What is not readable and does not even begin as JSON does is an upload: one medium at most. Of
    the body, ``token_ids_bytes`` are a list of so many ``token_ids``, which are tokens already.
    """
    if not is_readable and not body[:_STRIDE_BYTES].lstrip().startswith(b"{"):
        return min(len(body) // BYTES_PER_TOKEN, TOKENS_PER_MEDIUM)
    found = media(body)
    media_bytes = sum(end - start for start, end in found)
    text_bytes = len(body) - media_bytes - token_ids_bytes
    tokens = len(found) * TOKENS_PER_MEDIUM + text_bytes // BYTES_PER_TOKEN + token_ids
    return min(tokens, MOST_TOKENS)


def media(body: bytes) -> list[tuple[int, int]]:
    """Return where the long strings of base64 are, as offsets of start and end, in order.

    Whether a string is one depends on nothing that comes after it.
    """
    found: list[tuple[int, int]] = []
    last_end = 0
    position = _STRIDE_BYTES
    while position < len(body):
        if _looks_like_base64(body, position):
            start = body.rfind(b'"', last_end, position) + 1 or last_end
            end = body.find(b'"', position)
            end = len(body) if end < 0 else end
            # Prose that merely has a long word in it is given away by its spaces.
            if end - start >= _LEAST_BYTES and body.find(b" ", start, end) < 0:
                found.append((start, end))
            last_end = position = end
        position += _STRIDE_BYTES
    return found
