"""Puts the client's name for its model into the response, where the model server puts its own.

The response, JSON or a stream of events with JSON in them, is not parsed: each ``"model"`` that is
a key and has exactly the model server's name for a value gets another value. That can be told from
the bytes alone:

- In JSON a quote is the beginning or the end of a string, or it is inside one and a backslash
  stands before it. After the end of a string come a comma, a colon, a bracket or space, never a
  letter, and before the beginning of one never a backslash. So ``"model"`` without a backslash
  before it is a whole string, and no text, however much it speaks of models.
- A string that is followed by a colon is a key.
- The value is compared with the name character by character, each as itself or escaped, in any of
  the ways that JSON has, up to the quote that ends it. So it is the name, and nothing longer.

Keys of this name at any depth are meant: the responses and Anthropic's messages have theirs inside
an object. So is one in the arguments of a tool's call, where an API has these as objects, as
Anthropic's has, and a model calls a tool with the model server's name for itself. What is
compressed is passed on as it is.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

__all__ = ["ModelNameRestorer"]

_KEY: Final = b'"model"'
_SPACE: Final = rb"[ \t\r\n]{0,64}"
_COLON: Final = _SPACE + b":" + _SPACE
_MOST_SPACE_BYTES: Final = 2 * 64
_unfinished: Final = re.compile(
    _KEY + _SPACE + b"(?::" + _SPACE + rb'(?:"(?P<value>.*))?)?\Z', re.DOTALL
).match

_BACKSLASH: Final = b"\\"[0]
_FIRST_PRINTABLE: Final = " "
_SHORT_ESCAPES: Final = {
    '"': b'\\"', "\\": b"\\\\", "/": b"\\/", "\b": b"\\b", "\f": b"\\f", "\n": b"\\n",
    "\r": b"\\r", "\t": b"\\t",
}  # fmt: skip
_MOST_TARGETS: Final = 256


class _Target(NamedTuple):
    """A name as it may stand in JSON: for each character the forms it can have.

    ``pattern`` matches the key and the name, in a group ``value``; ``most_bytes`` is the length of
    the longest match.
    """

    forms: tuple[tuple[bytes, ...], ...]
    pattern: re.Pattern[bytes]
    most_bytes: int

    def can_begin_with(self, text: bytes) -> bool:
        """Return whether a name in JSON can begin so, after its first quote."""
        position = 0
        for forms in self.forms:
            for form in forms:
                part = text[position : position + len(form)]
                if form.startswith(part):
                    break
            else:
                return False
            position += len(form)
            if position > len(text):
                return True
        return position == len(text)


class ModelNameRestorer:
    """Takes a response's body in pieces of any size and gives it back with the ``client``'s name in
    place of the ``target``, the name that the model server knows.

    A piece's end is held back only where it can be the beginning of a key with that value: a few
    bytes, and never more than six for each of the name's UTF-16 units and 140 besides.
    """

    __slots__ = ("_follows_backslash", "_held", "_replacement", "_target")

    def __init__(self, target: str, client: str) -> None:
        self._target = _target(target)
        self._replacement = msgspec.json.encode(client)
        self._held = b""
        self._follows_backslash = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next piece and return what can go on now."""
        text = self._held + chunk if self._held else chunk
        parts: list[bytes] = []
        done = 0
        end = len(text)
        for start, value_start, value_end in self._found(text):
            if not value_end:
                end = start
                break
            parts += (text[done:value_start], self._replacement)
            done = value_end
        self._held = text[end:]
        if end:
            self._follows_backslash = text[end - 1] == _BACKSLASH
        if not parts:
            return text[:end]
        parts.append(text[done:end])
        return b"".join(parts)

    def end(self) -> bytes:
        """Return the rest: nothing comes any more."""
        rest, self._held = self._held, b""
        return rest

    def _found(self, text: bytes) -> Iterator[tuple[int, int, int]]:
        """Yield where a key begins, where its value begins and ends; last, with zeros, where what
        can become one begins."""
        position = 0
        start = text.find(_KEY)
        while start >= 0:
            position = start + 1
            if not self._is_escaped(text, start):
                found = self._target.pattern.match(text, start)
                if found is not None:
                    yield start, *found.span("value")
                    position = found.end()
                elif self._is_unfinished(text, start):
                    yield start, 0, 0
                    return
            start = text.find(_KEY, position)
        start = text.rfind(b'"', max(position, len(text) - len(_KEY) + 1))
        if start >= 0 and _KEY.startswith(text[start:]) and not self._is_escaped(text, start):
            yield start, 0, 0

    def _is_escaped(self, text: bytes, start: int) -> bool:
        return text[start - 1] == _BACKSLASH if start else self._follows_backslash

    def _is_unfinished(self, text: bytes, start: int) -> bool:
        """Return whether what comes can make a match of the rest of the text."""
        if len(text) - start >= self._target.most_bytes:
            return False
        found = _unfinished(text, start)
        if found is None:
            return False
        value = found["value"]
        return value is None or self._target.can_begin_with(value)


@lru_cache(maxsize=_MOST_TARGETS)
def _target(name: str) -> _Target:
    forms = tuple(_forms(character) for character in name)
    value = b"".join(b"(?:" + b"|".join(map(re.escape, each)) + b")" for each in forms)
    return _Target(
        forms,
        re.compile(_KEY + _COLON + b'(?P<value>"' + value + b'")'),
        len(_KEY) + _MOST_SPACE_BYTES + len(':""') + sum(max(map(len, each)) for each in forms),
    )


def _forms(character: str) -> tuple[bytes, ...]:
    """Return how a character can stand in JSON: as it is, by a short escape, by its number."""
    forms = []
    if character >= _FIRST_PRINTABLE and character not in '"\\':
        forms.append(character.encode())
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        forms.append(short)
    units = character.encode("utf-16-be")
    numbers = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    forms.append(b"".join(b"\\u%04x" % number for number in numbers))
    forms.append(b"".join(b"\\u%04X" % number for number in numbers))
    return tuple(dict.fromkeys(forms))
