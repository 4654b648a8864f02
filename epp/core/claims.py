"""What an incoming request says of itself, before anything is made of it."""

import hashlib
import math
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from epp.core.claim_sources import DefaultHeaders, FairnessSource, FromHeader, FromJwt
from epp.core.headers import (
    FAIRNESS_ID,
    OBJECTIVE,
    SESSION_ID,
    SLO_TTFT,
    WAIT_LIMIT,
    Headers,
)
from epp.core.parsing import inspect_body, is_generating

__all__ = ["ClaimsOptions", "ClaimsReader", "RequestClaims"]

_MAX_NAME_BYTES: Final = 256
_MOST_UTF8_BYTES: Final = 4
_MAX_VALUE_BYTES: Final = 1024
_MAX_AUTHORITY_BYTES: Final = 262
"""A host name of 253 bytes, its last dot, and a port, with bytes to spare."""


class RequestClaims(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The claims of headers, gateway's hint and body; empty or None where there is none.

    ``wait_limit_s`` and ``slo_ttft_s``, the goal for the time to first token, are in seconds;
    ``subset`` holds the ``ip:port`` that may be picked. ``prompt_tokens`` is estimated,
    ``max_output_tokens`` what the body allows, 0 where the path says that nothing is generated;
    then nothing is hashed either. ``cache_salt``, ``prefix``, ``conversation`` and
    ``is_streamed`` are as :class:`epp.core.parsing.BodyFacts` tells of them, but for a conversation
    that the header ``x-session-id`` names. ``headers`` holds the
    first values of the headers that are wanted, by their names in lower case, those that came.
    ``pool`` is what the gateway calls the pool, ``authority`` the host that the client asks, in
    lower case, without a port, an IPv6 address canonical and without brackets; empty where it is
    longer than a host can be. Names of more than 256 bytes are replaced by ``sha256-`` and the
    first 32 hexadecimal digits of their hash, so those that differ still do. Array-like, since
    claims travel from worker processes to the core.
    """

    id: str = ""
    objective: str = ""
    fairness_id: str = ""
    wait_limit_s: float | None = None
    subset: frozenset[str] | None = None
    model: str = ""
    body_bytes: int = 0
    prompt_tokens: int = 0
    max_output_tokens: int | None = None
    slo_ttft_s: float | None = None
    cache_salt: str = ""
    prefix: bytes = b""
    conversation: int = 0
    is_streamed: bool = False
    headers: dict[str, str] = {}
    pool: str = ""
    authority: str = ""


class ClaimsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request is believed.

    ``fairness_id`` lists where the fairness id comes from: the first source that has one counts,
    and without any all requests of a priority are one flow. Each ``trust_…`` says whether the
    headers are heeded by which anyone in front of the gateway can claim something, if the gateway
    lets them pass: the objective, the fairness id (the default headers alone), the time in the
    queue, the goal for the first token. Heeded or not, they never go on to the model server.
    ``heeds_subset`` says whether the gateway's hint is heeded of which endpoints may be picked.

    ``prefix_block_tokens`` is how many tokens of a prompt make a block that is hashed, 0 where
    none is, ``max_prefix_tokens`` how much of a prompt is. ``wanted_headers`` are the names of
    those whose values, up to 1 KiB each, are claims as well.
    """

    fairness_id: tuple[FairnessSource, ...] = (DefaultHeaders(),)
    trust_objective: bool = True
    trust_fairness_id: bool = True
    trust_wait_limit: bool = True
    trust_slo: bool = True
    heeds_subset: bool = True
    prefix_block_tokens: int = 64
    max_prefix_tokens: int = 131_072
    wanted_headers: tuple[str, ...] = ()


class ClaimsReader:
    """Reads the claims of requests, as its options say.

    ``removed_headers`` are those that are not to go on to the model server, besides the control
    headers. ``reads_conversation`` says whether conversations are told apart, which costs another
    look into the body; whoever wants them switches it on.
    """

    def __init__(self, options: ClaimsOptions) -> None:
        self.reads_conversation = False
        self._options = options
        self._wanted = {name.lower().encode(): name.lower() for name in options.wanted_headers}
        self._sources = [
            source
            for source in options.fairness_id
            if options.trust_fairness_id or not _is_from_anyone(source)
        ]
        names = [
            source.name if isinstance(source, FromHeader) else source.header
            for source in options.fairness_id
            if isinstance(source, FromHeader | FromJwt) and source.remove
        ]
        self.removed_headers = tuple(dict.fromkeys(name.lower().encode() for name in names))

    def read(
        self,
        headers: Headers,
        body: bytes,
        subset: frozenset[str] | None,
        *,
        max_inspected_bytes: int,
        pool: str = "",
    ) -> RequestClaims:
        """Read the claims; what is missing or malformed is left at its default.

        ``subset`` and ``pool`` are what the gateway says, None and empty where it says nothing.
        """
        options = self._options
        has_output = is_generating(headers.get(b":path") or b"")
        facts = inspect_body(
            body,
            headers.get(b"content-encoding") or b"",
            max_inspected_bytes=max_inspected_bytes,
            prefix_block_tokens=options.prefix_block_tokens if has_output else 0,
            max_prefix_tokens=options.max_prefix_tokens,
            reads_conversation=self.reads_conversation,
        )
        return RequestClaims(
            id=_text(headers.get(b"x-request-id")),
            objective=_text(headers.first_of(OBJECTIVE)) if options.trust_objective else "",
            fairness_id=self._fairness_id(headers, facts.model),
            wait_limit_s=_seconds(headers.get(WAIT_LIMIT)) if options.trust_wait_limit else None,
            subset=subset if options.heeds_subset else None,
            model=_bounded(facts.model),
            body_bytes=len(body),
            prompt_tokens=facts.prompt_tokens,
            max_output_tokens=facts.max_output_tokens if has_output else 0,
            slo_ttft_s=_seconds(headers.first_of(SLO_TTFT)) if options.trust_slo else None,
            cache_salt=_bounded(facts.cache_salt),
            prefix=facts.prefix,
            conversation=self._session(headers) or facts.conversation,
            is_streamed=facts.is_streamed,
            headers=self._wanted_headers(headers),
            pool=_bounded(pool),
            authority=_host(headers.get(b":authority")),
        )

    def _session(self, headers: Headers) -> int:
        """Return the hash of the session that a client names, which is its conversation then."""
        session = headers.get(SESSION_ID) if self.reads_conversation else None
        return xxh3_64_intdigest(session) if session else 0

    def _wanted_headers(self, headers: Headers) -> dict[str, str]:
        found: dict[str, str] = {}
        for encoded, name in self._wanted.items():
            value = headers.get(encoded)
            if value is not None:
                found[name] = value[:_MAX_VALUE_BYTES].decode("utf-8", "replace")
        return found

    def _fairness_id(self, headers: Headers, model: str) -> str:
        for source in self._sources:
            found = source.find(headers, model)
            if found:
                return _bounded(found)
        return ""


def _is_from_anyone(source: FairnessSource) -> bool:
    if isinstance(source, FromHeader):
        return source.name.lower().encode() in FAIRNESS_ID
    return isinstance(source, DefaultHeaders)


def _host(authority: bytes | None) -> str:
    if not authority or len(authority) > _MAX_AUTHORITY_BYTES:
        return ""
    return _host_of(authority)


@lru_cache(maxsize=1024)
def _host_of(authority: bytes) -> str:
    """Return the host of an authority (RFC 3986, section 3.2)."""
    text = authority.decode("latin-1").rpartition("@")[2].lower()
    if text.startswith("["):
        return _canonical(text[1:].partition("]")[0])
    host, colon, _ = text.rpartition(":")
    return (host if colon and ":" not in host else text).removesuffix(".")


def _canonical(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        return text
    return str(address.ipv4_mapped or address)


def _seconds(milliseconds: bytes | None) -> float | None:
    """Return a time given in milliseconds, None where it is no positive and finite number."""
    if not milliseconds:
        return None
    try:
        seconds = float(milliseconds) / 1000.0
    except ValueError:
        return None
    return seconds if seconds > 0 and math.isfinite(seconds) else None


def _text(value: bytes | None) -> str:
    """Decode a value for use as a name; what is no UTF-8 becomes a replacement character."""
    return _bounded(value.decode("utf-8", "replace")) if value else ""


def _bounded(name: str) -> str:
    if len(name) * _MOST_UTF8_BYTES <= _MAX_NAME_BYTES:
        return name
    encoded = name.encode()
    if len(encoded) <= _MAX_NAME_BYTES:
        return name
    return f"sha256-{hashlib.sha256(encoded).hexdigest()[:32]}"
