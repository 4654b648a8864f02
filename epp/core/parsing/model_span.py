"""Where a request body names its model, so that another name can be put there.

The body is not written anew: all else in it stays as the client wrote it, to the last byte.
"""

from typing import Final

import msgspec
import numpy as np

__all__ = ["model_span"]


class _Body(msgspec.Struct, gc=False):
    model: msgspec.Raw = msgspec.Raw()


_decoder: Final = msgspec.json.Decoder(_Body)
_text_decoder: Final = msgspec.json.Decoder(str)
_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def model_span(body: bytes) -> tuple[int, int] | None:
    """Return the offsets, start and end, of the string that names the model, with its quotes.

    It is the member ``model`` of the outermost object, the last one where there are several, as for
    :func:`epp.core.parsing.inspect_body`. None where there is none, or it is no string, or the body
    is no JSON. A compressed body has to be decompressed before.
    """
    try:
        value = _decoder.decode(body).model
        if not value:
            return None
        _text_decoder.decode(value)
    except _ERRORS:
        return None
    # A Raw that was decoded is a view of the body: where, the addresses tell.
    start = _address(value) - _address(body)
    end = start + len(value)
    return (start, end) if start >= 0 and body[start:end] == bytes(value) else None


def _address(buffer: bytes | msgspec.Raw) -> int:
    return np.frombuffer(buffer, np.uint8).ctypes.data
