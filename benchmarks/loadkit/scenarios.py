"""What is measured: the requests, the answers to them, and how Envoy is set up for each."""

import json
from collections.abc import Callable
from typing import Final, Literal

import msgspec

__all__ = ["ANSWERS", "SCENARIOS", "Answer", "GatewayKind", "Scenario", "chat_request"]

GatewayKind = Literal["off", "headers", "duplex", "contended", "relayed"]
"""Which Envoy: without the filter; the response's body not sent to the EPP; sent; few slots; as
duplex, with a relay between Envoy and the EPP."""

_WORDS: Final = "The quick brown fox jumps over the lazy dog while the model thinks about it. "
_TURN_CHARACTERS: Final = 2_000
_TURN_OVERHEAD_CHARACTERS: Final = 100


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answers: ``pieces``, one after the other, together are the body.

    A single piece is sent with its Content-Length, ``wait_s`` after the request; several are sent
    chunked, ``wait_s`` apart on average.
    """

    pieces: tuple[bytes, ...]
    wait_s: float = 0.0

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request.

    ``gateway`` is the one that is compared with the one without the filter, ``body_bytes`` the
    size of the request's body, ``answer`` a key of :data:`ANSWERS`.
    """

    name: str
    text: str
    gateway: GatewayKind
    body_bytes: int
    answer: str

    def request(self) -> bytes:
        """Return the request as a client sends it."""
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\n"
            "host: gateway\r\n"
            "user-agent: benchmark\r\n"
            "content-type: application/json\r\n"
            f"content-length: {self.body_bytes}\r\n"
            f"x-benchmark-answer: {self.answer}\r\n"
            f"x-benchmark-bytes: {self.body_bytes}\r\n\r\n"
        )
        return head.encode() + chat_request(self.body_bytes)


def chat_request(size_bytes: int) -> bytes:
    """Return a chat request of exactly this size: a conversation, its turns of a usual length."""
    count = size_bytes // (_TURN_CHARACTERS + _TURN_OVERHEAD_CHARACTERS)
    turns = [
        {"role": "assistant" if index % 2 else "user", "content": _text(_TURN_CHARACTERS)}
        for index in range(count)
    ]

    def with_last_turn(text: str) -> object:
        messages = [*turns, {"role": "user", "content": text}]
        return {"model": "a-model", "max_tokens": 64, "messages": messages}

    return _of_size(with_last_turn, size_bytes)


def _chat_answer(size_bytes: int) -> bytes:
    """Return a chat completion of exactly this size."""

    def with_content(text: str) -> object:
        message = {"role": "assistant", "content": text}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}

    return _of_size(with_content, size_bytes)


def _events(count: int) -> tuple[bytes, ...]:
    """Return as many server-sent events as a model would make of as many tokens."""
    return tuple(
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"a-model","choices":'
        b'[{"index":0,"delta":{"content":" token %04d"},"finish_reason":null}]}\n\n' % number
        for number in range(count)
    )


def _of_size(with_text: Callable[[str], object], size_bytes: int) -> bytes:
    frame_bytes = len(json.dumps(with_text("")))
    return json.dumps(with_text(_text(size_bytes - frame_bytes))).encode()


def _text(characters: int) -> str:
    return (_WORDS * (characters // len(_WORDS) + 1))[:characters]


ANSWERS: Final = {
    "small": Answer(pieces=(_chat_answer(200),)),
    "large": Answer(pieces=(_chat_answer(400_000),)),
    "events": Answer(pieces=_events(100), wait_s=0.005),
    "long-stream": Answer(pieces=_events(250), wait_s=0.004),
    "slow": Answer(pieces=(_chat_answer(200),), wait_s=0.010),
}
"""The answers that the server knows, by the name with which a request asks for one."""

SCENARIOS: Final = (
    Scenario(
        name="small",
        text="200 B request and response, response body not sent to the EPP",
        gateway="headers",
        body_bytes=200,
        answer="small",
    ),
    Scenario(
        name="small-duplex",
        text="200 B request and response, both bodies through the EPP",
        gateway="duplex",
        body_bytes=200,
        answer="small",
    ),
    Scenario(
        name="chat",
        text="60 KB chat request, 200 B response, response body not sent to the EPP",
        gateway="headers",
        body_bytes=60_000,
        answer="small",
    ),
    Scenario(
        name="large-duplex",
        text="400 KB request and response, both bodies through the EPP",
        gateway="duplex",
        body_bytes=400_000,
        answer="large",
    ),
    Scenario(
        name="stream",
        text="200 B request, SSE response of 100 events in 0.5 s, both bodies through the EPP",
        gateway="duplex",
        body_bytes=200,
        answer="events",
    ),
    Scenario(
        name="contended",
        text="as small, but the pool has slots for a quarter of the clients: the rest waits",
        gateway="contended",
        body_bytes=200,
        answer="slow",
    ),
)
"""What is measured, in this order."""
