"""Claims: what a request says of itself, whatever a client may have put there."""

import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.claims import RequestClaims, read_claims
from epp.core.headers import Headers


def _claims(*pairs: tuple[bytes, bytes], body: bytes = b"") -> RequestClaims:
    return read_claims(Headers(list(pairs)), body, None, max_inspected_bytes=1000)


def test_a_silent_request_has_no_claims() -> None:
    assert _claims() == RequestClaims()


def test_every_claim() -> None:
    body = gzip.compress(b'{"model":"m"}')
    found = read_claims(
        Headers(
            [
                (b"x-request-id", b"id-1"),
                (b"x-llm-d-inference-objective", b"interactive"),
                (b"x-gateway-inference-fairness-id", b"tenant"),
                (b"x-gateway-request-ttl-ms", b"1500"),
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
def test_the_wait_limit_is_a_positive_number_or_none(
    value: bytes, wait_limit_s: float | None
) -> None:
    assert _claims((b"x-gateway-request-ttl-ms", value)).wait_limit_s == wait_limit_s


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"x-request-id",
                    b"x-llm-d-inference-objective",
                    b"x-gateway-inference-fairness-id",
                    b"x-gateway-request-ttl-ms",
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
        text.encode()
    assert found.wait_limit_s is None or 0 < found.wait_limit_s < math.inf
    assert found.body_bytes == len(body)


def test_a_name_of_64_kib_and_one_that_is_not_utf8() -> None:
    found = _claims(
        (b"x-llm-d-inference-objective", b"o" * 65_536),
        (b"x-llm-d-inference-fairness-id", b"\xffid"),
    )
    assert found.objective == "o" * 65_536
    assert found.fairness_id == "\ufffdid"
