"""Another model's name in a request, and the client's in the response.

Nothing is parsed that has not been before, and nothing written anew: the name is put into the body
as it came. A compressed body goes on plain, and the model server is asked not to compress what it
answers, since the client's name has to be put back there.
"""

from typing import Final

import msgspec

from epp.core.headers import Headers
from epp.core.parsing import model_span
from epp.core.parsing.decompress import decompressed
from epp.core.parsing.model_name import ModelNameRestorer
from epp.core.replies import Header

__all__ = ["IS_PLAIN", "RewrittenBody", "rewritten_body"]

IS_PLAIN: Final = (b"", b"identity")
"""The values of ``content-encoding`` that say that there is none."""

_ENCODING: Final = b"content-encoding"
_UNCOMPRESSED: Final[tuple[Header, ...]] = ((b"accept-encoding", b"identity"),)


class RewrittenBody(msgspec.Struct, frozen=True):
    """A request's ``body`` with another model's name, the headers that go with it, and what puts
    the client's name into the response.

    The body's length is not what ``content-length`` says any more. That header is left to whoever
    sends the body: it may be set, or must not be there at all.
    """

    body: bytes
    restorer: ModelNameRestorer
    set_headers: tuple[Header, ...]
    removed_headers: tuple[bytes, ...]


def rewritten_body(
    body: bytes, headers: Headers, model: str, *, max_inspected_bytes: int, response_seen: bool
) -> RewrittenBody | None:
    """Return the body with this model; None where none is named in it, or it cannot be read.

    Where the response's body is not seen, it may be compressed as well.
    """
    encoding = headers.get(_ENCODING) or b""
    is_plain = encoding.strip().lower() in IS_PLAIN
    plain: bytes | None = body
    if not is_plain:
        plain = decompressed(body, encoding, max_bytes=max_inspected_bytes)
    span = None if plain is None else model_span(plain)
    if plain is None or span is None:
        return None
    start, end = span
    client = msgspec.json.decode(plain[start:end], type=str)
    return RewrittenBody(
        body=b"".join((plain[:start], msgspec.json.encode(model), plain[end:])),
        restorer=ModelNameRestorer(model, client),
        set_headers=_UNCOMPRESSED if response_seen else (),
        removed_headers=() if is_plain else (_ENCODING,),
    )
