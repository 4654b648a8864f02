"""Load reports in headers."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epp.core.parsing.orca import read_load_report
from epp.core.pool import EngineLoad

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "load"),
    [
        (  # vLLM
            b'JSON {"named_metrics": {"kv_cache_usage_perc": 0.4, "num_requests_waiting": 3.0}}',
            EngineLoad(3.0, NAN, 0.4),
        ),
        (
            b"TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=3.0",
            EngineLoad(3.0, NAN, 0.4),
        ),
        (  # Triton
            b"TEXT named_metrics.kv_cache_utilization=0.25,named_metrics.max_token_capacity=400",
            EngineLoad(NAN, NAN, 0.25, attributes={"max_token_capacity": 400.0}),
        ),
        (
            b'JSON {"cpu_utilization": 0.3, "mem_utilization": 0.8, "rps_fractional": 10, '
            b'"eps": 1, "named_metrics": {"queue": 2}, "utilization": {"disk": 0.5}, '
            b'"request_cost": {"tokens": 7}, "num_requests_running": 6}',
            EngineLoad(
                NAN,
                6.0,
                NAN,
                attributes={
                    "cpu_utilization": 0.3,
                    "mem_utilization": 0.8,
                    "rps_fractional": 10.0,
                    "eps": 1.0,
                    "queue": 2.0,
                    "utilization.disk": 0.5,
                },
            ),
        ),
        (
            b"TEXT application_utilization=1.5, eps:0, utilization.disk=.5, request_cost.tokens=7",
            EngineLoad(
                NAN,
                NAN,
                NAN,
                attributes={"application_utilization": 1.5, "eps": 0.0, "utilization.disk": 0.5},
            ),
        ),
        (b' {"num_requests_waiting":1}', EngineLoad(1.0, NAN, NAN)),
        (b"json  {}", None),
        (b"text num_requests_waiting=1e1", EngineLoad(10.0, NAN, NAN)),
        (b"num_requests_waiting=1", EngineLoad(1.0, NAN, NAN)),
    ],
)
def test_reports(value: bytes, load: EngineLoad | None) -> None:
    assert read_load_report(value) == load


@pytest.mark.parametrize(
    ("share", "read"),
    [(b"1", 1.0), (b"1.005", 1.0), (b"1.02", NAN), (b"40", NAN), (b"-0.1", NAN), (b"nan", NAN)],
)
def test_a_share_is_at_most_1(share: bytes, read: float) -> None:
    load = read_load_report(b"TEXT eps=1,named_metrics.kv_cache_usage_perc=" + share)
    assert load == EngineLoad(NAN, NAN, read, attributes={"eps": 1.0})


@pytest.mark.parametrize(
    "value",
    [b"", b"BIN CgQIARAB", b"JSON", b"JSON 1", b"JSON []", b'JSON {"eps":', b'JSON {"eps":"1"}',
     b'JSON {"eps":true,"named_metrics":1}', b'JSON {"eps":-1}', b'{"named_metrics":{"a":null}}',
     b"TEXT", b"TEXT eps", b"TEXT eps=", b"TEXT =1", b"TEXT eps=x", b"TEXT eps=1_0",
     b"TEXT eps=inf", b"TEXT a.b=1", b"JSON " + b"[" * 5000, b'JSON {"eps":' + b"9" * 400 + b"}",
     b"TEXT " + b" " * 8192 + b"eps=1", b"TEXT " + b",".join(b"a%d=1" % n for n in range(65))],
    ids=lambda value: repr(value[:24]),
)  # fmt: skip
def test_what_tells_nothing(value: bytes) -> None:
    assert read_load_report(value) is None


_LIKELY = st.text('JSONTEX{}[]":=,.0123456789einamd_ \\').map(str.encode)


@settings(max_examples=100)
@given(st.one_of(st.binary(max_size=80), _LIKELY))
@example(b'JSON {"\\ud800": 1}')
@example('JSON {"é": 1}'.encode("latin-1"))
@example(b"TEXT \xff=1")
def test_no_bytes_are_an_error(value: bytes) -> None:
    load = read_load_report(value)
    if load is not None:
        told = [load.waiting, load.running, load.kv_ratio, *load.attributes.values()]
        assert all(math.isnan(number) or 0 <= number < math.inf for number in told)
        assert math.isnan(load.kv_ratio) or load.kv_ratio <= 1
