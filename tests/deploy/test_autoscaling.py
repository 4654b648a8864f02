"""The examples of autoscaling ask for metrics that there are, of the examples' pool."""

import json
import re

import pytest

from epp.config import ServeOptions
from epp.service import Service

from .rendering import CONFIG, KUSTOMIZE, Manifest, build, find, load, render

_SELECTOR = re.compile(r"(llm_d_epp_\w+)\{([^}]*)\}")
_ADAPTER = load(KUSTOMIZE / "components/autoscaling-hpa/prometheus-adapter-values.yaml")
_SCALERS = {
    "keda": build(KUSTOMIZE / "components/autoscaling-keda"),
    "keda-chart": render({"autoscaling": {"kind": "KEDA"}}),
    "adapter": _ADAPTER,
}


@pytest.fixture
async def page() -> str:
    options = ServeOptions(
        manifests=(CONFIG / "manifests",),
        host="127.0.0.1",
        grpc_port=0,
        health_port=0,
        metrics_port=0,
        scrape=None,
    )
    async with Service(options) as service:
        return b"".join(service.metrics.pieces()).decode()


@pytest.mark.parametrize("name", _SCALERS)
def test_queries_are_of_series_that_there_are(name: str, page: str) -> None:
    text = json.dumps(_SCALERS[name]).replace("<<.LabelMatchers>>", 'inference_pool=\\"llm\\"')
    asked = {(series, labels.replace('\\"', '"')) for series, labels in _SELECTOR.findall(text)}
    assert {series for series, _ in asked} >= {
        "llm_d_epp_flow_control_queue_size",
        "llm_d_epp_inflight_requests",
    }
    for series, labels in asked:
        found = re.findall(rf"^{series}\{{(.*)\}} \S+$", page, re.MULTILINE)
        assert any(labels in each for each in found), (series, labels)
    # None by another name, with or without labels.
    assert set(re.findall(r"llm_d_epp_\w+", text)) == {series for series, _ in asked} | set(
        re.findall(r"__name__=\\*\"(\w+)", text)
    )


def test_the_autoscaler_asks_for_what_the_adapter_makes() -> None:
    (rule,) = _ADAPTER[0]["rules"]["external"]
    for manifests in (
        build(KUSTOMIZE / "components/autoscaling-hpa"),
        render({"autoscaling": {"kind": "HPA"}}),
    ):
        (metric,) = find(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"]
        assert metric["external"]["metric"] == {
            "name": rule["name"]["as"],
            "selector": {"matchLabels": {"inference_pool": "llm"}},
        }


def queries(manifests: list[Manifest]) -> list[str]:
    triggers = find(manifests, "ScaledObject")["spec"]["triggers"]
    return [" ".join(each["metadata"]["query"].split()) for each in triggers]


def test_the_chart_asks_as_the_component_does() -> None:
    assert queries(_SCALERS["keda-chart"])[0] == queries(_SCALERS["keda"])[0]
