"""How the configuration names metrics."""

import pytest

from epp.config.metric_spec import MetricSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("vllm:num_requests_waiting", MetricSpec("vllm:num_requests_waiting")),
        ("  a ", MetricSpec("a")),
        ("a{}", MetricSpec("a")),
        ("a { }", MetricSpec("a")),
        ("a{b=c}", MetricSpec("a", (("b", "c"),))),
        ('a{b="c"}', MetricSpec("a", (("b", "c"),))),
        (' a { b = c d , e = "f}, \\" g" } ', MetricSpec("a", (("b", "c d"), ("e", 'f}, " g')))),
        ('a{b="x\\ny\\\\"}', MetricSpec("a", (("b", "x\ny\\"),))),
        ("a{b=1-2.3/4}", MetricSpec("a", (("b", "1-2.3/4"),))),
    ],
)
def test_specs(text: str, spec: MetricSpec) -> None:
    assert MetricSpec.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it has no name"),
        ("{b=c}", "it has no name"),
        ("1a", "'1a' is not the name of a metric"),
        ("a b", "'a b' is not the name of a metric"),
        ("a}", "'a}' is not the name of a metric"),
        ("a{", "'' does not begin with label=value"),
        ("a{b", "'b' does not begin with label=value"),
        ("a{,}", "',}' does not begin with label=value"),
        ("a{b=c,}", "'}' does not begin with label=value"),
        ("a{=c}", "'' is not the name of a label"),
        ("a{1=c}", "'1' is not the name of a label"),
        ("a{b=}", "the label b has no value"),
        ('a{b=""}', "the label b has no value"),
        ('a{b="c', "the label b has no value"),
        ("a{b=c", "no } ends the label b"),
        ("a{b=c}d", "there is '}d' behind the label b"),
        ("a{b=c=d}", "there is '=d}' behind the label b"),
        ('a{b=c"d"}', "there is '\"d\"}' behind the label b"),
        ("a{b=c,b=d}", "the label b is there twice"),
    ],
)
def test_what_names_no_metric(text: str, what: str) -> None:
    with pytest.raises(ValueError, match="names no metric") as caught:
        MetricSpec.parse(text)
    expected = "expected name or name{label=value, ...}"
    assert str(caught.value) == f"{text!r} names no metric: {what}; {expected}"
