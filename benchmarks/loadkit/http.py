"""Just enough HTTP/1.1 to measure with, at next to no cost, and strict about what it reads."""

from typing import Final

__all__ = ["MessageReader", "WrongMessageError", "header_value"]

_LINE_END: Final = b"\r\n"


class WrongMessageError(Exception):
    """What came is no HTTP message, or not the one that was due."""


class MessageReader:
    """Reads the messages of one connection, one after the other, none of them pipelined.

    ``expected_body`` is what every body must be, byte for byte; None takes any. After
    :meth:`feed` has returned True, ``head`` (in lower case, from the start line on) and
    ``body_bytes`` describe the message, until the next call begins a new one.
    """

    __slots__ = ("_expected", "_is_chunked", "_is_first_chunk", "_left", "_rest", "body_bytes",
                 "head")  # fmt: skip

    def __init__(self, expected_body: bytes | None = None) -> None:
        self._expected = expected_body
        self._rest = b""
        self._is_chunked = False
        self._is_first_chunk = True
        self._left = 0
        self.head = b""
        self.body_bytes = -1

    @property
    def is_between(self) -> bool:
        """Whether no message has been begun."""
        return self.body_bytes < 0 and not self._rest

    def feed(self, data: bytes) -> bool:
        """Take what has arrived; return whether it completes the message.

        Raises :class:`WrongMessageError` for anything that is not exactly what was due.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        position = 0
        if self.body_bytes < 0:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return False
            self._open(data[: end + 2].lower())
            position = end + 4
        read = self._chunks if self._is_chunked else self._plain
        if not read(data, position):
            return False
        if self._expected is not None and self.body_bytes != len(self._expected):
            raise WrongMessageError(
                f"a body of {self.body_bytes} bytes, expected {len(self._expected)}"
            )
        return True

    def next(self) -> None:
        """Forget the message that is complete, to read the one after it."""
        self.body_bytes = -1

    def _open(self, head: bytes) -> None:
        self.head = head
        self.body_bytes = 0
        length = header_value(head, b"content-length")
        self._is_chunked = length is None and header_value(head, b"transfer-encoding") == b"chunked"
        self._is_first_chunk = True
        self._left = _number(length, 10) if length is not None else 0

    def _plain(self, data: bytes, position: int) -> bool:
        piece = data[position:]
        if len(piece) > self._left:
            raise WrongMessageError("more bytes than the message has")
        self._left -= len(piece)
        self._take(piece)
        return not self._left

    def _chunks(self, data: bytes, position: int) -> bool:
        size = len(data)
        while True:
            if self._left:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                self._take(piece)
                if self._left:
                    return False
            # The line end after a chunk is read as the beginning of the next chunk's size line.
            line_end = data.find(_LINE_END, position + (0 if self._is_first_chunk else 2))
            if line_end < 0 or size < line_end + 4:
                # With the size there are two bytes more at least: of the chunk, or of the end.
                self._rest = data[position:]
                return False
            self._is_first_chunk = False
            self._left = _number(data[position:line_end], 16)
            position = line_end + 2
            if not self._left:
                if data[position:] != _LINE_END:
                    raise WrongMessageError("something other than the end after the last chunk")
                return True

    def _take(self, piece: bytes) -> None:
        expected, begin = self._expected, self.body_bytes
        self.body_bytes = begin + len(piece)
        if expected is not None and expected[begin : self.body_bytes] != piece:
            raise WrongMessageError(f"a wrong body, from byte {begin} on or later")


def header_value(head: bytes, name: bytes) -> bytes | None:
    """Return the value of a header in a head of lower case, None where it is not there."""
    begin = head.find(b"\r\n" + name + b": ")
    if begin < 0:
        return None
    begin += len(name) + 4
    return head[begin : head.find(_LINE_END, begin)]


def _number(text: bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise WrongMessageError(f"{text[:40]!r} where a length was due") from None
