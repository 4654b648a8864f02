"""What config/kustomize and config/chart deploy: objects of Kubernetes that belong together, and an
endpoint picker that takes what it is given."""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from epp.proxy.health import EXT_PROC_SERVICE, Health

from .chart_values import EXAMPLES
from .rendering import (
    CONFIG,
    KUSTOMIZE,
    Manifest,
    build,
    epp_container,
    find,
    identity,
    pod_spec,
    render,
)
from .serving import Served, serving
from .validation import refusals, schema_of

_KUSTOMIZATIONS = sorted(path.parent for path in KUSTOMIZE.rglob("kustomization.yaml"))
# One of them is but a part of others.
_COMPONENTS = [
    path
    for path in _KUSTOMIZATIONS
    if path.parent.name == "components" and path.name != "leader-election"
]
_TOGETHER = (
    "high-availability+network-policy+standalone",
    "high-availability-ready-leader+standalone",
    "high-availability+metrics-auth+multi-cluster",
)
_FOREIGN = {
    "PodMonitor": "monitoring.coreos.com/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "ScaledObject": "keda.sh/v1alpha1",
}
_DEFINITIONS = build(CONFIG / "crd")
_OWN = 256 * 1024**2
"""What a process needs for itself, in bytes."""


def with_components(names: Sequence[str], scratch: Path) -> list[Manifest]:
    """The base with components, as a kustomization of a user's would have it."""
    root = Path(os.path.relpath(KUSTOMIZE, scratch))  # kubectl takes no absolute paths
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "inference",
        "resources": [str(root / "base")],
        "components": [str(root / "components" / name) for name in names],
    }
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(scratch)


_RENDERINGS = [
    *(("kustomize", path.name) for path in _KUSTOMIZATIONS if path.parent.name != "components"),
    *(("component", path.name) for path in _COMPONENTS),
    *(("component", names) for names in _TOGETHER),
    *(("chart", name) for name in EXAMPLES),
]


@pytest.fixture(scope="module", params=_RENDERINGS, ids=lambda each: "-".join(each))
def manifests(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Manifest]:
    how, name = request.param
    if how == "chart":
        return render(EXAMPLES[name])
    if how == "component":
        return with_components(name.split("+"), tmp_path_factory.mktemp(name))
    return build(KUSTOMIZE / ("base" if name == "base" else f"overlays/{name}"))


@pytest.fixture(scope="module")
def served(manifests: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serving(manifests, tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("late", ["high-availability", "plaintext", "multi-pool", "metrics-auth"])
def test_what_comes_after_standalone_is_refused(late: str, tmp_path: Path) -> None:
    # It would change Envoy's container in place of the endpoint picker's.
    with pytest.raises(AssertionError, match="containers/0"):
        with_components(["standalone", late], tmp_path)


# ---- every object by itself ----


def test_objects_are_valid(manifests: list[Manifest]) -> None:
    identities = [identity(each) for each in manifests]
    assert len(set(identities)) == len(identities)
    for each in manifests:
        if each["kind"] in _FOREIGN:
            assert each["apiVersion"] == _FOREIGN[each["kind"]]
        else:
            validate(json.dumps(each))


@functools.cache
def validate(text: str) -> None:
    """Raise what is wrong with an object; most of them are in many renderings."""
    found = json.loads(text)
    if found["kind"].startswith("Inference"):
        assert refusals(schema_of(_DEFINITIONS, found), found) == []
    else:
        kubernetes_validate.validate(found, "1.34", strict=True)


def test_containers_may_do_nothing_that_they_need_not(manifests: list[Manifest]) -> None:
    pod = pod_spec(manifests)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert resources["limits"].keys() == {"memory"}
    assert find(manifests, "ServiceAccount", "epp")["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is True


# ---- the endpoint picker ----


def test_probes_ask_what_is_served(manifests: list[Manifest], served: Served) -> None:
    container, args = epp_container(manifests), served.args
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {
        "grpc-ext-proc": args.grpc_port,
        "grpc-health": args.health_port,
        "http-metrics": args.metrics_port,
    }
    liveness, readiness = container["livenessProbe"], container["readinessProbe"]
    # A follower is alive, and so is one whose API server is away.
    assert liveness["grpc"] == {"port": args.health_port, "service": "liveness"}
    if "grpc" in readiness:
        assert readiness["grpc"] == {"port": args.health_port, "service": "readiness"}
    else:
        # Somebody else must tell who leads: a label, or gateways that ask each pod.
        assert served.cluster.leader_election
        by_label = served.cluster.leader_label is not None
        assert by_label != (("Service", "epp-replicas") in map(identity, manifests))
        assert ports[readiness["tcpSocket"]["port"]] == args.grpc_port


async def test_the_services_of_probes_are_known() -> None:
    health = Health()
    await health.start()
    # The last one is what the Deployment of the Go EPP asks for.
    for service in ("liveness", "readiness", EXT_PROC_SERVICE, "inference-extension"):
        assert health.status(service) is not None


def test_there_is_time_for_an_end_in_good_order(manifests: list[Manifest], served: Served) -> None:
    pod, args = pod_spec(manifests), served.args
    phases_s = args.handover_timeout + args.drain_timeout + args.shutdown_grace
    release_s = served.cluster.lease_duration_s if served.cluster.leader_election else 0
    envoy_s = sum(
        each["lifecycle"]["preStop"]["sleep"]["seconds"]
        for each in pod["containers"]
        if each["name"] == "envoy"
    )
    assert pod["terminationGracePeriodSeconds"] > phases_s + release_s + envoy_s


def test_what_may_wait_fits_into_memory(manifests: list[Manifest], served: Served) -> None:
    limit = epp_container(manifests)["resources"]["limits"]["memory"]
    assert limit == "1Gi"
    assert served.picker.flow.limits.max_bytes + _OWN <= 1024**3


def test_it_is_secured_as_it_says(manifests: list[Manifest], served: Served) -> None:
    is_secure = served.security.self_signed is not None or served.security.cert_path is not None
    for service in (each for each in manifests if each["kind"] == "Service"):
        for port in service["spec"]["ports"]:
            if port["port"] == served.args.grpc_port:
                assert port["appProtocol"] == ("http2" if is_secure else "kubernetes.io/h2c")
    if served.security.cert_path is not None:
        mounts = epp_container(manifests)["volumeMounts"]
        (mount,) = [each for each in mounts if Path(each["mountPath"]) == served.security.cert_path]
        assert mount["readOnly"]
    reviews = [each for each in manifests if identity(each)[1].endswith("epp-metrics-auth")]
    assert served.security.metrics_auth == bool(reviews)


def test_rollouts_end_and_interrupt_nothing(manifests: list[Manifest], served: Served) -> None:
    spec = find(manifests, "Deployment", "epp")["spec"]
    budgets = [each for each in manifests if each["kind"] == "PodDisruptionBudget"]
    is_ready_by_lead = "grpc" in epp_container(manifests)["readinessProbe"]
    if served.cluster.leader_election and is_ready_by_lead:
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": "100%", "maxUnavailable": "100%"}
        assert served.args.handover_timeout == 30
        assert budgets == []
    else:
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        (budget,) = budgets
        assert budget["spec"]["maxUnavailable"] == 1
    if served.cluster.leader_election:
        assert spec["replicas"] == 2
    constraints = spec["template"]["spec"].get("topologySpreadConstraints", [])
    assert len(constraints) == (2 if spec["replicas"] > 1 else 0)


# ---- what belongs together ----


def test_selectors_and_ports_match(manifests: list[Manifest], served: Served) -> None:
    spec, label = find(manifests, "Deployment", "epp")["spec"], served.cluster.leader_label
    labels, pod = spec["template"]["metadata"]["labels"], pod_spec(manifests)
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    ports = {port["name"] for each in containers for port in each["ports"]}
    own = [spec["selector"]["matchLabels"]]
    own += [
        each["labelSelector"]["matchLabels"] for each in pod.get("topologySpreadConstraints", ())
    ]
    for each in manifests:
        if each["kind"] == "Service":
            selected = dict(each["spec"]["selector"])
            if label is not None:  # which the leader puts on its pod itself
                assert selected.pop(label.key) == label.value
            own.append(selected)
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
        elif each["kind"] in ("PodDisruptionBudget", "PodMonitor"):
            own.append(each["spec"]["selector"]["matchLabels"])
        elif each["kind"] == "NetworkPolicy":
            own.append(each["spec"]["podSelector"]["matchLabels"])
        elif each["kind"] == "ServiceMonitor":
            service = find(manifests, "Service", "epp")
            assert (
                each["spec"]["selector"]["matchLabels"].items()
                <= service["metadata"]["labels"].items()
            )
    for selector in own:
        assert selector
        assert selector.items() <= labels.items()


def test_bindings_lead_to_roles_and_accounts(manifests: list[Manifest]) -> None:
    known = {identity(each) for each in manifests}
    for each in manifests:
        if not each["kind"].endswith("RoleBinding"):
            continue
        assert (each["roleRef"]["kind"], each["roleRef"]["name"]) in known
        for subject in each["subjects"]:
            assert ("ServiceAccount", subject["name"]) in known
            # The base has no namespace of its own; what reaches beyond must have one.
            if each["kind"] == "ClusterRoleBinding":
                assert subject["namespace"] == "inference"
    assert (pod_spec(manifests)["serviceAccountName"]) == "epp"


def test_who_leads_may_say_so(manifests: list[Manifest], served: Served) -> None:
    roles = {identity(each)[1]: each["rules"] for each in manifests if each["kind"] == "Role"}
    lease = {name for rule in roles.get("epp-leader-election", ()) for name in names_of(rule)}
    assert lease <= {served.cluster.lease_name}
    assert ("epp-leader-election" in roles) == served.cluster.leader_election
    (label,) = roles.get("epp-leader-label", [None])
    # Whom else the label is on it finds out by a list, which the Role of an import does not have.
    wanted = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]}
    assert label == (None if served.cluster.leader_label is None else wanted)


def names_of(rule: Manifest) -> list[str]:
    names: list[str] = rule.get("resourceNames", [])
    return names


def test_other_clusters_are_reached_by_a_secret(manifests: list[Manifest], served: Served) -> None:
    container = epp_container(manifests)
    files = [each["value"] for each in container["env"] if each["name"] == "KUBECONFIG"]
    rules = find(manifests, "Role", "epp")["rules"]
    read = {resource for rule in rules for resource in rule["resources"]}
    if served.cluster.pool_kind != "InferencePoolImport":
        assert (files, "inferencepoolimports" in read) == ([], False)
        return
    assert served.cluster.member_contexts == ("east", "west")
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    mount = mounts[str(Path(files[0]).parent)]
    (volume,) = [each for each in pod_spec(manifests)["volumes"] if each["name"] == mount["name"]]
    assert (volume["secret"], mount["readOnly"]) == ({"secretName": "epp-members"}, True)
    # Of pods and pools of its own cluster it knows by the kubeconfig as well, if that is a member.
    assert "inferencepoolimports" in read
    assert not {"pods", "inferencepools"} & read


def test_monitors_read_metrics_with_a_token_that_may(manifests: list[Manifest]) -> None:
    for each in manifests:
        if each["kind"] not in ("PodMonitor", "ServiceMonitor"):
            continue
        (endpoint,) = each["spec"].get("podMetricsEndpoints") or each["spec"]["endpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("http-metrics", "/metrics")
        if "authorization" in endpoint and ("ClusterRole", "epp-metrics-auth") in map(
            identity, manifests
        ):
            secret = find(manifests, "Secret", endpoint["authorization"]["credentials"]["name"])
            account = secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]
            role = find(manifests, "ClusterRole", "epp-metrics-reader")
            assert role["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
            binding = find(manifests, "ClusterRoleBinding", "epp-metrics-reader")
            assert [subject["name"] for subject in binding["subjects"]] == [account]


def test_network_policies_allow_what_is_needed(manifests: list[Manifest], served: Served) -> None:
    for each in manifests:
        if each["kind"] != "NetworkPolicy":
            continue
        args, pod = served.args, pod_spec(manifests)
        containers = [*pod.get("initContainers", ()), *pod["containers"]]
        listening = [port for container in containers for port in container["ports"]]
        by_name = {port["name"]: port["containerPort"] for port in listening}
        wanted = {port["containerPort"] for port in listening}
        assert wanted >= {args.grpc_port, args.health_port, args.metrics_port}
        rules = each["spec"]["ingress"]
        named = {port["port"] for rule in rules for port in rule["ports"]}
        # A name that no container has opens nothing.
        assert {by_name.get(port, port) for port in named} - {"http"} == wanted
        assert [rule for rule in rules if "from" not in rule] == [{"ports": [{"port": "http"}]}]
        egress = {
            (port["port"], port.get("protocol", "TCP"))
            for rule in each["spec"]["egress"]
            for port in rule["ports"]
        }
        assert egress == {(443, "TCP"), (6443, "TCP"), (53, "UDP"), (53, "TCP"), (8000, "TCP")}
