"""What holds in ``flowControl`` where a configuration says nothing."""

from collections.abc import Mapping

from epp.config.entries import DEFAULT, Entry, EntryReader, child_of, default_entry
from epp.config.picker_config import Reading
from epp.config.quantities import MAX_QUANTITY, Duration
from epp.config.schema import BandSection
from epp.core.flow import BandOptions
from epp.discovery.documents import Node

__all__ = ["flow_entry"]

_SOURCE: Mapping[str, str] = {"type": "defaultHeaders"}


def flow_entry(reading: Reading, reader: EntryReader) -> Entry:
    """Return the whole section."""
    section = reading.document.flow_control
    node = child_of(reading.root, "flowControl")
    bands = _Bands(reading, reader)
    fairness = reader.struct(
        section.fairness,
        child_of(node, "fairness"),
        fills={"idSources": default_entry([_SOURCE])},
    )
    own = {
        "defaultPriorityBand": bands.read("defaultPriorityBand", section.default_priority_band),
        "priorityBands": bands.of_their_own(),
        "fairness": Entry(fairness),
    }
    if section.default_negative_priority_band is not None:
        name = "defaultNegativePriorityBand"
        own[name] = bands.read(name, section.default_negative_priority_band)
    return Entry(reader.struct(section, node, own=own, fills=_fills(reading)))


def _fills(reading: Reading) -> dict[str, Entry]:
    limits, section = reading.config.flow.limits, reading.document.flow_control
    is_implied = section.default_request_ttl is not None
    return {
        "maxRequests": Entry(_quantity(limits.max_requests)),
        "maxBytes": Entry(_quantity(limits.max_bytes)),
        "defaultRequestTTL": _time(limits.wait_limit_s),
        "noEndpointRequestTTL": _time(
            limits.no_endpoint_wait_limit_s,
            "implied by flowControl.defaultRequestTTL" if is_implied else DEFAULT,
        ),
        "usageLimitPolicyPluginRef": Entry("static-usage-limit-policy"),
        "saturationDetector": _detector(reading),
    }


def _detector(reading: Reading) -> Entry:
    name, origin = "adaptive-detector", DEFAULT
    deprecated = reading.document.saturation_detector
    if deprecated is not None:
        name, origin = deprecated.plugin_ref, "implied by saturationDetector"
    elif "utilization-detector" in reading.plugins:
        name, origin = "utilization-detector", "implied by plugins"
    return Entry({"pluginRef": Entry(name, origin)}, origin)


class _Bands:
    def __init__(self, reading: Reading, reader: EntryReader) -> None:
        self._reading = reading
        self._reader = reader
        self._node = child_of(reading.root, "flowControl")

    def read(self, name: str, section: BandSection) -> Entry:
        """Return a band that stands under this name."""
        return self._entry(section, child_of(self._node, name))

    def of_their_own(self) -> Entry:
        """Return all bands that have an entry of their own."""
        node = child_of(self._node, "priorityBands")
        children = node.value if node is not None and isinstance(node.value, list) else []
        sections = self._reading.document.flow_control.priority_bands
        bands = zip(sections, children, strict=True)
        return Entry([self._entry(section, child) for section, child in bands])

    def _entry(self, section: BandSection, node: Node | None) -> Entry:
        default = BandOptions()
        fills = {
            "maxRequests": Entry(default.max_requests),
            "maxBytes": Entry(default.max_bytes),
            "fairnessPolicyRef": Entry(f"{default.fairness}-fairness-policy"),
            "orderingPolicyRef": Entry(f"{default.ordering}-ordering-policy"),
            "maxWait": _time(default.max_wait_s),
            "requestTTL": Entry(None, "that of flowControl.defaultRequestTTL"),
        }
        return Entry(self._reader.struct(section, node, fills=fills))


def _quantity(quantity: int) -> int:
    return 0 if quantity >= MAX_QUANTITY else quantity


def _time(time_s: float | None, origin: str = DEFAULT) -> Entry:
    return default_entry(Duration(time_s or 0.0), origin)
