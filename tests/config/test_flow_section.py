import math

import pytest

from epp.config.picker_config import parse_picker_config
from epp.config.quantities import MAX_QUANTITY
from epp.core.flow import BandOptions, CostOptions, FlowLimits, FlowOptions

from .support import parse, problems, refused


def flow(section: str) -> FlowOptions:
    return parse(f"flowControl: {section}").flow


# ---- bounds and times ----


@pytest.mark.parametrize(
    ("section", "limits"),
    [
        ("{}", FlowLimits()),
        ("{maxRequests: 2k, maxBytes: 1Gi}", FlowLimits(max_requests=2000, max_bytes=1 << 30)),
        (
            '{maxRequests: "0", maxBytes: 0}',
            FlowLimits(max_requests=MAX_QUANTITY, max_bytes=MAX_QUANTITY),
        ),
        ("{rejectHopeless: false}", FlowLimits(reject_hopeless=False)),
        ("{maxRetryAfter: 90.5s}", FlowLimits(max_retry_after_s=90)),
        ("{maxRetryAfter: 1s}", FlowLimits(max_retry_after_s=1)),
    ],
)
def test_limits(section: str, limits: FlowLimits) -> None:
    assert flow(section).limits == limits


@pytest.mark.parametrize(
    ("section", "with_endpoints_s", "without_s"),
    [
        ("{}", 60, 60),
        ("{defaultRequestTTL: 1m30s}", 90, 90),
        ("{defaultRequestTTL: 0s}", None, None),
        ("{noEndpointRequestTTL: 5m}", 60, 300),
        ("{noEndpointRequestTTL: 0s}", 60, None),
        ("{defaultRequestTTL: 10s, noEndpointRequestTTL: 500ms}", 10, 0.5),
        ("{defaultRequestTTL: 0s, noEndpointRequestTTL: 5s}", None, 5),
    ],
)
def test_the_budget_of_an_empty_pool_follows_the_other(
    section: str, with_endpoints_s: float | None, without_s: float | None
) -> None:
    limits = flow(section).limits
    assert limits.wait_limit_s == with_endpoints_s
    assert limits.no_endpoint_wait_limit_s == without_s


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{maxRequests: -5}", 'maxRequests: found -5; expected a quantity of at least 0, such as'
         ' 100, "5k" or "1Gi"'),
        ("{maxBytes: 1GB}", 'maxBytes: found "1GB"; expected a quantity of at least 0, such as 100,'
         ' "5k" or "1Gi"'),
        ("{defaultRequestTTL: 60}", "defaultRequestTTL: found 60; expected a duration of at least"
         ' 0, such as "500ms", "30s" or "1h30m"'),
        ("{noEndpointRequestTTL: -1s}", 'noEndpointRequestTTL: found "-1s"; expected a duration of'
         ' at least 0, such as "500ms", "30s" or "1h30m"'),
        ("{enableEviction: yes}", 'enableEviction: found "yes"; expected true or false'),
        ("{maxRetryAfter: 900ms}", 'maxRetryAfter: found "0.9s"; expected a duration from 1s to'
         " 1h"),
        ("{maxRetryAfter: 2h}", 'maxRetryAfter: found "7200s"; expected a duration from 1s to'
         " 1h"),
        ("{maxRequest: 5}", 'maxRequest: unknown field; did you mean "maxRequests"?'),
        ("[]", None),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_their_place(section: str, problem: str | None) -> None:
    found = refused(f"flowControl:\n  {section}")
    if problem is None:
        assert found == "config.yaml:2: flowControl: found a list; expected a mapping"
    else:
        assert found == f"config.yaml:2: flowControl.{problem}"


def test_options_are_plain_numbers() -> None:
    found = flow(
        """
          maxRequests: 5
          maxBytes: 6
          defaultRequestTTL: 7s
          defaultPriorityBand: {maxRequests: 5, maxBytes: 6, maxWait: 7s, requestTTL: 8s}
        """.replace("\n", "\n  ")
    )
    for options in (found.limits, found.band):
        for name in options.__struct_fields__:
            assert type(getattr(options, name)) in (int, float, bool, str, type(None))


def test_eviction() -> None:
    assert not flow("{}").eviction
    assert flow("{enableEviction: true}").eviction


# ---- bands ----


def test_bands() -> None:
    found = flow(
        """
          defaultPriorityBand: {maxRequests: 7, requestTTL: 20s}
          defaultNegativePriorityBand: {maxBytes: 1Mi, orderingPolicyRef: edf-ordering-policy}
          priorityBands:
          - priority: 10
            fairnessPolicyRef: round-robin-fairness-policy
            orderingPolicyRef: slo-deadline-ordering-policy
            minShare: 0.25
            maxWait: 30s
            requestTTL: 0s
          - {priority: -3, maxRequests: 0, maxBytes: "0", maxWait: 0s}
        """.replace("\n", "\n  ")
    )
    assert found.band == BandOptions(max_requests=7, wait_limit_s=20)
    assert found.negative_band == BandOptions(max_bytes=1 << 20, ordering="edf")
    assert found.bands == {
        10: BandOptions(
            fairness="round-robin",
            ordering="slo-deadline",
            min_share=0.25,
            max_wait_s=30,
            wait_limit_s=math.inf,
        ),
        -3: BandOptions(),
    }


def test_bands_that_say_nothing_have_the_defaults_of_the_reference() -> None:
    band = flow("{priorityBands: [{priority: 1}]}").bands[1]
    assert (band.max_requests, band.max_bytes) == (5000, 1_000_000_000)
    assert (band.fairness, band.ordering) == ("weighted-fair", "fcfs")


def test_what_bands_leave_open_can_be_given() -> None:
    default = BandOptions(max_requests=3, max_bytes=4)
    text = b"""
flowControl:
  defaultNegativePriorityBand: {maxBytes: 0}
  priorityBands: [{priority: 1, maxRequests: 9}, {priority: 2, maxBytes: 9}]
"""
    found = parse_picker_config("c", text, band=default).flow
    assert found.band == found.negative_band == default
    assert found.bands[1] == BandOptions(max_requests=9, max_bytes=4)
    assert found.bands[2] == BandOptions(max_requests=3, max_bytes=9)


@pytest.mark.parametrize(
    ("band", "problem"),
    [
        ("{maxRequests: 5}", "priority: missing; expected a whole number from -2147483648 to"
         " 2147483647"),
        ("{priority: 1.5}", "priority: found 1.5; expected a whole number from -2147483648 to"
         " 2147483647"),
        ("{priority: 1, minShare: 1.1}", "minShare: found 1.1; expected a number from 0 to 1"),
        ("{priority: 1, maxrequests: 1}", "maxrequests: unknown field; did you mean"
         ' "maxRequests"?'),
        ("{priority: 0}", "priority: found 0 again; expected each priority once"),
    ],
)  # fmt: skip
def test_wrong_bands_are_refused_with_their_place(band: str, problem: str) -> None:
    text = f"flowControl:\n  priorityBands:\n  - priority: 0\n  - {band}\n"
    assert refused(text) == f"config.yaml:4: flowControl.priorityBands[1].{problem}"


def test_a_template_has_no_priority() -> None:
    found = refused("flowControl: {defaultPriorityBand: {priority: 1}}")
    assert "flowControl.defaultPriorityBand.priority: unknown field" in found


def test_shares_of_more_than_all_are_refused() -> None:
    text = (
        "flowControl: {priorityBands: [{priority: 1, minShare: %s}, {priority: 2, minShare: 0.7}]}"
    )
    assert refused(text % 0.4) == (
        "config.yaml:1: flowControl.priorityBands: found minShare of 1.1 in all bands; expected at"
        " most 1"
    )
    assert parse(text % 0.3).flow.bands[1].min_share == 0.3


# ---- ours ----


def test_fairness() -> None:
    found = flow("{fairness: {weights: {a: 3, 'b c': 0.5}, maxFlows: 10, sharedFlows: 2}}")
    assert found.weights == {"a": 3.0, "b c": 0.5}
    assert (found.max_flows, found.shared_flows) == (10, 2)


def test_cost() -> None:
    assert flow("{cost: {unit: tokens}}").cost == CostOptions()
    found = flow(
        """
          cost:
            unit: slotTime
            promptWeight: 0
            outputWeight: 4
            defaultOutputTokens: 512
            prefillTokensPerSecond: 5000
            secondsPerOutputToken: 0.05
        """.replace("\n", "\n  ")
    )
    assert found.cost == CostOptions(
        unit="slot-time",
        prompt_weight=0,
        output_weight=4,
        default_output_tokens=512,
        prefill_tokens_per_s=5000,
        s_per_output_token=0.05,
    )


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{fairness: {weights: {a: 0}}}", "fairness.weights.a: found 0; expected a number from"
         " 0.000001 to 1000000"),
        ("{fairness: {weights: {a b: x}}}", 'fairness.weights["a b"]: found "x"; expected a number'
         " from 0.000001 to 1000000"),
        ("{fairness: {maxFlows: 0}}", "fairness.maxFlows: found 0; expected a whole number from 1"
         " to 1000000"),
        ("{fairness: {sharedFlows: 1.5}}", "fairness.sharedFlows: found 1.5; expected a whole"
         " number from 1 to 1000000"),
        ("{cost: {unit: slot-time}}", 'cost.unit: found "slot-time"; expected "tokens" or'
         ' "slotTime"'),
        ("{cost: {promptWeight: -1}}", "cost.promptWeight: found -1; expected a number from 0 to"
         " 1000000"),
        ("{fairness: {weights: {a: 1e-300}}}", "fairness.weights.a: found 1e-300; expected a number"
         " from 0.000001 to 1000000"),
        ("{cost: {prefillTokensPerSecond: 1e-320}}", "cost.prefillTokensPerSecond: found 1e-320;"
         " expected a number from 1e-9 to 1e9"),
        ("{cost: {secondsPerOutputToken: 0}}", "cost.secondsPerOutputToken: found 0; expected a"
         " number from 1e-9 to 1e9"),
        ("{cost: {prefillTokensPerSecond: 1e999}}", "cost.prefillTokensPerSecond: found Infinity;"
         " expected a number from 1e-9 to 1e9"),
    ],
)  # fmt: skip
def test_wrong_values_of_ours_are_refused_with_their_place(section: str, problem: str) -> None:
    assert refused(f"flowControl: {section}") == f"config.yaml:1: flowControl.{problem}"


def test_problems_in_different_parts_are_told_together() -> None:
    found = problems("""
        featureGates: [none]
        flowControl:
          maxRetryAfter: 0s
          priorityBands: [{priority: 1}, {priority: 1, fairnessPolicyRef: x}]
        """)
    assert {line.split(": ")[1] for line in found} == {
        "featureGates[0]",
        "flowControl.maxRetryAfter",
        "flowControl.priorityBands[1].fairnessPolicyRef",
        "flowControl.priorityBands[1].priority",
    }
