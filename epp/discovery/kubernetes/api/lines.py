"""A stream of bytes, cut into lines."""

from collections.abc import Iterator

from epp.discovery.kubernetes.api.errors import AnswerTooLarge

__all__ = ["LineSplitter"]


class LineSplitter:
    """Makes lines of a stream, however that is cut into parts. No line may have more than
    ``max_line_bytes``, and what of it has come is all that is kept."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Take the next part and give the lines that it ends, empty ones too.

        Raises AnswerTooLarge when it comes to a line that is.
        """
        *lines, rest = part.split(b"\n")
        for line in lines:
            if self._begun:
                line = b"".join((*self._begun, line))
                self._begun.clear()
                self._begun_bytes = 0
            self._check(len(line))
            yield line
        if rest:
            self._begun.append(rest)
            self._begun_bytes += len(rest)
            self._check(self._begun_bytes)

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._max_line_bytes:
            raise AnswerTooLarge(f"a line of more than {self._max_line_bytes} bytes")

    def end(self) -> bytes:
        """Return what stands after the last end of a line."""
        return b"".join(self._begun)
