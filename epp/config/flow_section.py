"""``flowControl`` of a configuration → the options of the flow control."""

import math
from typing import Final

from epp.config.places import Place
from epp.config.plugins import Plugins
from epp.config.quantities import MAX_QUANTITY, Duration
from epp.config.schema import BandSection, CostSection, FlowSection
from epp.core.flow import (
    BandOptions,
    CostOptions,
    FlowLimits,
    FlowOptions,
    UsageLimitOptions,
)

__all__ = ["read_flow_section"]

_MIN_RETRY_AFTER_S: Final = 1
_MAX_RETRY_AFTER_S: Final = 3600
_STATIC: Final = "static-usage-limit-policy"


def read_flow_section(
    section: FlowSection, place: Place, plugins: Plugins, band: BandOptions
) -> FlowOptions:
    """Return what the section says, with ``band`` for what it leaves open in bands.

    What is wrong is reported; the value is of no use then.
    """
    bands = _Bands(plugins, band)
    default = bands.read(section.default_priority_band, place / "defaultPriorityBand")
    negative = section.default_negative_priority_band
    return FlowOptions(
        limits=_limits(section, place),
        band=default,
        negative_band=None
        if negative is None
        else bands.read(negative, place / "defaultNegativePriorityBand"),
        bands=_priority_bands(section, place / "priorityBands", bands),
        weights=section.fairness.weights,
        cost=_cost(section.cost),
        usage_limit=_usage_limit(section, place, plugins),
        eviction=section.enable_eviction,
        max_flows=section.fairness.max_flows,
        shared_flows=section.fairness.shared_flows,
    )


class _Bands:
    """Reads the options of bands, with what holds where they say nothing."""

    def __init__(self, plugins: Plugins, default: BandOptions) -> None:
        self._plugins = plugins
        self._default = default

    def read(self, section: BandSection, place: Place) -> BandOptions:
        default = self._default
        fairness, ordering = default.fairness, default.ordering
        if (name := section.fairness_policy_ref) is not None:
            where = place / "fairnessPolicyRef"
            fairness = self._plugins.get(name, "fairness policy", where) or fairness
        if (name := section.ordering_policy_ref) is not None:
            where = place / "orderingPolicyRef"
            ordering = self._plugins.get(name, "ordering policy", where) or ordering
        return BandOptions(
            # Of a band, 0 is the default, as with the llm-d router: none is without bounds.
            max_requests=int(section.max_requests or default.max_requests),
            max_bytes=int(section.max_bytes or default.max_bytes),
            fairness=fairness,
            ordering=ordering,
            min_share=section.min_share,
            max_wait_s=_limit_s(section.max_wait, default.max_wait_s),
            wait_limit_s=default.wait_limit_s
            if section.request_ttl is None
            else float(section.request_ttl) or math.inf,
        )


def _limits(section: FlowSection, place: Place) -> FlowLimits:
    default = FlowLimits()
    if not _MIN_RETRY_AFTER_S <= section.max_retry_after <= _MAX_RETRY_AFTER_S:
        text = f"{section.max_retry_after:g}s"
        (place / "maxRetryAfter").mismatch(text, "a duration from 1s to 1h")
    # The budget of an empty pool follows the other one where only that is given.
    wait_limit_s = _limit_s(section.default_request_ttl, default.wait_limit_s)
    return FlowLimits(
        max_requests=_bound(section.max_requests, default.max_requests),
        max_bytes=_bound(section.max_bytes, default.max_bytes),
        wait_limit_s=wait_limit_s,
        no_endpoint_wait_limit_s=_limit_s(
            section.no_endpoint_request_ttl,
            default.no_endpoint_wait_limit_s
            if section.default_request_ttl is None
            else wait_limit_s,
        ),
        reject_hopeless=section.reject_hopeless,
        max_retry_after_s=math.floor(section.max_retry_after),
    )


def _bound(quantity: int | None, default: int) -> int:
    return default if quantity is None else int(quantity) or MAX_QUANTITY


def _limit_s(duration: Duration | None, default: float | None) -> float | None:
    return default if duration is None else float(duration) or None


def _priority_bands(section: FlowSection, place: Place, bands: _Bands) -> dict[int, BandOptions]:
    found: dict[int, BandOptions] = {}
    for index, entry in enumerate(section.priority_bands):
        if entry.priority in found:
            where = place / index / "priority"
            where.report(f"found {entry.priority} again; expected each priority once")
        found[entry.priority] = bands.read(entry, place / index)
    shares = sum(options.min_share for options in found.values())
    if shares > 1 + 1e-9:
        place.report(f"found minShare of {shares:g} in all bands; expected at most 1")
    return found


def _cost(section: CostSection) -> CostOptions:
    return CostOptions(
        unit="slot-time" if section.unit == "slotTime" else "tokens",
        prompt_weight=section.prompt_weight,
        output_weight=section.output_weight,
        default_output_tokens=section.default_output_tokens,
        prefill_tokens_per_s=section.prefill_tokens_per_second,
        s_per_output_token=section.seconds_per_output_token,
    )


def _usage_limit(section: FlowSection, place: Place, plugins: Plugins) -> UsageLimitOptions:
    name = section.usage_limit_policy_plugin_ref or _STATIC
    where = place / "usageLimitPolicyPluginRef"
    found = plugins.get(name, "usage-limit policy", where)
    assert found is None or isinstance(found, UsageLimitOptions)
    return found or UsageLimitOptions()
