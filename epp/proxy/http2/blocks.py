"""Field blocks: HEADERS and its CONTINUATION frames in, whole field sections out (section 4.3)."""

from typing import Final

import msgspec

from epp.proxy.http2.frames import (
    END_HEADERS,
    END_STREAM,
    MAX_STREAM_ID,
    PADDED,
    PRIORITY_FLAG,
    ErrorCode,
)
from epp.proxy.http2.hpack_cache import (
    CompressionFault,
    FieldDecoder,
    FieldSection,
    SectionTooLarge,
)
from epp.proxy.http2.limits import ConnectionFault, Limit

__all__ = ["FieldBlocks", "Headers", "without_padding"]

_BOMB_FACTOR: Final = 2
_MAX_CONTINUATIONS: Final = 32
_PRIORITY_BYTES: Final = 5


class Headers(msgspec.Struct):
    """What a HEADERS frame and those that continue it say. ``depends_on_itself`` is the one
    mistake that its priority can make."""

    stream_id: int
    has_end: bool
    depends_on_itself: bool
    section: FieldSection


class FieldBlocks:
    """Puts field blocks together and decodes them.

    A section of more than twice ``max_section_bytes``, compressed or not, ends the connection.
    """

    __slots__ = ("_decoder", "_depends_on_itself", "_flags", "_fragments", "_max_bytes", "open_id")

    def __init__(self, max_section_bytes: int):
        self._max_bytes = max_section_bytes * _BOMB_FACTOR
        self._decoder = FieldDecoder(self._max_bytes)
        self._fragments: list[bytes] = []
        self._flags = 0
        self._depends_on_itself = False
        self.open_id = 0
        """The stream whose block is not complete: nothing but its CONTINUATION may come now."""

    def headers(self, flags: int, stream_id: int, payload: bytes) -> Headers | None:
        """Take a HEADERS frame; return the section if it is complete (section 6.2)."""
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        start, stop = 0, len(payload)
        if flags & PADDED:
            start, stop = without_padding(payload, start, stop)
        self._depends_on_itself = False
        if flags & PRIORITY_FLAG:
            if stop - start < _PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            dependency = int.from_bytes(payload[start : start + 4], "big") & MAX_STREAM_ID
            self._depends_on_itself = dependency == stream_id
            start += _PRIORITY_BYTES
        self._flags = flags
        if flags & END_HEADERS:
            return self._complete(stream_id, payload[start:stop])
        self._fragments = [payload[start:stop]]
        self.open_id = stream_id
        return None

    def continuation(self, flags: int, stream_id: int, payload: bytes) -> Headers | None:
        """Take a CONTINUATION frame likewise (section 6.10)."""
        if not self.open_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION that continues nothing")
        fragments = self._fragments
        fragments.append(payload)
        if len(fragments) > _MAX_CONTINUATIONS or sum(map(len, fragments)) > self._max_bytes:
            reason = "a field block without end"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason, Limit.CONTINUATION_FLOOD)
        if not flags & END_HEADERS:
            return None
        self.open_id = 0
        self._fragments = []
        return self._complete(stream_id, b"".join(fragments))

    def _complete(self, stream_id: int, block: bytes) -> Headers:
        try:
            section = self._decoder.decode(block)
        except CompressionFault as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        except SectionTooLarge as error:
            code = ErrorCode.ENHANCE_YOUR_CALM
            raise ConnectionFault(code, str(error), Limit.HEADER_BOMB) from error
        has_end = bool(self._flags & END_STREAM)
        return Headers(stream_id, has_end, self._depends_on_itself, section)


def without_padding(data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Return where the content of a padded frame starts and ends (sections 6.1 and 6.2)."""
    if start == stop:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    padding = data[start]
    if padding >= stop - start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding that is longer than its frame")
    return start + 1, stop - padding
