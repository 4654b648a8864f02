"""Headers: every value kept, the first one that says something counts."""

import pytest

from epp.core.headers import (
    CONTROL_HEADERS,
    DESTINATION,
    FAIRNESS_ID,
    OBJECTIVE,
    SLO_TTFT,
    Headers,
)


def test_several_values_of_one_name_are_all_kept() -> None:
    found = Headers([(b"a", b"1"), (b"b", b"2"), (b"a", b"\xff3")])
    assert found.get_all(b"a") == [b"1", b"\xff3"]
    assert found.get(b"a") == b"1"
    assert found.get(b"b") == b"2"


def test_what_is_not_there() -> None:
    found = Headers([])
    assert found.get(b"a") is None
    assert found.get_all(b"a") == []
    assert found.first_of((b"a", b"b")) == b""


@pytest.mark.parametrize("names", [OBJECTIVE, FAIRNESS_ID, SLO_TTFT])
def test_the_present_name_comes_before_its_alias(names: tuple[bytes, bytes]) -> None:
    name, alias = names
    assert Headers([(alias, b"old"), (name, b"new")]).first_of(names) == b"new"
    assert Headers([(alias, b"old"), (name, b"")]).first_of(names) == b"old"
    assert Headers([(alias, b"old")]).first_of(names) == b"old"


def test_control_headers_are_lower_case_and_include_all_that_steers() -> None:
    assert all(name == name.lower() for name in CONTROL_HEADERS)
    assert len(set(CONTROL_HEADERS)) == len(CONTROL_HEADERS)
    assert {
        DESTINATION,
        b"x-gateway-destination-endpoint-subset",
        b"x-gateway-destination-endpoint-served",
        b"x-gateway-request-ttl-ms",
        b"x-llm-d-inference-objective",
        b"x-gateway-inference-objective",
        b"x-llm-d-inference-fairness-id",
        b"x-gateway-inference-fairness-id",
        b"x-llm-d-slo-ttft-ms",
        b"x-slo-ttft-ms",
    } <= set(CONTROL_HEADERS)
