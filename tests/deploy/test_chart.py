"""The Helm chart: the same as the kustomization, and values that are no good are refused."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from .chart_values import EXAMPLES
from .rendering import CHART, KUSTOMIZE, Manifest, args_of, build, find, identity, render, run_tool

_CHARTS_OWN_LABELS = ("app.kubernetes.io/managed-by", "helm.sh/chart")


def comparable(manifests: Sequence[Manifest]) -> Mapping[tuple[str, str], Any]:
    """Objects by kind and name, without what must be different.

    helm says of each object that it has made it; the data of the configuration are the same but for
    their comments; kustomize writes its namespace into every object.
    """
    found = {}
    for each in manifests:
        found[identity(each)] = _normal(each)
    return found


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: yaml.safe_load(child) if key == "picker.yaml" else _normal(child)
            for key, child in value.items()
            if key not in (*_CHARTS_OWN_LABELS, "namespace")
        }
    return [_normal(item) for item in value] if isinstance(value, list) else value


def test_the_chart_makes_what_the_base_is() -> None:
    assert comparable(render()) == comparable(build(KUSTOMIZE / "base"))


def test_the_chart_makes_what_the_production_overlay_is() -> None:
    values = {
        "image": {"repository": "registry.example.com/inference/epp"},
        "leaderElection": {"enabled": True},
        "metrics": {"auth": True, "monitor": "PodMonitor"},
        "networkPolicy": {"enabled": True},
    }
    chart = comparable(render(values))
    overlay = dict(comparable(build(KUSTOMIZE / "overlays/production")))
    # A chart knows its namespace: it keeps the ClusterRoles of several installations apart by it,
    # and names the Lease.
    renamed = {
        (kind, name.removeprefix("inference-") if kind.startswith("ClusterRole") else name)
        for kind, name in chart
    }
    assert renamed == overlay.keys()
    lease = find(render(values), "Role", "epp-leader-election")
    assert [rule["verbs"] for rule in lease["rules"]] == [
        ["create"],
        ["get", "list", "update", "watch"],
    ]
    assert lease["rules"][1]["resourceNames"] == ["epp-inference-llm.llm-d.ai"]
    different = {key for key in chart.keys() & overlay.keys() if chart[key] != overlay[key]} - {
        ("Role", "epp-leader-election")
    }
    # The arguments of the election have their defaults in the chart's values.
    assert different == {("Deployment", "epp")}
    ours, theirs = (
        set(args_of(render(values))),
        set(args_of(build(KUSTOMIZE / "overlays/production"))),
    )
    assert ours - theirs == {"--ha-lease-duration=8", "--ha-renew-interval=2"}
    assert theirs - ours == set()


# ---- values ----


@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_finds_nothing_wrong(name: str) -> None:
    done = run_tool(
        "helm", "lint", "--strict", str(CHART), "-f", "-", text=json.dumps(EXAMPLES[name])
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"leaderElction": {"enabled": True}}, "leaderElction"),
        ({"replicas": "two"}, "replicas"),
        ({"pools": {"names": []}}, "expected names, a selector or an endpointSelector"),
        ({"pools": {"endpointSelector": "app=llm"}}, "expected the ports of the pods"),
        ({"pools": {"endpointSelector": "app=llm", "endpointTargetPorts": [0]}}, "minimum"),
        (
            {
                "pools": {
                    "imports": {"memberClusters": ["a"]},
                    "endpointSelector": "app=llm",
                    "endpointTargetPorts": [8000],
                }
            },
            "pools.imports: expected no pools.endpointSelector beside it",
        ),
        (
            {
                "pools": {
                    "imports": {"memberClusters": ["a"]},
                    "group": "inference.networking.x-k8s.io",
                }
            },
            "pools.imports: expected no pools.group beside it",
        ),
        ({"inferencePool": {"create": True}}, "expected labels of the model servers"),
        ({"objectives": {"interactive": 2**31}}, "maximum"),
        ({"autoscaling": {"kind": "VPA"}}, "autoscaling/kind"),
    ],
)
def test_values_that_are_no_good_are_refused(values: dict[str, Any], said: str) -> None:
    done = run_tool("helm", "template", "epp", str(CHART), "-f", "-", text=json.dumps(values))
    assert done.returncode != 0
    assert said in done.stderr


def test_every_value_is_in_the_schema() -> None:
    def walk(values: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False, path
        assert values.keys() == schema["properties"].keys() - {"global"}, path
        for name, value in values.items():
            if isinstance(value, dict):
                walk(value, schema["properties"][name], f"{path}.{name}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    walk(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")
