import pytest
from msgspec.structs import fields

from epp.config.plugin_types import OWN_TYPES as PLUGIN_TYPES
from epp.core.flow import UsageLimitOptions
from epp.core.flow.saturation import AdaptiveOptions, ConcurrencyOptions, UtilizationOptions

from .support import parse, problems, refused


def detector(type_: str, parameters: str) -> object:
    return parse(f"""
        plugins: [{{name: d, type: {type_}, parameters: {parameters}}}]
        flowControl: {{saturationDetector: {{pluginRef: d}}}}
        """).saturation


def usage_limit(type_: str, parameters: str) -> UsageLimitOptions:
    return parse(f"""
        plugins: [{{name: u, type: {type_}, parameters: {parameters}}}]
        flowControl: {{usageLimitPolicyPluginRef: u}}
        """).flow.usage_limit


# ---- what each type makes ----


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("{}", ConcurrencyOptions()),
        ("null", ConcurrencyOptions()),
        ("{maxConcurrency: 8}", ConcurrencyOptions(max_requests=8)),
        ("{maxConcurrency: 8, headroom: 0.4}", ConcurrencyOptions(max_requests=11)),
        (
            "{concurrencyMode: tokens, maxTokenConcurrency: 5000, headroom: 1}",
            ConcurrencyOptions(max_requests=None, max_tokens=10_000),
        ),
        (
            "{concurrencyMode: hybrid}",
            ConcurrencyOptions(max_requests=100, max_tokens=1_000_000),
        ),
        ("{inFlightLoadProducerName: x}", ConcurrencyOptions()),
        (
            "{label: gpu, maxConcurrencyByLabel: {h100: 200, l4: 20}, headroom: 0.5}",
            ConcurrencyOptions(
                max_requests=150, label="gpu", max_requests_by_label={"h100": 300, "l4": 30}
            ),
        ),
    ],
)
def test_concurrency_detector(parameters: str, options: ConcurrencyOptions) -> None:
    assert detector("concurrency-detector", parameters) == options


def test_utilization_detector() -> None:
    assert detector("utilization-detector", "{}") == UtilizationOptions()
    parameters = (
        "{queueDepthThreshold: 2, kvCacheUtilThreshold: 1, metricsStalenessThreshold: 200ms,"
        " headroom: 0.1, initialConcurrency: 3}"
    )
    assert detector("utilization-detector", parameters) == UtilizationOptions(
        max_waiting=2, max_kv_ratio=1, stale_after_s=0.2, headroom_ratio=0.1, unknown_requests=3
    )


def test_adaptive_detector() -> None:
    assert detector("adaptive-detector", "{}") == AdaptiveOptions()
    parameters = "{initialConcurrency: 3, maxConcurrency: 3, metricsStalenessThreshold: 9s}"
    assert detector("adaptive-detector", parameters) == AdaptiveOptions(
        first_requests=3, max_requests=3, stale_after_s=9
    )


def test_usage_limit_policies() -> None:
    assert usage_limit("static-usage-limit-policy", "{}") == UsageLimitOptions()
    assert usage_limit("static-usage-limit-policy", "{threshold: 0.9}") == UsageLimitOptions(
        ceiling=0.9
    )
    assert usage_limit("priority-holdback-policy", "{minCeiling: 0}") == UsageLimitOptions(
        policy="priority-holdback", ceiling=1.0, min_ceiling=0.0, domain="rank"
    )
    parameters = "{minCeiling: 0.2, maxCeiling: 0.8, domain: value, shape: linear}"
    assert usage_limit("priority-holdback-policy", parameters) == UsageLimitOptions(
        policy="priority-holdback", ceiling=0.8, min_ceiling=0.2, domain="value"
    )
    assert usage_limit("soft-reflective-ceiling-policy", "{}") == UsageLimitOptions(
        policy="soft-reflective-ceiling"
    )


def test_a_declared_static_policy_is_meant_where_no_other_is() -> None:
    config = parse("plugins: [{type: static-usage-limit-policy, parameters: {threshold: 0.5}}]")
    assert config.flow.usage_limit == UsageLimitOptions(ceiling=0.5)


@pytest.mark.parametrize("type_", ["weighted-fair", "round-robin", "global-strict"])
@pytest.mark.parametrize("is_declared", [False, True])
def test_fairness_policies(type_: str, is_declared: bool) -> None:
    plugins = f"{{type: {type_}-fairness-policy, parameters: {{}}}}" if is_declared else ""
    config = parse(f"""
        plugins: [{plugins}]
        flowControl: {{defaultPriorityBand: {{fairnessPolicyRef: {type_}-fairness-policy}}}}
        """)
    assert config.flow.band.fairness == type_


@pytest.mark.parametrize("type_", ["fcfs", "edf", "slo-deadline"])
def test_ordering_policies(type_: str) -> None:
    config = parse(f"""
        plugins: [{{name: o, type: {type_}-ordering-policy}}]
        flowControl: {{defaultPriorityBand: {{orderingPolicyRef: o}}}}
        """)
    assert config.flow.band.ordering == type_


def test_an_entry_goes_before_the_type_of_its_name() -> None:
    config = parse("""
        plugins: [{name: edf-ordering-policy, type: fcfs-ordering-policy}]
        flowControl: {defaultPriorityBand: {orderingPolicyRef: edf-ordering-policy}}
        """)
    assert config.flow.band.ordering == "fcfs"


# ---- what is refused ----


@pytest.mark.parametrize(
    ("type_", "parameters", "problem"),
    [
        ("concurrency-detector", "{maxConcurrency: 0}", "maxConcurrency: found 0; expected a whole"
         " number from 1 to 1000000000"),
        ("concurrency-detector", "{maxConcurrency: '5'}", 'maxConcurrency: found "5"; expected a'
         " whole number from 1 to 1000000000"),
        ("concurrency-detector", "{headroom: -0.1}", "headroom: found -0.1; expected a number from"
         " 0 to 1000"),
        ("concurrency-detector", "{concurrencyMode: both}", 'concurrencyMode: found "both";'
         ' expected "requests", "tokens" or "hybrid"'),
        ("concurrency-detector", "{maxConcurency: 5}", "maxConcurency: unknown field; did you mean"
         ' "maxConcurrency"?'),
        ("utilization-detector", "{queueDepthThreshold: 0}", "queueDepthThreshold: found 0;"
         " expected a whole number from 1 to 1000000000"),
        ("utilization-detector", "{kvCacheUtilThreshold: 1.1}", "kvCacheUtilThreshold: found 1.1;"
         " expected a number above 0, up to 1"),
        ("utilization-detector", "{metricsStalenessThreshold: 5}", "metricsStalenessThreshold:"
         ' found 5; expected a duration above 0, such as "500ms" or "5s"'),
        ("static-usage-limit-policy", "{threshold: 0}", "threshold: found 0; expected a number"
         " above 0, up to 1"),
        ("priority-holdback-policy", "{minCeiling: 1}", "minCeiling: found 1; expected a number of"
         " at least 0, below 1"),
        ("priority-holdback-policy", "{minCeiling: 0, domain: ranks}", 'domain: found "ranks";'
         ' expected "rank" or "value"'),
        ("priority-holdback-policy", "{minCeiling: 0, shape: step}", 'shape: found "step"; expected'
         ' "linear"'),
        ("edf-ordering-policy", "{a: 1}", "a: unknown field; known: none"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_with_their_place(
    type_: str, parameters: str, problem: str
) -> None:
    text = f"plugins:\n- type: fcfs-ordering-policy\n- type: {type_}\n  parameters: {parameters}\n"
    assert refused(text) == f"config.yaml:4: plugins[1].parameters.{problem}"


@pytest.mark.parametrize(
    ("type_", "parameters", "problem"),
    [
        ("priority-holdback-policy", "{minCeiling: 0.5, maxCeiling: 0.5}", "found minCeiling 0.5"
         " and maxCeiling 0.5; expected the latter above"),
        ("utilization-detector", "{metricsStalenessThreshold: 0s}", "found a"
         " metricsStalenessThreshold of 0; expected a duration above 0"),
        ("adaptive-detector", "{initialConcurrency: 3, maxConcurrency: 2}", "found"
         " initialConcurrency 3 and maxConcurrency 2; expected the former not above the latter"),
        ("concurrency-detector", "{label: gpu}", "found one of label and maxConcurrencyByLabel;"
         " expected both or none"),
        ("concurrency-detector", "{concurrencyMode: tokens, label: a,"
         " maxConcurrencyByLabel: {b: 1}}", "found maxConcurrencyByLabel with concurrencyMode"
         ' "tokens"; expected one'),
    ],
)  # fmt: skip
def test_parameters_that_do_not_go_together_are_refused(
    type_: str, parameters: str, problem: str
) -> None:
    text = f"plugins:\n- {{type: {type_}, parameters: {parameters}}}\n"
    assert refused(text) == f"config.yaml:2: plugins[0].parameters: {problem}"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{type: utilisation-detector}", 'type: found "utilisation-detector"; did you mean'
         ' "utilization-detector"?'),
        ("{type: frobnicator}", 'type: found "frobnicator"; `epp explain --plugins` lists what'
         " there is"),
        ("{type: queue-score}", 'type: found "queue-score"; did you mean "queue-scorer"?'),
        ("{type: dcgm-extractor}", 'type: this version has no "dcgm-extractor"'),
        ("{type: dcgm-extractor, name: q}", 'type: plugin "q": this version has no'
         ' "dcgm-extractor"'),
        ("{type: program-aware-fairness}", 'type: this version has no "program-aware-fairness";'
         " weighted-fair-fairness-policy does its work"),
        ("{type: sheddable-eviction-filter}", 'type: this version has no'
         ' "sheddable-eviction-filter"; enableEviction needs none'),
        ("{name: q}", "type: missing; expected text"),
        ("{type: ''}", 'type: found ""; expected text'),
    ],
)  # fmt: skip
def test_unknown_types_are_refused(entry: str, problem: str) -> None:
    assert refused(f"plugins:\n- {entry}") == f"config.yaml:2: plugins[0].{problem}"


def test_a_priority_holdback_policy_must_say_its_least_ceiling() -> None:
    assert refused("plugins: [{type: priority-holdback-policy}]") == (
        "config.yaml:1: plugins[0].parameters.minCeiling: missing; expected a number of at least 0,"
        " below 1"
    )
    assert refused("flowControl: {usageLimitPolicyPluginRef: priority-holdback-policy}") == (
        "config.yaml:1: flowControl.usageLimitPolicyPluginRef: found"
        ' "priority-holdback-policy"; expected it in plugins, since its minCeiling must be given'
    )


@pytest.mark.parametrize(
    ("second", "path"),
    [
        ("{name: a, type: edf-ordering-policy}", "name"),
        ("{type: a}", "type"),
    ],
)
def test_a_name_that_stands_there_again_is_refused(second: str, path: str) -> None:
    text = f"plugins:\n- {{name: a, type: fcfs-ordering-policy}}\n- {second}\n"
    assert refused(text) == (
        f'config.yaml:3: plugins[1].{path}: found "a"; expected each name once; the name is the'
        " type where none is given"
    )


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("fcfs-ordering-policy", "an ordering policy; expected a fairness policy"),
        ("declared", "an ordering policy; expected a fairness policy"),
        ("adaptive-detector", "a saturation detector; expected a fairness policy"),
        ("priority-holdback-policy", "a usage-limit policy; expected a fairness policy"),
    ],
)
def test_a_reference_to_another_kind_is_refused(reference: str, problem: str) -> None:
    text = f"""\
        plugins: [{{name: declared, type: edf-ordering-policy}}]
        flowControl:
          priorityBands:
          - priority: 0
            fairnessPolicyRef: {reference}
        """
    assert refused(text) == (
        f'config.yaml:5: flowControl.priorityBands[0].fairnessPolicyRef: found "{reference}",'
        f" {problem}"
    )


def test_a_misspelt_reference_is_told_the_nearest_of_its_kind() -> None:
    text = """
        plugins: [{name: my-edf, type: edf-ordering-policy}, {name: my-limit, type: %s}]
        flowControl: {defaultPriorityBand: {orderingPolicyRef: %s}}
        """
    [problem] = problems(text % ("static-usage-limit-policy", "my-edv"))
    assert problem.endswith('found "my-edv"; did you mean "my-edf"?')
    [problem] = problems(text % ("static-usage-limit-policy", "zzz"))
    assert problem.endswith(
        'found "zzz"; known: my-edf, fcfs-ordering-policy, edf-ordering-policy,'
        " slo-deadline-ordering-policy"
    )


def test_a_plugin_that_is_wrong_is_told_once_and_not_where_it_is_referred_to() -> None:
    text = """
        plugins: [{name: u, type: static-usage-limit-policy, parameters: {threshold: 2}}]
        flowControl: {usageLimitPolicyPluginRef: u}
        """
    assert "plugins[0].parameters.threshold" in refused(text)


def test_every_parameter_is_spelt_in_camel_case() -> None:
    for found in PLUGIN_TYPES.values():
        for field in fields(found.parameters):
            assert "_" not in field.encode_name
