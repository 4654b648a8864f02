"""Sources of the fairness id: what each finds, and what none of them falls for."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.claim_sources import DefaultHeaders, FairnessSource, FromHeader, FromJwt, FromModel
from epp.core.headers import Headers

_CLAIMS = {
    "sub": "alice",
    "tenant": {"id": "acme", "plan": {"name": "gold"}},
    "https://example.com/org": "o-1",
    "apps": {"my.app": {"user": "bob"}},
    "number": 42,
    "yes": True,
    "ratio": 0.5,
    "nothing": None,
    "empty": "",
    "list": ["a"],
    "marks": "?>?>?>~~~",
}


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _payload(claims: object = _CLAIMS) -> bytes:
    return _base64url(msgspec.json.encode(claims))


def _jwt(claims: object = _CLAIMS) -> bytes:
    return b".".join((_base64url(b'{"alg":"RS256"}'), _payload(claims), _base64url(b"\xff" * 64)))


def _found(value: bytes, claim: str = "sub") -> str:
    return FromJwt(claim=claim).find(Headers([(b"authorization", value)]), "m")


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer " + _jwt(),
        b"bearer  " + _jwt() + b" ",
        b"BEARER   " + _payload(),
        _jwt(),
        _payload(),
        _payload() + b"=" * (-len(_payload()) % 4),
        base64.b64encode(msgspec.json.encode(_CLAIMS)),
        msgspec.json.encode(_CLAIMS),
    ],
)
def test_a_claim_is_found_in_every_form_of_a_token(value: bytes) -> None:
    assert {ord("-"), ord("_")} <= set(_payload())
    assert _found(value) == "alice"


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        ("sub", "alice"),
        ("tenant.id", "acme"),
        ("tenant.plan.name", "gold"),
        ("https://example.com/org", "o-1"),
        ("apps.my.app.user", ""),
        ("number", "42"),
        ("yes", ""),
        ("ratio", ""),
        ("nothing", ""),
        ("empty", ""),
        ("list", ""),
        ("list.0", ""),
        ("tenant", ""),
        ("tenant.", ""),
        (".sub", ""),
        ("sub.x", ""),
        ("missing", ""),
        ("missing.id", ""),
        (".", ""),
    ],
)
def test_a_path_leads_to_a_text_or_a_number_or_nowhere(claim: str, found: str) -> None:
    assert _found(_jwt(), claim) == found


def test_a_name_with_dots_is_found_at_the_end_of_a_path() -> None:
    assert _found(_jwt({"apps": {"my.app": "bob"}}), "apps.my.app") == "bob"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic dXNlcjpwYXNz",
        b"....",
        b"a.b",
        b"a." + _payload(),
        b"a.b.c",
        b"a.b.c.d.e",
        b"a.." + _payload(),
        _payload() + b"=====.x",
        b"!" + _payload()[1:],
        _payload()[:8] + b"!!!!" + _payload()[8:],
        _payload()[:-3],
        _payload([_CLAIMS]),
        _payload("sub"),
        _base64url(b'{"sub":"\xff"}'),
        _base64url(b'{"sub":"alice"'),
        _base64url(b'{"sub":' + b"[" * 5_000),
        b"{",
        b'{"sub":"alice"} ' + b"x",
        _jwt({"sub": "a" * 20_000}),
        b"\xff\xfe",
    ],
)
def test_what_is_no_token_gives_nothing(value: bytes) -> None:
    assert _found(value) == ""


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(value: bytes) -> None:
    for token in (value, b"Bearer " + value, _base64url(value), b"a." + _base64url(value) + b".c"):
        _found(token, "a.b").encode()


def test_the_header_of_a_token_can_be_any() -> None:
    source = FromJwt(header="X-Payload", claim="tenant.id")
    assert source.find(Headers([(b"x-payload", _payload())]), "m") == "acme"
    assert source.find(Headers([(b"authorization", _jwt())]), "m") == ""


def test_a_header_is_found_in_any_case() -> None:
    source = FromHeader(name="X-Tenant")
    assert source.find(Headers([(b"x-tenant", b" acme "), (b"x-tenant", b"other")]), "m") == "acme"
    assert source.find(Headers([(b"x-tenant", b"\xff")]), "m") == "\ufffd"
    for value in (b"", b"  "):
        assert source.find(Headers([(b"x-tenant", value)]), "m") == ""
    assert source.find(Headers([]), "m") == ""


def test_the_authority_can_be_the_tenant() -> None:
    source = FromHeader(name=":authority")
    assert source.find(Headers([(b":authority", b"acme.example.com")]), "m") == "acme.example.com"


def test_the_default_headers() -> None:
    new = (b"x-llm-d-inference-fairness-id", b"new")
    old = (b"x-gateway-inference-fairness-id", b"old")
    assert DefaultHeaders().find(Headers([old, new]), "m") == "new"
    assert DefaultHeaders().find(Headers([old]), "m") == "old"
    assert DefaultHeaders().find(Headers([]), "m") == ""


def test_the_model() -> None:
    assert FromModel().find(Headers([]), "llama") == "llama"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"type": "header", "name": ""}, "is not the name of a header"),
        ({"type": "header", "name": "x tenant"}, "'x tenant' is not the name of a header"),
        ({"type": "header", "name": "x-ténant"}, "is not the name of a header"),
        ({"type": "header", "name": ":status"}, "':status' is not the name of a header"),
        ({"type": "header", "name": ":path", "remove": True}, ":path cannot be removed"),
        ({"type": "jwt", "header": "a:b"}, "'a:b' is not the name of a header"),
        ({"type": "jwt", "claim": ""}, "the claim is empty"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(source: object, problem: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert([{"type": "model"}, source], list[FairnessSource])
    assert problem in str(error.value)
    assert "$[1]" in str(error.value)
