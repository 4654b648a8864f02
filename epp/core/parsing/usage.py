"""How many tokens a response tells that it took.

Responses are JSON with a ``usage`` object near their end (SGLang's own API calls it ``meta_info``),
or streams of server-sent events with one in a late event, and in Anthropic's API another in the
first. So the beginning and the end are kept,
a few KiB, and looked into when all is over; nothing is decoded on the way. Only events are counted:
about one for each token, for streams that do not tell, and while they have not told yet.

What is compressed is passed over: its bytes hold no such object.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from epp.core.parsing.numbers import count_in

__all__ = ["TokenUsage", "UsageReader"]

_HEAD_BYTES: Final = 2048
_TAIL_BYTES: Final = 4096
_MAX_HELD_BYTES: Final = 2 * _TAIL_BYTES
_MAX_PARTS: Final = 16

# A newline stands before the first byte as well, put there.
_EVENT: Final = b"\ndata:"
_OVERLAP_BYTES: Final = len(_EVENT) - 1
_STREAM_STARTS: Final = b"deir:\r\n"
"""First bytes of a stream: of data, event, id, retry, a comment, an empty line. Nothing else is
searched for events, least of all large JSON."""

_DONE: Final = (b"data: [DONE]", b"data:[DONE]")
_NAMES: Final = (b'"usage"', b'"meta_info"')
_MOST_SPACE_BYTES: Final = 16
_FIRST_EVENT: Final = b'"message_start"'
_MAX_OBJECTS: Final = 16
_MAX_BRACES: Final = 8

_ABSENT: Final = msgspec.Raw()


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """How many tokens prompt and output have, and how many of the prompt's the server did not have
    to compute, since it had them in its cache; None where there is no telling."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: msgspec.Raw = _ABSENT


class _Usage(msgspec.Struct, gc=False):
    """The names of OpenAI's chat and completions, which are SGLang's too, then those of its
    responses and of Anthropic's messages."""

    prompt_tokens: msgspec.Raw = _ABSENT
    completion_tokens: msgspec.Raw = _ABSENT
    total_tokens: msgspec.Raw = _ABSENT
    cached_tokens: msgspec.Raw = _ABSENT
    prompt_tokens_details: msgspec.Raw = _ABSENT
    input_tokens: msgspec.Raw = _ABSENT
    output_tokens: msgspec.Raw = _ABSENT
    input_tokens_details: msgspec.Raw = _ABSENT
    cache_creation_input_tokens: msgspec.Raw = _ABSENT
    cache_read_input_tokens: msgspec.Raw = _ABSENT

    def prompt(self) -> int | None:
        """Return the tokens of the whole prompt: Anthropic counts what was cached apart."""
        tokens = count_in(self.prompt_tokens)
        if tokens is not None:
            return tokens
        tokens = count_in(self.input_tokens)
        if tokens is None:
            return None
        cached = (self.cache_creation_input_tokens, self.cache_read_input_tokens)
        return tokens + sum(count_in(each) or 0 for each in cached)

    def output(self) -> int | None:
        """Return the tokens of the output; embeddings have none, and tell so by the total."""
        for raw in (self.completion_tokens, self.output_tokens):
            tokens = count_in(raw)
            if tokens is not None:
                return tokens
        prompt, total = count_in(self.prompt_tokens), count_in(self.total_tokens)
        if prompt is None or total is None or total < prompt:
            return None
        return total - prompt

    def cached(self) -> int | None:
        """Return the tokens of the prompt that came out of the cache."""
        for details in (self.prompt_tokens_details, self.input_tokens_details):
            if details is not _ABSENT:
                tokens = _cached_tokens(details)
                if tokens is not None:
                    return tokens
        tokens = count_in(self.cached_tokens)
        return count_in(self.cache_read_input_tokens) if tokens is None else tokens


_decoder: Final = msgspec.json.Decoder(_Usage)
_details_decoder: Final = msgspec.json.Decoder(_Details)
_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class UsageReader:
    """Takes a response's body in pieces of any size; holds some 10 KiB of it, and a piece.

    ``events`` is how many events with data have come, up to the last 16 pieces.
    """

    __slots__ = ("_head", "_held_bytes", "_is_stream", "_parts", "events")

    def __init__(self) -> None:
        self.events = 0
        self._is_stream: bool | None = None
        self._head = b""
        self._parts = [b"\n"]
        self._held_bytes = 1

    def feed(self, chunk: bytes) -> None:
        """Take the next piece."""
        parts = self._parts
        parts.append(chunk)
        self._held_bytes += len(chunk)
        if len(parts) > _MAX_PARTS or self._held_bytes > _MAX_HELD_BYTES:
            self._condense()

    def result(self) -> TokenUsage:
        """Return what was told.

        The output of a stream that does not tell is taken for its events with data.
        """
        tail = self._condense()
        told = _told_at_the_end(tail)
        prompt, output, cached = told.prompt_tokens, told.output_tokens, told.cached_tokens
        if prompt is None:
            prompt, first_cached = _told_at_the_beginning(self._head)
            cached = first_cached if cached is None else cached
        if output is None and self.events:
            output = self.events - tail.rstrip().endswith(_DONE)
        return TokenUsage(prompt, output, cached)

    def _condense(self) -> bytes:
        """Count the events in what has come, and keep its end."""
        seen_bytes = len(self._parts[0])
        text = b"".join(self._parts)
        if self._is_stream is None and len(text) > 1:
            self._is_stream = text[1] in _STREAM_STARTS
        if self._is_stream:
            self.events += text.count(_EVENT, max(0, seen_bytes - _OVERLAP_BYTES))
        if len(text) > _TAIL_BYTES:
            self._head = self._head or text[:_HEAD_BYTES]
            text = text[-_TAIL_BYTES:]
        self._parts = [text]
        self._held_bytes = len(text)
        return text


def _told_at_the_end(tail: bytes) -> TokenUsage:
    """Return each number by the last object that has it; none that stands before those that have
    the prompt and the output is looked into."""
    prompt: int | None = None
    output: int | None = None
    cached: int | None = None
    for position, usage in _objects(tail):
        prompt = usage.prompt() if prompt is None else prompt
        cached = usage.cached() if cached is None else cached
        # What the first of Anthropic's events says of the output is no more than its beginning.
        if output is None and _FIRST_EVENT not in _line_before(tail, position):
            output = usage.output()
        if prompt is not None and output is not None:
            break
    return TokenUsage(prompt, output, cached)


def _told_at_the_beginning(head: bytes) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt, and of those in the cache."""
    for _, usage in _objects(head):
        tokens = usage.prompt()
        if tokens is not None:
            return tokens, usage.cached()
    return None, None


def _objects(text: bytes) -> Iterator[tuple[int, _Usage]]:
    """Yield the usage objects in a piece of JSON or of events, the last one first.

    Not those in texts: the quotes there are escaped.
    """
    position = len(text)
    objects = 0
    while objects < _MAX_OBJECTS:
        position, name = max((text.rfind(name, 0, position), name) for name in _NAMES)
        if position < 0:
            return
        end = position + len(name)
        after = text[end : end + _MOST_SPACE_BYTES].lstrip()
        if after.startswith(b":") and after[1:].lstrip().startswith(b"{"):
            objects += 1
            usage = _object_at(text, text.index(b"{", position))
            if usage is not None:
                yield position, usage


def _object_at(text: bytes, start: int) -> _Usage | None:
    """Return the object that begins here; its end is at one of the next braces, if it is there."""
    end = start
    for _ in range(_MAX_BRACES):
        end = text.find(b"}", end) + 1
        if not end:
            return None
        try:
            return _decoder.decode(text[start:end])
        except _ERRORS:
            continue
    return None


def _cached_tokens(details: msgspec.Raw) -> int | None:
    try:
        return count_in(_details_decoder.decode(details).cached_tokens)
    except _ERRORS:
        return None


def _line_before(text: bytes, position: int) -> bytes:
    return text[text.rfind(b"\n", 0, position) + 1 : position]
