"""Families of metrics as Prometheus reads them: its text format, version 0.0.4.

``prometheus_client`` writes the same, all at once and slowly: the page of 5,000 endpoints keeps the
loop from its traffic for a third of a second.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

__all__ = ["text_pieces"]

_LINES: Final = 500
_PLAIN_BELOW: Final = 1e6
"""Numbers below this are written in Python as they are in Go."""


def text_pieces(families: Iterable[Metric]) -> Iterator[bytes]:
    """Yield the page of counters, gauges and histograms, in pieces of about a millisecond's work
    each. Samples have no timestamps and no exemplars."""
    lines: list[str] = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"# HELP {name} {text}\n# TYPE {name} {family.type}\n")
        for sample in family.samples:
            lines.append(_line(sample))
            if len(lines) >= _LINES:
                yield "".join(lines).encode()
                lines.clear()
    yield "".join(lines).encode()


def _line(sample: Sample) -> str:
    value = float(sample.value)
    number = repr(value) if -_PLAIN_BELOW < value < _PLAIN_BELOW else _go(value)
    if not sample.labels:
        return f"{sample.name} {number}\n"
    labels = ",".join([f'{key}="{_escape(text)}"' for key, text in sorted(sample.labels.items())])
    return f"{sample.name}{{{labels}}} {number}\n"


def _go(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _escape(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return text
