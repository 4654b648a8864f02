"""Load reports in the headers of responses: ORCA's ``endpoint-load-metrics``.

The formats are those of ORCA's native HTTP header: ``JSON {...}`` and ``TEXT name=value, ...``,
with or without the word in front; ``BIN``, which is protobuf, is not read. The names are those of
``xds.data.orca.v3.OrcaLoadReport``, and the named metrics of vLLM and Triton. vLLM tells of the
first of its data-parallel engines only, so a report says less than a metrics page.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from epp.core.pool import EngineLoad

__all__ = ["LOAD_REPORT_HEADER", "read_load_report"]

LOAD_REPORT_HEADER: Final = b"endpoint-load-metrics"

_MOST_BYTES: Final = 8192
_MOST_METRICS: Final = 64

_WAITING: Final = "num_requests_waiting"
_RUNNING: Final = "num_requests_running"
_KV_RATIO: Final = ("kv_cache_usage_perc", "kv_cache_utilization", "gpu_cache_usage_perc")
_NAMED: Final = "named_metrics"
_MAPS: Final = (_NAMED, "utilization")
_MOST_SHARE: Final = 1.01  # what is as little above 1 was rounded

_Report = Mapping[str, float]


def read_load_report(value: bytes) -> EngineLoad | None:
    """Return the load that the header's value tells, None where it tells nothing that is known.

    What is not told is NaN. ``attributes`` has all else that is a number from 0 up:
    ``application_utilization``, ``cpu_utilization``, ``mem_utilization``, ``rps_fractional``,
    ``eps``, the entries of ``named_metrics`` by their own names, those of ``utilization`` as
    ``utilization.name``. Nothing is read of more than 8,192 bytes, nor of more than 64 metrics.
    """
    if len(value) > _MOST_BYTES:
        return None
    word, _, rest = value.strip().partition(b" ")
    kind = word.upper()
    if kind == b"JSON":
        found = _from_json(rest)
    elif kind == b"TEXT":
        found = _from_text(rest)
    else:
        found = _from_json(value) if word.startswith(b"{") else _from_text(value)
    report: dict[str, float] = {}
    for name, number in found:
        if name and 0.0 <= number < math.inf:
            report[name] = number
        if len(report) > _MOST_METRICS:
            return None
    return _load(report) if report else None


def _load(report: dict[str, float]) -> EngineLoad:
    waiting = report.pop(_WAITING, math.nan)
    running = report.pop(_RUNNING, math.nan)
    shares = [report.pop(name) for name in _KV_RATIO if name in report]
    kv_ratio = min(shares[0], 1.0) if shares and shares[0] <= _MOST_SHARE else math.nan
    return EngineLoad(waiting=waiting, running=running, kv_ratio=kv_ratio, attributes=report)


def _from_json(text: bytes) -> Iterator[tuple[str, float]]:
    try:
        report = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    if not isinstance(report, dict):
        return
    for name, value in report.items():
        if name not in _MAPS:
            yield from _entry(name, value)
        elif isinstance(value, dict):
            for inner, number in value.items():
                yield from _entry(_attribute(name, inner), number)


def _entry(name: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            yield name, float(value)
        except OverflowError:
            return


def _from_text(text: bytes) -> Iterator[tuple[str, float]]:
    for pair in text.split(b","):
        name, equals, number = pair.partition(b"=")
        if not equals:
            name, equals, number = pair.partition(b":")
        group, dot, inner = name.strip().decode("latin-1").partition(".")
        try:
            value = float(number)
        except ValueError:
            continue
        if b"_" in number:
            continue  # Python reads 1_000 as a number
        if dot and group in _MAPS:
            yield _attribute(group, inner), value
        elif not dot:
            yield group, value


def _attribute(group: str, name: str) -> str:
    return name if group == _NAMED else f"{group}.{name}"
