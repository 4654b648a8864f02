"""A prompt as a chain of hashes, by which prompts that begin alike are known.

Engines keep what they computed of a prompt in blocks, and use the blocks again for prompts that
begin alike. So a prompt is cut into blocks of so many tokens, four bytes each, and the hash of each
is ``xxh3_64(bytes of the block, seed=hash of the block before)``: where two chains have the same
hash at one place, the prompts are the same up to there. What is left over after the last full block
is not hashed: engines do not keep it either. Neither model nor ``cache_salt`` is part of the chain:
who compares chains of several has to keep them apart.

Nothing is decoded. Hashed are the bytes of the JSON that the engine makes its prompt of, in the
order in which it does: the tools, the system's instructions, the messages or the text. A chat that
gets longer keeps its chain, since what follows is at the end; the bracket or the quote that closes
it is left out. What is rewritten:

- a medium in base64 becomes 4096 bytes made of its hash, the 1024 tokens it counts for: different
  pictures differ, and one picture is not taken for more of the prompt than it is;
- token ids become four bytes each, so that blocks are of as many tokens as elsewhere; those that
  stand for a medium (vLLM's ``features``) become the hash that the engine knows it by;
- what engines leave out (:mod:`epp.core.parsing.unrendered`) is left out.
"""

from array import array
from collections.abc import Sequence
from struct import Struct
from typing import Final

import msgspec
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from epp.core.parsing.token_ids import are_token_ids, put_media, token_ids
from epp.core.parsing.tokens import BYTES_PER_TOKEN, TOKENS_PER_MEDIUM, media
from epp.core.parsing.unrendered import without_cache_marks

__all__ = ["prefix_hashes"]

_DIGEST_BYTES: Final = 8
_DIGESTS_PER_MEDIUM: Final = TOKENS_PER_MEDIUM * BYTES_PER_TOKEN // _DIGEST_BYTES

_SPACES: Final = b" \t\r\n"
_MOST_SPACE_BYTES: Final = 4096


def prefix_hashes(
    head: Sequence[bytes],
    prompt: msgspec.Raw,
    features: msgspec.Raw,
    *,
    block_tokens: int,
    most_tokens: int,
) -> bytes:
    """Return the hashes of a prompt's full blocks, 8 bytes in the machine's order for each.

    ``head`` is the JSON of what stands before the ``prompt``: tools and instructions. ``features``
    tells of media among token ids. Of the prompt no more than ``most_tokens`` count.
    """
    most_bytes = most_tokens * BYTES_PER_TOKEN
    ids = token_ids(prompt, most_tokens) if are_token_ids(prompt) else None
    if ids is None:
        text = _text_bytes([*head, _unclosed(prompt)], most_bytes)
    else:
        if features:
            put_media(ids, features)
        text = _text_bytes(head, most_bytes) + ids.tobytes()
    block_bytes = block_tokens * BYTES_PER_TOKEN
    end = min(len(text), most_bytes) // block_bytes * block_bytes
    blocks = Struct(f"{block_bytes}s").iter_unpack(memoryview(text)[:end])  # quicker than slices
    link = 0
    hashes = [link := xxh3_64_intdigest(block, link) for (block,) in blocks]
    return array("Q", hashes).tobytes()


def _unclosed(prompt: msgspec.Raw) -> memoryview:
    """Return a list or a text without what closes it, which comes later when it grows."""
    view = memoryview(prompt)
    end = max(0, len(view) - 1)
    tail = bytes(view[max(0, end - _MOST_SPACE_BYTES) : end])
    return view[: end - len(tail) + len(tail.rstrip(_SPACES))]


def _text_bytes(json: Sequence[bytes | memoryview], most_bytes: int) -> bytes:
    """Return the bytes of JSON to be hashed, with media replaced by what stands for them."""
    text = without_cache_marks(b"".join(json))
    view = memoryview(text)
    parts: list[bytes | memoryview] = []
    size = end = 0
    for start, next_end in media(text):
        medium = xxh3_64_digest(view[start:next_end]) * _DIGESTS_PER_MEDIUM
        parts += (view[end:start], medium)
        size += start - end + len(medium)
        end = next_end
        if size >= most_bytes:
            break
    if not parts:
        return text
    parts.append(view[end:])
    return b"".join(parts)
