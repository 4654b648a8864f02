"""Prompts that are token ids already: JSON lists of numbers, or lists of such lists."""

import re
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh32_intdigest

__all__ = ["TokenIds", "are_token_ids", "put_media", "token_id_count", "token_ids"]

TokenIds: TypeAlias = NDArray[np.uint32]
"""One-dimensional, little-endian."""

_starts_numbers: Final = re.compile(rb"\[[\s\[]{0,256}\d").match
_COMMA: Final = b","[0]
# A token id of a JSON list takes no more than its 10 digits, a comma and a space.
_MOST_ID_BYTES: Final = 12


class _Range(msgspec.Struct, gc=False):
    offset: int
    length: int


class _Features(msgspec.Struct):
    """Which media stand where among the token ids, by kind."""

    mm_hashes: dict[str, list[str]] = {}
    mm_placeholders: dict[str, list[_Range]] = {}


_features_decoder: Final = msgspec.json.Decoder(_Features)


def are_token_ids(prompt: msgspec.Raw) -> bool:
    """Return whether a prompt begins as a list of numbers does, or a list of such lists."""
    return bool(_starts_numbers(prompt))


def token_id_count(prompt: msgspec.Raw) -> int:
    """Return how many ids there are."""
    return 1 + int(np.count_nonzero(np.frombuffer(prompt, np.uint8) == _COMMA))


def token_ids(prompt: msgspec.Raw, most: int) -> TokenIds | None:
    """Return the first ids, up to ``most``, of all lists one after the other; None where there is
    anything else among them."""
    text = bytes(prompt)
    end = len(text) - 1
    if end > most * _MOST_ID_BYTES:
        end = text.rfind(b",", 0, most * _MOST_ID_BYTES)
    text = text[1:end]
    if text.lstrip().startswith(b"["):
        text = text.translate(None, b"[]")
    try:
        return np.fromstring(text, dtype="<u4", sep=",")[:most]
    except ValueError:
        return None


def put_media(ids: TokenIds, features: msgspec.Raw) -> None:
    """Put the hashes of media where ids only hold their place, as vLLM's ``features`` tells.

    No more are put than there are ids, and what makes no sense is passed over.
    """
    try:
        found = _features_decoder.decode(features)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    left = len(ids)
    for kind, ranges in found.mm_placeholders.items():
        for name, where in zip(found.mm_hashes.get(kind, ()), ranges, strict=False):
            left -= where.length
            if left < 0 or where.offset < 0 or where.length < 0:
                return
            ids[where.offset : where.offset + where.length] = xxh32_intdigest(name.encode())
