"""Making families of metrics out of plain numbers."""

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["counter", "gauge"]

_T = TypeVar("_T", bound=tuple[str, ...])
_PREFIX = "llm_d_epp_"


def gauge(
    name: str, text: str, values: Mapping[_T, float], labels: tuple[str, ...] = ()
) -> GaugeMetricFamily:
    """Return the gauges with these values, by the values of their labels."""
    family = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(list(label_values), value)
    return family


def counter(
    name: str, text: str, values: Mapping[_T, float], labels: tuple[str, ...] = ()
) -> CounterMetricFamily:
    """Return the counters with these values, by the values of their labels."""
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(list(label_values), value)
    return family
