"""Claims: what a request says of itself, whatever a client may have put there."""

import gzip
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.claim_sources import DefaultHeaders, FromHeader, FromJwt, FromModel
from epp.core.claims import ClaimsOptions, ClaimsReader, RequestClaims
from epp.core.headers import CONTROL_HEADERS, Headers

_DEFAULT = ClaimsOptions()


def _claims(
    *pairs: tuple[bytes, bytes], body: bytes = b"", options: ClaimsOptions = _DEFAULT
) -> RequestClaims:
    reader = ClaimsReader(options)
    return reader.read(Headers(list(pairs)), body, None, max_inspected_bytes=1000)


def test_a_silent_request_has_no_claims() -> None:
    assert _claims() == RequestClaims()


def test_a_session_that_is_named_is_the_conversation_where_those_are_told_apart() -> None:
    reader = ClaimsReader(ClaimsOptions())
    bodies = [b'{"messages":[{"role":"user","content":"%b"}]}' % text for text in (b"a", b"b")]

    def conversations(*pairs: tuple[bytes, bytes]) -> list[int]:
        found = Headers(list(pairs))
        claims = (reader.read(found, body, None, max_inspected_bytes=100) for body in bodies)
        return [each.conversation for each in claims]

    session, other = (b"x-session-id", b"s-1"), (b"x-session-id", b"s-2")
    assert conversations(session) == [0, 0]
    reader.reads_conversation = True
    assert len({*conversations(), *conversations(session), *conversations(other)}) == 4
    assert len(set(conversations(session))) == 1
    assert conversations((b"x-session-id", b"")) == conversations()


def test_every_claim() -> None:
    body = gzip.compress(b'{"model":"m","max_tokens":5,"n":2}')
    found = ClaimsReader(ClaimsOptions()).read(
        Headers(
            [
                (b"x-request-id", b"id-1"),
                (b"x-llm-d-inference-objective", b"interactive"),
                (b"x-gateway-inference-fairness-id", b"tenant"),
                (b"x-gateway-request-ttl-ms", b"1500"),
                (b"x-slo-ttft-ms", b"250"),
                (b"content-encoding", b"gzip"),
            ]
        ),
        body,
        frozenset({"10.0.0.1:80"}),
        max_inspected_bytes=1000,
    )
    assert found == RequestClaims(
        id="id-1",
        objective="interactive",
        fairness_id="tenant",
        wait_limit_s=1.5,
        subset=frozenset({"10.0.0.1:80"}),
        model="m",
        body_bytes=len(body),
        prompt_tokens=8,
        max_output_tokens=10,
        slo_ttft_s=0.25,
    )


@pytest.mark.parametrize(
    ("value", "wait_limit_s"),
    [
        (b"1", 0.001),
        (b"0.5", 0.0005),
        (b"60000", 60.0),
        (b" 100 ", 0.1),
        (b"1e3", 1.0),
        (b"", None),
        (b"0", None),
        (b"-5", None),
        (b"nan", None),
        (b"inf", None),
        (b"1e999", None),
        (b"9" * 5000, None),
        (b"5s", None),
        (b"\xff", None),
        (b"1\x00", None),
    ],
)
def test_a_time_is_a_positive_number_or_none(value: bytes, wait_limit_s: float | None) -> None:
    assert _claims((b"x-gateway-request-ttl-ms", value)).wait_limit_s == wait_limit_s
    assert _claims((b"x-llm-d-slo-ttft-ms", value)).slo_ttft_s == wait_limit_s
    assert _claims((b"x-slo-ttft-ms", value)).slo_ttft_s == wait_limit_s


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"x-request-id",
                    b"x-llm-d-inference-objective",
                    b"x-gateway-inference-fairness-id",
                    b"x-gateway-request-ttl-ms",
                    b"x-slo-ttft-ms",
                    b"content-encoding",
                ]
            ),
            st.binary(max_size=20),
        )
    ),
    st.binary(max_size=50),
)
def test_any_bytes_give_names_that_are_text(pairs: list[tuple[bytes, bytes]], body: bytes) -> None:
    found = _claims(*pairs, body=body)
    for text in (found.id, found.objective, found.fairness_id, found.model):
        assert len(text.encode()) <= 256
    assert found.wait_limit_s is None or 0 < found.wait_limit_s < math.inf
    assert found.body_bytes == len(body)


def test_a_name_that_is_not_utf8() -> None:
    assert _claims((b"x-llm-d-inference-fairness-id", b"\xffid")).fairness_id == "\ufffdid"


@pytest.mark.parametrize("letter", ["o", "\u00e9", "\u4e2d", "\U0001f600"])
def test_a_long_name_is_replaced_by_its_hash(letter: str) -> None:
    size = len(letter.encode())
    fits, long, other = letter * (256 // size), letter * (256 // size + 1), letter * 9_000
    names = {fits, long, other}
    found = {}
    for name in names:
        claims = _claims(
            (b"x-request-id", name.encode()),
            (b"x-llm-d-inference-objective", name.encode()),
            (b"x-llm-d-inference-fairness-id", name.encode()),
            body=msgspec.json.encode({"model": name}) if len(name) < 900 else b"",
        )
        assert claims.objective == claims.fairness_id == claims.id
        assert claims.model in (claims.id, "")
        found[name] = claims.fairness_id
    assert found[fits] == fits
    assert len(set(found.values())) == 3
    for name in (long, other):
        assert found[name].startswith("sha256-")
        assert len(found[name]) == 39


# Where the fairness id comes from

_ID = b"x-llm-d-inference-fairness-id"
_PLAIN_JWT = b'{"sub":"from-jwt"}'


def test_the_first_source_that_has_one_counts() -> None:
    options = ClaimsOptions(
        fairness_id=(
            FromJwt(header="x-payload"),
            FromHeader(name="x-tenant"),
            DefaultHeaders(),
            FromModel(),
        )
    )
    pairs = [(b"x-payload", _PLAIN_JWT), (b"x-tenant", b"from-header"), (_ID, b"from-client")]
    body = b'{"model":"from-model"}'
    found = []
    while True:
        found.append(_claims(*pairs, body=body, options=options).fairness_id)
        if not pairs:
            break
        pairs.pop(0)
    assert found == ["from-jwt", "from-header", "from-client", "from-model"]
    assert _claims(options=options).fairness_id == ""


def test_a_source_that_finds_nothing_of_use_is_passed_over() -> None:
    options = ClaimsOptions(fairness_id=(FromJwt(header="x-payload"), FromHeader(name="x-tenant")))
    pairs = [(b"x-payload", b"not a token"), (b"x-tenant", b"acme")]
    assert _claims(*pairs, options=options).fairness_id == "acme"


def test_without_sources_all_are_one_flow() -> None:
    claims = _claims((_ID, b"acme"), body=b'{"model":"m"}', options=ClaimsOptions(fairness_id=()))
    assert claims.fairness_id == ""
    assert claims.model == "m"


@pytest.mark.parametrize("source", [FromHeader(name="x-tenant"), FromModel()])
def test_an_id_of_any_source_is_bounded(source: FromHeader | FromModel) -> None:
    body = msgspec.json.encode({"model": "x" * 300})
    options = ClaimsOptions(fairness_id=(source,))
    found = _claims((b"x-tenant", b"x" * 300), body=body, options=options)
    assert found.fairness_id.startswith("sha256-")


# What is trusted

_ALL = (
    (b"x-llm-d-inference-objective", b"batch"),
    (_ID, b"acme"),
    (b"x-gateway-request-ttl-ms", b"1000"),
    (b"x-slo-ttft-ms", b"1000"),
)


@pytest.mark.parametrize(
    ("switch", "field", "value"),
    [
        ("trust_objective", "objective", ""),
        ("trust_fairness_id", "fairness_id", ""),
        ("trust_wait_limit", "wait_limit_s", None),
        ("trust_slo", "slo_ttft_s", None),
    ],
)
def test_each_claim_of_a_client_can_be_ignored(switch: str, field: str, value: object) -> None:
    trusting = _claims(*_ALL)
    assert getattr(trusting, field)
    wary = _claims(*_ALL, options=msgspec.convert({switch: False}, ClaimsOptions))
    assert wary == msgspec.structs.replace(trusting, **{field: value})


def test_without_trust_the_default_headers_count_under_no_name_of_theirs() -> None:
    sources = (
        DefaultHeaders(),
        FromHeader(name="X-LLM-D-inference-fairness-id"),
        FromHeader(name="x-tenant"),
    )
    options = ClaimsOptions(fairness_id=sources, trust_fairness_id=False)
    assert _claims((_ID, b"anyone"), options=options).fairness_id == ""
    pairs = [(_ID, b"anyone"), (b"x-tenant", b"acme")]
    assert _claims(*pairs, options=options).fairness_id == "acme"


def test_what_is_removed_besides_the_control_headers() -> None:
    assert ClaimsReader(ClaimsOptions()).removed_headers == ()
    sources = (
        FromHeader(name="X-Tenant", remove=True),
        FromHeader(name="x-org"),
        FromJwt(remove=True),
        FromJwt(claim="org", remove=True),
        FromModel(),
        DefaultHeaders(),
    )
    for is_trusted in (True, False):
        options = ClaimsOptions(fairness_id=sources, trust_fairness_id=is_trusted)
        assert ClaimsReader(options).removed_headers == (b"x-tenant", b"authorization")


def test_whatever_a_client_can_claim_with_is_removed() -> None:
    assert {name for name, _ in _ALL} <= set(CONTROL_HEADERS)


# What the body says besides


def test_the_claims_of_a_body() -> None:
    body = (
        b'{"model":"m","stream":true,"cache_salt":"s","messages":[{"role":"user","content":"%b"}]}'
    )
    found = _claims(body=body % (b"x" * 600))
    assert (found.cache_salt, found.is_streamed, found.conversation) == ("s", True, 0)
    assert len(found.prefix) == 8 * ((600 + 30) // 256)
    assert _claims(body=body % (b"x" * 599 + b"y")).prefix == found.prefix
    assert _claims(body=body % (b"y" + b"x" * 599)).prefix != found.prefix


def test_prompts_are_hashed_as_the_options_say() -> None:
    body = b'{"prompt":"%b"}' % (b"x" * 699)
    for tokens, most, blocks in ((64, 131_072, 2), (16, 131_072, 10), (16, 100, 6), (0, 100, 0)):
        options = ClaimsOptions(prefix_block_tokens=tokens, max_prefix_tokens=most)
        assert len(_claims(body=body, options=options).prefix) == 8 * blocks


def test_conversations_are_told_apart_only_where_that_is_switched_on() -> None:
    body = b'{"messages":[{"role":"user","content":"hi"}]}'
    reader = ClaimsReader(ClaimsOptions())
    assert not reader.reads_conversation
    assert reader.read(Headers([]), body, None, max_inspected_bytes=1000).conversation == 0
    reader.reads_conversation = True
    found = reader.read(Headers([]), body, None, max_inspected_bytes=1000)
    assert found.conversation
    packed = msgspec.msgpack.encode(msgspec.structs.replace(found, conversation=(1 << 64) - 1))
    assert msgspec.msgpack.decode(packed, type=RequestClaims).conversation == (1 << 64) - 1


def test_a_long_salt_is_replaced_by_its_hash() -> None:
    found = _claims(body=b'{"cache_salt":"%b"}' % (b"x" * 300))
    assert found.cache_salt.startswith("sha256-")


def test_where_nothing_is_generated_nothing_is_expected_and_nothing_hashed() -> None:
    body = b'{"model":"m","input":"%b","max_tokens":9}' % (b"x" * 600)
    found = _claims((b":path", b"/v1/embeddings"), body=body)
    assert (found.model, found.max_output_tokens, found.prefix) == ("m", 0, b"")
    found = _claims((b":path", b"/v1/completions"), body=body)
    assert (found.max_output_tokens, len(found.prefix)) == (9, 16)


def test_headers_that_are_wanted() -> None:
    options = ClaimsOptions(wanted_headers=("X-Session-Id", "cookie", "x-absent", "x-empty"))
    pairs = [
        (b"cookie", b"a=b; c=\xff" + b"x" * 2_000),
        (b"x-session-id", b"one"),
        (b"x-session-id", b"two"),
        (b"x-empty", b""),
        (b"x-other", b"other"),
    ]
    found = _claims(*pairs, options=options)
    assert found.headers == {
        "x-session-id": "one",
        "cookie": "a=b; c=\ufffd" + "x" * (1024 - 8),
        "x-empty": "",
    }
    assert _claims(*pairs).headers == {}
    packed = msgspec.msgpack.encode(found)
    assert msgspec.msgpack.decode(packed, type=RequestClaims) == found


def test_options_can_be_written_as_a_document() -> None:
    document = {
        "fairness_id": [
            {"type": "header", "name": "x-tenant", "remove": True},
            {"type": "jwt", "header": "x-payload", "claim": "org.id"},
            {"type": "model"},
            {"type": "default-headers"},
        ],
        "trust_slo": False,
    }
    assert msgspec.convert(document, ClaimsOptions) == ClaimsOptions(
        fairness_id=(
            FromHeader(name="x-tenant", remove=True),
            FromJwt(header="x-payload", claim="org.id"),
            FromModel(),
            DefaultHeaders(),
        ),
        trust_slo=False,
    )


def test_claims_survive_the_way_to_the_core() -> None:
    claims = _claims(*_ALL, body=b'{"model":"m","max_tokens":999999999,"n":999999999}')
    packed = msgspec.msgpack.encode(claims)
    assert msgspec.msgpack.decode(packed, type=RequestClaims) == claims


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"models.example", "models.example"),
        (b"Models.EXAMPLE.:8443", "models.example"),
        (b"user:word@models.example:80", "models.example"),
        (b"127.0.0.1:80", "127.0.0.1"),
        (b"[2001:DB8:0::1]:80", "2001:db8::1"),
        (b"[::1]", "::1"),
        (b"[::ffff:10.0.0.1]", "10.0.0.1"),
        (b"[v1.what]", "v1.what"),
        (b"::1", "::1"),
        (b"", ""),
        (b":80", ""),
        (b"a" * 262, "a" * 262),
        (b"a" * 263, ""),
        (b"\xff\xc3.example", "\xff\xe3.example"),
    ],
)
def test_the_host_that_the_client_asks(authority: bytes, host: str) -> None:
    assert _claims((b":authority", authority)).authority == host
    assert _claims((b"host", authority)).authority == ""


def test_what_the_gateway_says_is_a_claim() -> None:
    subset = frozenset({"10.0.0.1:80"})

    def read(options: ClaimsOptions, pool: str) -> RequestClaims:
        reader = ClaimsReader(options)
        return reader.read(Headers([]), b"", subset, max_inspected_bytes=1, pool=pool)

    assert (read(ClaimsOptions(), "a/b").pool, read(ClaimsOptions(), "a/b").subset) == (
        "a/b",
        subset,
    )
    assert len(read(ClaimsOptions(), "x" * 1000).pool) < 100
    assert read(ClaimsOptions(heeds_subset=False), "").subset is None
