"""What clients write into prompts and engines leave out, because it changes from turn to turn.

- Anthropic's ``cache_control`` marks up to where a cache is to be used: clients move it on with
  each turn, and engines that keep blocks of whatever they compute pass over it.
- Claude Code begins its instructions with a block that accounts for the request, the text of which
  begins with ``x-anthropic-billing-header`` and is another each time. Engines drop it, for it would
  have every prompt begin differently.
"""

import re
from typing import Final

import msgspec

__all__ = ["without_billing_blocks", "without_cache_marks"]

_MARK_KEY: Final = b'"cache_control"'
_mark: Final = re.compile(rb',\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)').match
_MOST_MARKS: Final = 64
_MOST_SPACE_BYTES: Final = 64

_MOST_BYTES: Final = 1 << 20

_BILLING: Final = b"x-anthropic-billing-header"
_is_billing: Final = re.compile(rb'"text"\s*:\s*"' + _BILLING).search
_list_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def without_cache_marks(text: bytes) -> bytes:
    """Leave out the members ``cache_control`` of JSON, or of its beginning, with the comma before.

    Only where they are not the first of their object, which clients do not write, and no more than
    64. Not those in texts: the quotes there are escaped.
    """
    position = text.find(_MARK_KEY)
    if position < 0:
        return text
    parts: list[bytes] = []
    end = marks = 0
    while position >= 0 and marks < _MOST_MARKS:
        marks += 1
        comma = text.rfind(b",", max(end, position - _MOST_SPACE_BYTES), position)
        found = _mark(text, comma) if comma >= 0 else None
        if found is not None:
            parts.append(text[end:comma].rstrip())
            end = found.end()
        position = text.find(_MARK_KEY, max(end, position + 1))
    parts.append(text[end:])
    return b"".join(parts)


def without_billing_blocks(system: bytes) -> bytes:
    """Leave out the accounting blocks of Anthropic's ``system``, where that is a list; none of more
    than a MiB, which is no client's of that kind."""
    if len(system) > _MOST_BYTES or _BILLING not in system:
        return system
    try:
        blocks = _list_decoder.decode(system)
    except msgspec.MsgspecError:
        return system
    return b"[%b]" % b",".join(block for block in blocks if not _is_billing(block))
