"""config/gateways: what is told to gateways holds together, and fits what config/kustomize has."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from epp.core.headers import CONTROL_HEADERS
from epp.gateway.bootstrap import bootstrap, to_dict
from epp.gateway.envoy_binary import find_envoy
from epp.gateway.options import GatewayOptions
from epp.proxy.eds import write_eds
from epp.proxy.health import EXT_PROC_SERVICE

from .rendering import CONFIG, KUSTOMIZE, Manifest, args_of, build, epp_container, find, load
from .validation import refusals, schema_of

_GATEWAYS = CONFIG / "gateways"
_KUSTOMIZATIONS = sorted(path.parent for path in _GATEWAYS.rglob("kustomization.yaml"))
_EXAMPLES = [path for path in _KUSTOMIZATIONS if (path / "gateway.yaml").exists()]
_IDENTITIES = sorted(_GATEWAYS.rglob("identity.yaml"))
"""In no kustomization, since they need something of the user's."""

_CLASS = _GATEWAYS / "envoy-gateway/gateway-class.yaml"
"""In none, since it is in no namespace."""

_DEFINITIONS = build(CONFIG / "crd")
_BASE = build(KUSTOMIZE / "base")
_KNOWN_CLASSES = {"istio", "agentgateway", "kgateway", "gke-l7-regional-external-managed"}
"""Those that come with the gateway itself."""

_DOMAIN = ".inference.svc.cluster.local"
_CONTROL_HEADERS = sorted(name.decode() for name in CONTROL_HEADERS)


def name_of(path: Path) -> str:
    return str(path.relative_to(_GATEWAYS))


every_example = pytest.mark.parametrize("example", _EXAMPLES, ids=name_of)


def services() -> list[Manifest]:
    """All Services that config/kustomize can make."""
    components = load(*sorted((KUSTOMIZE / "components").glob("*/*-service.yaml")))
    return [each for each in [*_BASE, *components] if each["kind"] == "Service"]


def find_all(value: Any, key: str) -> Iterator[Any]:
    """What is under a key, however deep."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name == key:
            yield inner
        yield from find_all(inner, key)
    for inner in value if isinstance(value, list) else ():
        yield from find_all(inner, key)


def target_names(manifest: Manifest) -> list[tuple[str, str]]:
    """The kinds and names of what a policy is for."""
    spec = manifest.get("spec", {})
    targets = [*spec.get("targetRefs", ()), *([spec["targetRef"]] if "targetRef" in spec else ())]
    return [(each["kind"], each["name"]) for each in targets]


# ---- documents ----


def test_nothing_is_left_out() -> None:
    loaded = {path for path in _GATEWAYS.rglob("*.yaml") if path.name != "kustomization.yaml"}
    used = {*_IDENTITIES, _CLASS}
    for directory in _KUSTOMIZATIONS:
        kustomization = yaml.safe_load((directory / "kustomization.yaml").read_text())
        used.update((directory / each).resolve() for each in kustomization["resources"])
    assert loaded - used == set()
    assert {name_of(path) for path in _EXAMPLES} == {
        *("agentgateway", "gke", "istio", "kgateway"),
        *("envoy-gateway/extension-policy", "envoy-gateway/inference-pool"),
    }


@every_example
def test_documents_are_whole(example: Path) -> None:
    for each in build(example):
        assert each["apiVersion"]
        assert each["metadata"]["name"]
        assert each["metadata"]["namespace"] == "inference"
        if each["kind"] == "Service":
            kubernetes_validate.validate(each, "1.34", strict=True)
        if each["kind"] == "InferencePool":
            assert refusals(schema_of(_DEFINITIONS, each), each) == []


@pytest.mark.parametrize("path", _IDENTITIES, ids=name_of)
def test_what_is_beside_is_for_the_same_gateway(path: Path) -> None:
    for each in load(path):
        assert each["apiVersion"]
        assert each["metadata"]["name"]
        assert target_names(each) == [("Gateway", "inference-gateway")]


# ---- what they name ----


@every_example
def test_requests_reach_the_pool_and_its_endpoint_picker(example: Path) -> None:
    manifests = build(example)
    gateway, route = find(manifests, "Gateway"), find(manifests, "HTTPRoute")
    pool = find(manifests, "InferencePool")
    own_class = find(load(_CLASS), "GatewayClass")["metadata"]["name"]
    assert gateway["spec"]["gatewayClassName"] in {own_class, *_KNOWN_CLASSES}
    assert [each["name"] for each in route["spec"]["parentRefs"]] == [gateway["metadata"]["name"]]
    (rule,) = route["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    if backend.get("kind") == "InferencePool":
        assert backend["name"] == pool["metadata"]["name"]
        assert backend["group"] == pool["apiVersion"].partition("/")[0]
    else:
        service = find(manifests, "Service", backend["name"])["spec"]
        assert service["selector"] == pool["spec"]["selector"]["matchLabels"]
        ports = [(each["port"], each["targetPort"]) for each in service["ports"]]
        assert ports == [(each["number"], each["number"]) for each in pool["spec"]["targetPorts"]]
        assert backend["port"] == ports[0][0]
    # Nothing but the endpoint picker bounds how long a request waits; GKE has it in a policy.
    expected = None if example.name == "gke" else {"request": "0s"}
    assert rule.get("timeouts") == expected


def test_the_pool_is_the_one_that_is_served() -> None:
    pool = find(build(_GATEWAYS / "pool"), "InferencePool")
    assert f"--pool-name={pool['metadata']['name']}" in args_of(_BASE)
    reference = pool["spec"]["endpointPickerRef"]
    service = find(_BASE, "Service", reference["name"])
    (port,) = [
        each for each in service["spec"]["ports"] if each["port"] == reference["port"]["number"]
    ]
    ports = {each["name"]: each["containerPort"] for each in epp_container(_BASE)["ports"]}
    assert ports[port["targetPort"]] == 9002


@every_example
def test_policies_are_for_something_that_is_there(example: Path) -> None:
    manifests = build(example)
    there = {(each["kind"], each["metadata"]["name"]) for each in [*manifests, *_BASE]}
    for each in manifests:
        assert set(target_names(each)) <= there
        for reference in find_all(each.get("spec", {}), "backendRefs"):
            assert {(ref.get("kind", "Service"), ref["name"]) for ref in reference} <= there


@every_example
def test_host_names_are_those_of_services(example: Path) -> None:
    manifests = build(example)
    hosts = [find(manifests, "DestinationRule")["spec"]["host"]] if example.name == "istio" else []
    ports = {each["metadata"]["name"]: each["spec"]["ports"] for each in services()}
    for each in hosts:
        assert each.removesuffix(_DOMAIN) in ports
    for each in find_all(manifests, "fqdn"):
        found = ports[each["hostname"].removesuffix(_DOMAIN)]
        assert each["port"] in [port["port"] for port in found]


def test_health_checks_ask_what_the_endpoint_picker_answers() -> None:
    ports = {each["name"]: each["containerPort"] for each in epp_container(_BASE)["ports"]}
    gke = find(build(_GATEWAYS / "gke"), "HealthCheckPolicy", "epp")["spec"]["default"]
    check = gke["config"]["grpcHealthCheck"]
    assert (check["port"], check["grpcServiceName"]) == (ports["grpc-health"], EXT_PROC_SERVICE)
    assert gke["timeoutSec"] <= gke["checkIntervalSec"]
    policy = find(build(_GATEWAYS / "envoy-gateway/extension-policy"), "EnvoyExtensionPolicy")
    (ext_proc,) = policy["spec"]["extProc"]
    assert ext_proc["backendSettings"]["healthCheck"]["active"]["grpc"] == {
        "service": EXT_PROC_SERVICE
    }
    # The two do not go together.
    assert ext_proc["processingMode"]["request"]["body"] == "FullDuplexStreamed"
    assert ext_proc["failOpen"] is False


# ---- control headers ----


@pytest.mark.parametrize(
    "path",
    [*sorted(_GATEWAYS.rglob("control-headers.yaml")), _GATEWAYS / "agentgateway/identity.yaml"],
    ids=name_of,
)
def test_no_control_header_of_a_client_gets_through(path: Path) -> None:
    (policy,) = load(path)
    removed = [each for found in find_all(policy, "remove") for each in _names(found)]
    replaced = [each["name"] for found in find_all(policy, "set") for each in found]
    assert sorted(removed + replaced) == _CONTROL_HEADERS


def _names(found: Any) -> list[str]:
    return [found] if isinstance(found, str) else list(found)


def test_envoy_takes_the_fragment_for_istio(tmp_path: Path) -> None:
    (patch,) = find(build(_GATEWAYS / "istio"), "EnvoyFilter")["spec"]["configPatches"]
    write_eds(tmp_path / "eds.json", [])
    config = to_dict(bootstrap(GatewayOptions(eds_path=str(tmp_path / "eds.json"))))
    (listener,) = config["static_resources"]["listeners"]
    (network_filter,) = listener["filter_chains"][0]["filters"]
    assert patch["match"]["listener"]["filterChain"]["filter"]["name"] == network_filter["name"]
    value = patch["patch"]["value"]["typed_config"]
    assert value["@type"] == network_filter["typed_config"]["@type"]
    network_filter["typed_config"] |= value
    path = tmp_path / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [str(find_envoy(None)), "--mode", "validate", "-c", str(path), "-l", "warning"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
