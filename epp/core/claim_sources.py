"""Where the fairness id of a request may come from.

Each source looks into one place and returns what it finds there, empty where that is nothing of
use. Wrong options raise ValueError, which msgspec turns into its ValidationError with the path.
"""

import binascii
import re
from typing import Any, Final, TypeAlias

import msgspec

from epp.core.headers import FAIRNESS_ID, Headers

__all__ = ["DefaultHeaders", "FairnessSource", "FromHeader", "FromJwt", "FromModel"]

_MAX_TOKEN_BYTES: Final = 16 << 10
_BEARER: Final = b"bearer "
_is_header_name: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_PSEUDO_HEADERS: Final = (":authority", ":path")
_FROM_BASE64URL: Final = bytes.maketrans(b"-_", b"+/")


class DefaultHeaders(msgspec.Struct, frozen=True, kw_only=True, tag="default-headers"):
    """The headers that are made for it: ``x-llm-d-inference-fairness-id``, then its alias.

    They never go on to the model server.
    """

    def find(self, headers: Headers, model: str) -> str:
        """Return the id."""
        return headers.first_of(FAIRNESS_ID).decode("utf-8", "replace")


class FromHeader(msgspec.Struct, frozen=True, kw_only=True, tag="header"):
    """A header of any other name, which the gateway sets, or else anyone can be anyone.

    With ``remove`` it does not go on to the model server.
    """

    name: str
    remove: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for what is no name of a header, or of none that can be removed."""
        _check_header(self.name, self.remove)

    def find(self, headers: Headers, model: str) -> str:
        """Return the id."""
        value = headers.get(self.name.lower().encode())
        return value.strip().decode("utf-8", "replace") if value else ""


class FromModel(msgspec.Struct, frozen=True, kw_only=True, tag="model"):
    """The model that the body names: each model is a flow."""

    def find(self, headers: Headers, model: str) -> str:
        """Return the id."""
        return model


class FromJwt(msgspec.Struct, frozen=True, kw_only=True, tag="jwt"):
    """A claim out of a JSON Web Token in a header: whole, also after ``Bearer``, or only its
    payload, as base64url or as plain JSON.

    Its signature is not checked: that is the gateway's to do (Envoy's ``jwt_authn`` filter), and
    where it does not, anyone can be anyone. ``claim`` is a name, or a path of names with dots
    between them; a name that has dots itself is found as well. The claim must be a text or a whole
    number. With ``remove`` the header does not go on to the model server.
    """

    header: str = "authorization"
    claim: str = "sub"
    remove: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for what is no name of a header or claim."""
        _check_header(self.header, self.remove)
        if not self.claim:
            raise ValueError("the claim is empty: expected a name, like 'sub' or 'realm.tenant'")

    def find(self, headers: Headers, model: str) -> str:
        """Return the id."""
        value = headers.get(self.header.lower().encode())
        if not value or len(value) > _MAX_TOKEN_BYTES:
            return ""
        found = _claim(_payload(value), self.claim)
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        return found if isinstance(found, str) else ""


FairnessSource: TypeAlias = DefaultHeaders | FromHeader | FromModel | FromJwt


def _check_header(name: str, remove: bool) -> None:
    if name in _PSEUDO_HEADERS:
        if remove:
            raise ValueError(f"{name} cannot be removed from a request")
    elif not _is_header_name(name):
        raise ValueError(f"{name!r} is not the name of a header")


def _payload(value: bytes) -> object:
    """Return what the token says, None where it is none."""
    token = value.strip()
    if token[: len(_BEARER)].lower() == _BEARER:
        token = token[len(_BEARER) :].strip()
    if not token.startswith(b"{"):
        parts = token.split(b".")
        if len(parts) not in (1, 3):
            return None
        part = parts[len(parts) // 2].translate(_FROM_BASE64URL)
        try:
            token = binascii.a2b_base64(part + b"=" * (-len(part) % 4), strict_mode=True)
        except binascii.Error:
            return None
    try:
        return msgspec.json.decode(token)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _claim(claims: Any, path: str) -> object:
    """Return what is at a path, None where nothing is."""
    while isinstance(claims, dict):
        if path in claims:
            return claims[path]
        name, _, path = path.partition(".")
        claims = claims.get(name)
    return None
