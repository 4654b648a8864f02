import json
from pathlib import Path

import pytest
import yaml

from epp.core.resources import Endpoint, Objective, PoolSpec
from epp.discovery.manifests import ManifestFile, parse_manifests
from tests.discovery.support import (
    POOL,
    POOL_V1ALPHA2,
    documents,
    endpoints,
    objective,
    resources_of,
    with_line,
)

OBJECTIVE = objective("interactive", 10)
LIST = endpoints({"a": "10.0.0.1"})


def test_a_pool_v1() -> None:
    text = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata:
  name: llm
  namespace: serving
  labels: {team: a}
  annotations: {note: "1"}
  creationTimestamp: null
  resourceVersion: "12"
  uid: 9cf2
spec:
  appProtocol: http
  selector:
    matchLabels:
      app: llm
      llm-d.ai/role: decode
  targetPorts:
    - number: 8000
    - number: 8001
  endpointPickerRef:
    group: ""
    kind: Service
    name: epp
    port: {number: 9002}
    failureMode: FailOpen
status:
  parents: []
"""
    assert resources_of(text).pool == PoolSpec(
        name="llm",
        namespace="serving",
        group="inference.networking.k8s.io",
        selector={"app": "llm", "llm-d.ai/role": "decode"},
        target_ports=(8000, 8001),
        failure_mode="FailOpen",
    )


def test_a_pool_v1alpha2() -> None:
    text = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: llm, namespace: serving}
spec:
  targetPortNumber: 8000
  selector: {app: llm}
  extensionRef:
    group: ""
    kind: Service
    name: epp
    portNumber: 9002
    failureMode: FailOpen
"""
    assert resources_of(text).pool == PoolSpec(
        name="llm",
        namespace="serving",
        group="inference.networking.x-k8s.io",
        selector={"app": "llm"},
        target_ports=(8000,),
        failure_mode="FailOpen",
    )


@pytest.mark.parametrize("text", [POOL, POOL_V1ALPHA2])
def test_pools_fail_closed_and_live_in_default_where_nothing_is_said(text: str) -> None:
    pool = resources_of(text).pool
    assert pool.failure_mode == "FailClose"
    assert pool.namespace == "default"


@pytest.mark.parametrize("selector", ["selector: {}", "selector:\n    matchLabels: {}"])
def test_an_empty_selector_is_one(selector: str) -> None:
    text = with_line(POOL, "selector:\n    matchLabels:\n      app: llm", selector)
    assert resources_of(text).pool.selector == {}


@pytest.mark.parametrize("group", ["llm-d.ai", "inference.networking.x-k8s.io"])
def test_objectives(group: str) -> None:
    found = resources_of(
        POOL, objective("a", 2**31 - 1, group=group), objective("b", -(2**31), group=group)
    )
    assert found.objectives == {
        "a": Objective(name="a", priority=2**31 - 1),
        "b": Objective(name="b", priority=-(2**31)),
    }


@pytest.mark.parametrize("spec", ["", "  priority:\n"])
def test_an_objective_without_priority_has_0(spec: str) -> None:
    text = objective("a").replace("spec:\n", f"spec:\n{spec}")
    assert resources_of(POOL, text).objectives["a"].priority == 0


def test_an_objectives_pool_reference_has_defaults() -> None:
    text = objective("a", 1).replace("    group: inference.networking.k8s.io\n", "")
    assert "a" in resources_of(POOL, text).objectives


@pytest.mark.parametrize(
    "head",
    [
        "",
        "kind: EndpointList\n",
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointList\nmetadata: {name: servers}\n",
    ],
)
def test_endpoints(head: str) -> None:
    text = f"""\
{head}endpoints:
- name: v4
  address: 10.0.0.1
  port: 8000
  labels: {{app: llm, note: "any text: 1"}}
- name: v6
  namespace: default
  address: "[2001:DB8::1]"
  port: "8001"
  labels: {{app: llm}}
- name: Upper_case.1
  address: 2001:db8::2
  labels: {{app: llm}}
"""
    assert resources_of(POOL, text).endpoints == (
        Endpoint(
            name="default/Upper_case.1", address="2001:db8::2", port=8000, labels={"app": "llm"}
        ),
        Endpoint(
            name="default/v4",
            address="10.0.0.1",
            port=8000,
            labels={"app": "llm", "note": "any text: 1"},
        ),
        Endpoint(name="default/v6", address="2001:db8::1", port=8001, labels={"app": "llm"}),
    )


def test_json() -> None:
    pool = json.dumps(yaml.safe_load(POOL), indent="\t")
    servers = json.dumps({"endpoints": [{"name": "a", "address": "::1", "labels": {"app": "llm"}}]})
    assert [endpoint.destination for endpoint in resources_of(pool, servers).endpoints] == [
        "[::1]:8000"
    ]


def test_a_list_as_kubectl_prints_it() -> None:
    items = [yaml.safe_load(text) for text in (POOL, OBJECTIVE, objective("batch", -10))]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
    assert resources_of(text) == resources_of(POOL, OBJECTIVE, objective("batch", -10))


def test_other_kinds_are_ignored_and_named() -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: epp, namespace: serving}\n"
    slices = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nendpoints: [{addresses: [x]}]\n"
    imported = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: InferencePoolImport\n"
    anchors = "apiVersion: v1\nkind: ConfigMap\ndata: &a {b: !x 1, b: 2}\nmore: [*a, *a]\n"
    files = [ManifestFile("f.yaml", documents(service, slices, imported, anchors, POOL).encode())]
    found = parse_manifests(files)
    assert len(found.pools) == 1
    assert found.ignored == (
        "Service serving/epp (f.yaml:1)",
        "EndpointSlice (f.yaml:5)",
        "InferencePoolImport (f.yaml:9)",
        "ConfigMap (f.yaml:12)",
    )


def test_the_example_directory() -> None:
    directory = Path(__file__).parents[2] / "config" / "manifests"
    texts = [path.read_text() for path in sorted(directory.glob("*.yaml"))]
    found = resources_of(*texts)
    assert {name: item.priority for name, item in found.objectives.items()} == {
        "interactive": 10,
        "batch": -10,
    }
    assert [endpoint.destination for endpoint in found.endpoints] == [
        "127.0.0.1:8080",
        "127.0.0.1:30000",
        "127.0.0.1:8000",
    ]
