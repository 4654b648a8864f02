"""Which conversation a request belongs to, so that all its turns can be treated alike.

A client that keeps its conversations at the server names them: ``conversation`` of OpenAI's
responses. Elsewhere each turn brings all turns before, so what comes up to the first message of the
user stays the same: the hash of that is the conversation. Those of one application that begin with
the same instructions differ by that message.

Not heeded are ``prompt_cache_key`` and Anthropic's ``metadata.user_id``: they name what several
conversations have in common, a user or an application, and all of one application would then be
treated alike.
"""

import re
from typing import Final

import msgspec
from xxhash import xxh3_64

from epp.core.parsing.unrendered import without_cache_marks

__all__ = ["conversation_hash"]


class _Message(msgspec.Struct, gc=False):
    role: object = None
    content: msgspec.Raw = msgspec.Raw()


class _Conversation(msgspec.Struct, gc=False):
    id: str = ""


_starts_objects: Final = re.compile(rb"\[\s*\{").match
_MOST_SPACE_BYTES: Final = 64
_MOST_MESSAGES: Final = 64
_list_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])
_message_decoder: Final = msgspec.json.Decoder(_Message)
_conversation_decoder: Final = msgspec.json.Decoder(str | _Conversation | None)
_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def conversation_hash(
    named: msgspec.Raw,
    head: list[bytes],
    messages: msgspec.Raw,
    *,
    model: str,
    salt: str,
) -> int:
    """Return a number from 1 to 2^64 - 1 that is the same for all turns of a conversation; 0 where
    it cannot be told.

    ``named`` is the value of the body's ``conversation``, ``head`` the instructions, ``messages``
    a list of messages, or the text that stands for a single one of the user's.
    """
    name = _name(named)
    parts = [name.encode()] if name else _beginning(head, messages)
    if not parts:
        return 0
    hasher = xxh3_64(msgspec.json.encode((model, salt, bool(name))))
    for part in parts:
        hasher.update(part)
    return hasher.intdigest() or 1


def _name(named: msgspec.Raw) -> str:
    try:
        found = _conversation_decoder.decode(named) if named else None
    except _ERRORS:
        return ""
    return found.id if isinstance(found, _Conversation) else found or ""


def _beginning(head: list[bytes], messages: msgspec.Raw) -> list[bytes]:
    """Return what comes up to the first message of the user; empty where that is none of the first
    64."""
    parts = [without_cache_marks(part) for part in head]
    start = bytes(memoryview(messages)[:_MOST_SPACE_BYTES])
    if start.startswith(b'"'):
        return [*parts, bytes(messages)]
    if not _starts_objects(start):
        return []
    try:
        for message in _list_decoder.decode(messages)[:_MOST_MESSAGES]:
            found = _message_decoder.decode(message)
            if found.role == "user":
                return [*parts, without_cache_marks(bytes(found.content))]
            parts.append(without_cache_marks(bytes(message)))
    except _ERRORS:
        pass
    return []
