"""Answers of the OpenAI API. The same request body gets the same bytes from every server."""

from abc import ABC, abstractmethod
from hashlib import blake2b

import msgspec

from epp.modelserver.prompts import BYTES_PER_TOKEN, Generation

__all__ = ["ChatAnswer", "CompletionAnswer", "block_hashes"]

_CREATED = 1_700_000_000
# One word and a space is one token; the number of words is a power of two.
_WORDS = (
    b"all and any ape arm art ask bad bat bee big box boy bus but cap cat cow cup cut day dog dry "
    b"ear eat egg eye far fat few fig fly for fox fun gas get hat hen her hot ice ink jam key kid "
    b"lap leg let lip man map mud net new not now oak off old one out own "
)
_TOKENS = [
    _WORDS[start : start + BYTES_PER_TOKEN] for start in range(0, len(_WORDS), BYTES_PER_TOKEN)
]


def _output(generation: Generation) -> bytes:
    """Return the text of all output tokens: the same for the same model and prompt."""
    digest = blake2b(generation.prompt, person=b"output", key=generation.model.encode()[:64])
    seed = int.from_bytes(digest.digest()[:8], "little")
    # An odd stride visits each word once before any comes again.
    first, stride = seed % len(_TOKENS), (seed >> 8) | 1
    cycle = b"".join(_TOKENS[(first + i * stride) % len(_TOKENS)] for i in range(len(_TOKENS)))
    repeats = generation.output_tokens // len(_TOKENS) + 1
    return (cycle * repeats)[: generation.output_tokens * BYTES_PER_TOKEN]


def block_hashes(generation: Generation, output: bytes, block_size: int) -> list[int]:
    """Return the engine's chain of hashes for the full blocks of prompt and output."""
    text = generation.prompt + output
    block_bytes = block_size * BYTES_PER_TOKEN
    chain = hash((generation.adapter, generation.salt))
    hashes = []
    for end in range(block_bytes, len(text) + 1, block_bytes):
        chain = hash((chain, text[end - block_bytes : end]))
        hashes.append(chain)
    return hashes


class _Answer(ABC):
    """The answer to one request, whole or token by token."""

    _id_prefix: str
    _object: str
    _chunk_object: str

    def __init__(self, generation: Generation, body: bytes) -> None:
        self.output = _output(generation)
        self._generation = generation
        self._id = f"{self._id_prefix}-{blake2b(body, digest_size=12).hexdigest()}"
        self._chunk_head = b'data: {"id":"%s","object":"%s","created":%d,"model":%s,' % (
            self._id.encode(),
            self._chunk_object.encode(),
            _CREATED,
            msgspec.json.encode(generation.model),
        )

    def whole(self) -> bytes:
        """Return the JSON body of an answer that is not streamed."""
        return msgspec.json.encode(
            {
                "id": self._id,
                "object": self._object,
                "created": _CREATED,
                "model": self._generation.model,
                "choices": [
                    {
                        "index": 0,
                        **self._content(self.output.decode()),
                        "logprobs": None,
                        "finish_reason": self._generation.finish_reason,
                    }
                ],
                "usage": self._usage(),
            }
        )

    def chunk(self, index: int) -> bytes:
        """Return the server-sent event of the output token with this index."""
        start = index * BYTES_PER_TOKEN
        text = self.output[start : start + BYTES_PER_TOKEN]
        is_last = index + 1 == self._generation.output_tokens
        finish = b'"%s"' % self._generation.finish_reason.encode() if is_last else b"null"
        return self._event(self._delta(text), finish)

    def opening(self) -> bytes:
        """Return the event before the first token; empty where the protocol has none."""
        return b""

    def closing(self) -> bytes:
        """Return the events after the last token."""
        done = b"data: [DONE]\n\n"
        if not self._generation.include_usage:
            return done
        usage = msgspec.json.encode(self._usage())
        return self._chunk_head + b'"choices":[],"usage":%s}\n\n' % usage + done

    def _event(self, delta: bytes, finish: bytes) -> bytes:
        choice = b'"choices":[{"index":0,%s,"logprobs":null,"finish_reason":%s}]}\n\n'
        return self._chunk_head + choice % (delta, finish)

    def _usage(self) -> dict[str, int]:
        prompt, output = self._generation.prompt_tokens, self._generation.output_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
        }

    @abstractmethod
    def _content(self, text: str) -> dict[str, object]:
        """Return the members of a choice that hold a whole text."""

    @abstractmethod
    def _delta(self, text: bytes) -> bytes:
        """Return the member of a choice that holds a piece of text, as JSON."""


class CompletionAnswer(_Answer):
    """The answer of ``/v1/completions``."""

    _id_prefix = "cmpl"
    _object = _chunk_object = "text_completion"

    def _content(self, text: str) -> dict[str, object]:
        return {"text": text}

    def _delta(self, text: bytes) -> bytes:
        return b'"text":"%s"' % text


class ChatAnswer(_Answer):
    """The answer of ``/v1/chat/completions``."""

    _id_prefix = "chatcmpl"
    _object = "chat.completion"
    _chunk_object = "chat.completion.chunk"

    def opening(self) -> bytes:
        """Return the event that names the role."""
        return self._event(b'"delta":{"role":"assistant","content":""}', b"null")

    def _content(self, text: str) -> dict[str, object]:
        return {"message": {"role": "assistant", "content": text}}

    def _delta(self, text: bytes) -> bytes:
        return b'"delta":{"content":"%s"}' % text
