"""Requests of the OpenAI API, down to what the engine needs: tokens in, tokens out, which adapter.

There is no tokenizer: four bytes of text make a token, and a rendered prompt is padded to whole
tokens. So an answer that comes back in the next turn of a chat continues exactly the tokens that
the engine has cached.
"""

from typing import Annotated, TypeVar

import msgspec

from epp.modelserver.errors import ApiError
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.sequence import FinishReason

__all__ = ["BYTES_PER_TOKEN", "Generation", "parse_chat", "parse_completion"]

BYTES_PER_TOKEN = 4

_TokenCount = Annotated[int, msgspec.Meta(ge=1)]
_TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A request understood: ``prompt`` is whole tokens of bytes, ``salt`` separates caches."""

    model: str
    adapter: str | None
    salt: str | None
    prompt: bytes
    output_tokens: int
    finish_reason: FinishReason
    stream: bool
    include_usage: bool

    @property
    def prompt_tokens(self) -> int:
        """The length of the prompt in tokens."""
        return len(self.prompt) // BYTES_PER_TOKEN


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Request(msgspec.Struct, kw_only=True):
    model: str
    max_tokens: _TokenCount | None = None
    max_completion_tokens: _TokenCount | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    cache_salt: str | None = None
    n: int | None = None


class _CompletionRequest(_Request, kw_only=True):
    prompt: str | list[str | _TokenId]


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _ChatRequest(_Request, kw_only=True):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]


_R = TypeVar("_R", bound=_Request)

_completion_decoder = msgspec.json.Decoder(_CompletionRequest)
_chat_decoder = msgspec.json.Decoder(_ChatRequest)


def parse_completion(body: bytes, options: ModelServerOptions) -> Generation:
    """Read the body of ``/v1/completions``; raises :class:`ApiError` if it will not do."""
    request = _decode(_completion_decoder, body)
    prompt = request.prompt if isinstance(request.prompt, list) else [request.prompt]
    if len(prompt) > 1 and any(isinstance(piece, str) for piece in prompt):
        raise ApiError(400, "This server takes one prompt per request.", param="prompt")
    pieces = (
        piece.to_bytes(BYTES_PER_TOKEN, "little") if isinstance(piece, int) else _encode(piece)
        for piece in prompt
    )
    return _generation(request, b"".join(pieces), options)


def parse_chat(body: bytes, options: ModelServerOptions) -> Generation:
    """Read the body of ``/v1/chat/completions``; raises :class:`ApiError` if it will not do."""
    request = _decode(_chat_decoder, body)
    pieces: list[bytes] = []
    for message in request.messages:
        content = message.content
        if isinstance(content, list):
            content = "".join(part.text or "" for part in content)
        pieces += (_encode(f"<|{message.role[:1]}>"), _encode(content or ""))
    pieces.append(b"<|a>")
    return _generation(request, b"".join(pieces), options)


def _decode(decoder: msgspec.json.Decoder[_R], body: bytes) -> _R:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from None


def _encode(text: str) -> bytes:
    """Return text as whole tokens."""
    encoded = text.encode("utf-8", "surrogatepass")
    return encoded.ljust(-(-len(encoded) // BYTES_PER_TOKEN) * BYTES_PER_TOKEN)


def _generation(request: _Request, prompt: bytes, options: ModelServerOptions) -> Generation:
    if request.n not in (None, 1):
        raise ApiError(400, "This server generates one choice per request.", param="n")
    adapter = request.model if request.model in options.loras else None
    if adapter is None and options.models and request.model not in options.models:
        message = f"The model `{request.model}` does not exist."
        raise ApiError(404, message, param="model", code="model_not_found")
    max_tokens = request.max_completion_tokens or request.max_tokens
    generation = Generation(
        model=request.model,
        adapter=adapter,
        salt=request.cache_salt,
        prompt=prompt or b" " * BYTES_PER_TOKEN,
        output_tokens=max_tokens or options.default_max_tokens,
        finish_reason="length" if max_tokens else "stop",
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
    )
    limit = options.engine.context_tokens
    if generation.prompt_tokens + generation.output_tokens > limit:
        raise ApiError(
            400,
            f"This model's maximum context length is {limit} tokens. The request has"
            f" {generation.prompt_tokens} in its prompt and asks for {generation.output_tokens}.",
            code="context_length_exceeded",
        )
    return generation
