"""The text format, against that of prometheus_client."""

import asyncio
import math
from collections.abc import Iterator

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.observability.explain import PickAnswer
from epp.observability.families import counter, gauge
from epp.observability.http import ObservabilityServer
from epp.observability.text import text_pieces


class _Families(Collector):
    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


def _registry(*families: Metric) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Families(*families))
    return registry


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=5) | st.sampled_from(
    ['a"b', "a\\b", "a\nb", "é", ""]
)
_NUMBERS = st.floats() | st.integers(-(10**18), 10**18) | st.sampled_from([1e6, 999999.5, 1e-7])


@settings(max_examples=50)
@given(
    st.dictionaries(st.tuples(_TEXT, _TEXT), _NUMBERS, max_size=5),
    st.dictionaries(st.tuples(_TEXT), st.integers(0, 10**9), max_size=3),
    _TEXT,
)
def test_the_page_is_that_of_prometheus_client(
    gauges: dict[tuple[str, str], float], counts: dict[tuple[str], int], text: str
) -> None:
    histogram = HistogramMetricFamily("h", text, labels=["l"])
    histogram.add_metric([text], [("0.5", 1), ("+Inf", 3)], 7.25)
    registry = _registry(
        gauge("g", text, gauges, ("z", "a")),
        counter("c_total", text, counts, ("l",)),
        GaugeMetricFamily("plain", text, value=3),
        histogram,
    )
    Counter("direct_total", "x", ("l",), registry=registry).labels("v").inc()
    assert b"".join(text_pieces(registry.collect())) == generate_latest(registry)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -0.0, 123456789.125])
def test_numbers_are_those_of_go(value: float) -> None:
    registry = _registry(GaugeMetricFamily("plain", "x", value=value))
    assert b"".join(text_pieces(registry.collect())) == generate_latest(registry)


def test_large_pages_come_in_pieces() -> None:
    values = {(str(number),): float(number) for number in range(5_000)}
    registry = _registry(gauge("g", "x", values, ("l",)))
    pieces = list(text_pieces(registry.collect()))
    assert len(pieces) >= 10
    assert max(piece.count(b"\n") for piece in pieces) <= 501
    assert b"".join(pieces) == generate_latest(registry)


async def test_others_have_their_turn_between_pieces() -> None:
    turns: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            asyncio.get_running_loop().call_soon(turns.append, number)
            yield f"{number}\n".encode()
            assert turns == list(range(number + 1))

    server = ObservabilityServer(pieces, lambda: True, explain_nothing, max_body_bytes=10)
    await server.start("127.0.0.1", 0)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{server.port}/metrics") as response,
        ):
            assert (response.status, await response.text()) == (200, "0\n1\n2\n")
    finally:
        await server.stop()


def explain_nothing(*_: object) -> PickAnswer:
    raise AssertionError
