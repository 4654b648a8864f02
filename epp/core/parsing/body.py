"""What routing needs of a request body.

A body that cannot be read, whatever the reason, is routed with defaults: the model server knows
best what is wrong with it and says so. The original bytes are never changed.

Fields are found by their names, whatever the path, so that APIs may be put anywhere and one that is
yet to come is read as far as it uses the names of the others. They are those of OpenAI's chat,
completions, responses, embeddings, images and speech, Anthropic's messages and their counting,
vLLM's ``/inference/v1/generate``, SGLang's ``/generate``. Where the APIs mean different things by
one name, another field tells which: the responses have a ``prompt`` and a ``text`` that are no
prompt, but always an ``input`` then.
"""

from typing import Final

import msgspec

from epp.core.parsing.conversation import conversation_hash
from epp.core.parsing.decompress import decompressed
from epp.core.parsing.numbers import count_in
from epp.core.parsing.prefix import prefix_hashes
from epp.core.parsing.token_ids import are_token_ids, token_id_count
from epp.core.parsing.tokens import estimated_tokens
from epp.core.parsing.unrendered import without_billing_blocks

__all__ = ["BodyFacts", "inspect_body"]


class BodyFacts(msgspec.Struct, frozen=True, gc=False):
    """What was found.

    ``model`` is empty where none is named. ``prompt_tokens`` is estimated
    (:mod:`epp.core.parsing.tokens`). ``max_output_tokens`` is the most that all answers together
    may have (a request can ask for ``n``), None where the body sets no limit. ``cache_salt``
    separates prompts that must not share a cache. ``prefix`` is the chain of the prompt's hashes
    (:mod:`epp.core.parsing.prefix`), 8 bytes for each full block, ``conversation`` the hash of
    the conversation (:mod:`epp.core.parsing.conversation`), 0 where it cannot be told; both only
    where they are asked for. ``is_streamed`` says whether the answer is to come as it is made.
    """

    model: str = ""
    prompt_tokens: int = 0
    max_output_tokens: int | None = None
    cache_salt: str = ""
    prefix: bytes = b""
    conversation: int = 0
    is_streamed: bool = False


_ABSENT: Final = msgspec.Raw()
_NOTHING: Final = (b"", b"null", b"[]", b'""', b"{}")
_MOST_NOTHING_BYTES: Final = 4


class _Body(msgspec.Struct, gc=False):
    """The fields that matter of all the APIs. Each is read by itself, so that none fails for
    another's sake."""

    model: msgspec.Raw = _ABSENT
    stream: msgspec.Raw = _ABSENT
    max_completion_tokens: msgspec.Raw = _ABSENT
    max_tokens: msgspec.Raw = _ABSENT
    max_output_tokens: msgspec.Raw = _ABSENT
    n: msgspec.Raw = _ABSENT
    sampling_params: msgspec.Raw = _ABSENT
    cache_salt: msgspec.Raw = _ABSENT
    extra_key: msgspec.Raw = _ABSENT
    conversation: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    system: msgspec.Raw = _ABSENT
    instructions: msgspec.Raw = _ABSENT
    image_data: msgspec.Raw = _ABSENT
    messages: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    text: msgspec.Raw = _ABSENT
    input_ids: msgspec.Raw = _ABSENT
    token_ids: msgspec.Raw = _ABSENT
    features: msgspec.Raw = _ABSENT


class _Sampling(msgspec.Struct, gc=False):
    """The limits as vLLM's and SGLang's ``sampling_params`` have them."""

    max_tokens: msgspec.Raw = _ABSENT
    max_new_tokens: msgspec.Raw = _ABSENT
    n: msgspec.Raw = _ABSENT


_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decoder: Final = msgspec.json.Decoder(_Body)
_sampling_decoder: Final = msgspec.json.Decoder(_Sampling)
_text_decoder: Final = msgspec.json.Decoder(str)


def inspect_body(
    body: bytes,
    content_encoding: bytes,
    *,
    max_inspected_bytes: int,
    prefix_block_tokens: int = 0,
    max_prefix_tokens: int = 0,
    reads_conversation: bool = False,
) -> BodyFacts:
    """Read the facts out of a body.

    A body under ``content-encoding`` gzip, deflate, br or zstd is decompressed for the look, up to
    ``max_inspected_bytes``; what is larger is not read, and only its tokens are estimated. The
    prompt is hashed in blocks of ``prefix_block_tokens``, up to ``max_prefix_tokens``; not at all
    where either is 0. ``reads_conversation`` asks for the conversation's hash.
    """
    if not body:
        return BodyFacts()
    plain: bytes | None = body
    if content_encoding and content_encoding.strip().lower() not in (b"", b"identity"):
        plain = decompressed(body, content_encoding, max_bytes=max_inspected_bytes)
    elif len(body) > max_inspected_bytes:
        plain = None
    if plain is None:
        return BodyFacts(prompt_tokens=estimated_tokens(body, is_readable=False))
    try:
        found = _decoder.decode(plain)
    except _ERRORS:
        return BodyFacts(prompt_tokens=estimated_tokens(plain, is_readable=False))
    model = _text(found.model)
    salt = _text(found.cache_salt) or _text(found.extra_key)
    prompt = _prompt(found)
    is_hashed = prompt and prefix_block_tokens > 0 and max_prefix_tokens > 0
    return BodyFacts(
        model=model,
        prompt_tokens=_prompt_tokens(plain, prompt),
        max_output_tokens=_max_output_tokens(found),
        cache_salt=salt,
        prefix=_prefix(found, prompt, prefix_block_tokens, max_prefix_tokens) if is_hashed else b"",
        conversation=_conversation(found, model, salt) if reads_conversation else 0,
        is_streamed=bytes(found.stream) == b"true",
    )


def _text(raw: msgspec.Raw) -> str:
    if raw is _ABSENT:
        return ""
    try:
        return _text_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _is_nothing(raw: msgspec.Raw) -> bool:
    return len(raw) <= _MOST_NOTHING_BYTES and bytes(raw) in _NOTHING


def _present(raw: msgspec.Raw) -> list[bytes]:
    return [] if _is_nothing(raw) else [bytes(raw)]


def _instructions(found: _Body) -> list[bytes]:
    """Return what Anthropic's messages, or OpenAI's responses, have apart from the messages."""
    system = [without_billing_blocks(value) for value in _present(found.system)]
    return system + _present(found.instructions)


def _prompt(found: _Body) -> msgspec.Raw:
    """Return the value that the prompt is made of; empty where there is none."""
    for raw in (
        found.messages, found.input, found.prompt, found.text, found.input_ids, found.token_ids
    ):  # fmt: skip
        if not _is_nothing(raw):
            return raw
    return _ABSENT


def _prompt_tokens(body: bytes, prompt: msgspec.Raw) -> int:
    if prompt and are_token_ids(prompt):
        return estimated_tokens(
            body,
            is_readable=True,
            token_ids=token_id_count(prompt),
            token_ids_bytes=len(prompt),
        )
    return estimated_tokens(body, is_readable=True)


def _prefix(found: _Body, prompt: msgspec.Raw, block_tokens: int, most_tokens: int) -> bytes:
    head = [*_present(found.tools), *_instructions(found), *_present(found.image_data)]
    return prefix_hashes(
        head, prompt, found.features, block_tokens=block_tokens, most_tokens=most_tokens
    )


def _conversation(found: _Body, model: str, salt: str) -> int:
    messages = found.input if _is_nothing(found.messages) else found.messages
    return conversation_hash(
        found.conversation, _instructions(found), messages, model=model, salt=salt
    )


def _max_output_tokens(found: _Body) -> int | None:
    """Return the limit by the first field that sets one, in the order in which servers heed
    them."""
    count = found.n
    limits = [found.max_completion_tokens, found.max_tokens, found.max_output_tokens]
    if found.sampling_params is not _ABSENT:
        sampling = _sampling(found.sampling_params)
        limits += (sampling.max_tokens, sampling.max_new_tokens)
        count = count or sampling.n
    for raw in limits:
        if raw is not _ABSENT:
            limit = count_in(raw)
            if limit is not None:
                return limit * (count_in(count) or 1)
    return None


def _sampling(raw: msgspec.Raw) -> _Sampling:
    try:
        return _sampling_decoder.decode(raw)
    except _ERRORS:
        return _Sampling()
