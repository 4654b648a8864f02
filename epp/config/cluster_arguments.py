"""The options of the command line that say which pools are served, and of which cluster.

With ``--manifests`` they come from files; without it from the API server of a cluster.
"""

import argparse
import os
import re
import secrets
import socket
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, get_args

from msgspec.structs import replace

from epp.config.arguments import add_switch, key_of, name_list, seconds, whole_number
from epp.discovery.cluster import LONGEST_LEASE_S, ClusterOptions, LeaderLabelOptions, PoolKind
from epp.discovery.label_selector import parse_label, parse_label_selector
from epp.errors import UsageError

__all__ = ["add_cluster_arguments", "add_pool_arguments", "cluster_options"]

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where Kubernetes tells a pod its namespace."""

_DEFAULTS: Final = ClusterOptions()
_IMPORT_GROUP: Final = "inference.networking.x-k8s.io"
_MAX_PORTS: Final = 8
_MAX_NAME: Final = 253
_NAME: Final = re.compile("[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
# What a Deployment calls its pods: its own name, the hash of its ReplicaSet, and five characters of
# each pod's own, both of them of the letters and digits that Kubernetes takes for the purpose.
_POD_NAME: Final = re.compile(
    "(.+)-[bcdfghjklmnpqrstvwxz2456789]{1,10}-[bcdfghjklmnpqrstvwxz2456789]{5}"
)
_CHOICES: Final = ("--pool-name", "--pool-selector", "--endpoint-selector")
# Of no use where resources come from files.
_CLUSTER_ONLY: Final = (
    "--endpoint-selector",
    "--endpoint-target-ports",
    "--pool-group",
    "--pool-kind",
    "--kubeconfig",
    "--context",
    "--member-clusters",
    "--act-as-exporting-controller",
    "--ha-enable-leader-election",
    "--ha-lease-duration",
    "--ha-renew-interval",
    "--ha-leader-label",
)


def add_pool_arguments(group: "argparse._ArgumentGroup") -> None:
    """Add the options that choose pools, of a cluster and of files alike.

    None of them has a default: whether they were given matters.
    """

    def add(flag: str, **options: Any) -> None:
        group.add_argument(flag, default=argparse.SUPPRESS, **options)

    add("--pool-name", action="append", type=_name, metavar="NAME",
        help="a pool to serve; may be given more than once")  # fmt: skip
    add("--pool-selector", metavar="SELECTOR",
        help="serve the pools with these labels, such as team=a")  # fmt: skip
    add("--pool-namespace", type=_name, metavar="NAMESPACE",
        help="the namespace of the pools (default: of a cluster, $NAMESPACE, or else that of the"
        " pod, or else 'default'; of files, any)")  # fmt: skip


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that matter where resources come from a cluster. None has a default."""
    group = parser.add_argument_group(
        "cluster",
        "Without --manifests, pools, objectives and pods come from the API server of a cluster:"
        " those of --pool-name or --pool-selector, or the pods of --endpoint-selector alone.",
    )

    def add(flag: str, **options: Any) -> None:
        group.add_argument(flag, default=argparse.SUPPRESS, **options)

    add("--endpoint-selector", metavar="SELECTOR",
        help="serve the pods with these labels, such as app=llm, without an InferencePool"
        )  # fmt: skip
    add("--endpoint-target-ports", type=_ports, action="extend", metavar="PORT[,PORT…]",
        help=f"where these pods serve: up to {_MAX_PORTS} ports")  # fmt: skip
    add("--pool-group", metavar="GROUP",
        help="the API group of the pools, which also tells their version"
        f" (default: {_DEFAULTS.pool_group}; of imports, {_IMPORT_GROUP})")  # fmt: skip
    add("--pool-kind", choices=get_args(PoolKind),
        help="what --pool-name and --pool-selector choose from"
        f" (default: {_DEFAULTS.pool_kind})")  # fmt: skip
    add("--member-clusters", type=name_list, action="extend", metavar="CONTEXT[,CONTEXT…]",
        help="contexts of the kubeconfig: the clusters whose pods serve an InferencePoolImport"
        )  # fmt: skip
    add_switch(group, "--act-as-exporting-controller",
        help="keep the InferencePoolImports in the member clusters as pools are exported"
        " (default: false)")  # fmt: skip
    add("--kubeconfig", type=Path, metavar="FILE",
        help="how to reach the API server (default: as a pod does, or else as kubectl does)"
        )  # fmt: skip
    add("--context", metavar="NAME", help="the kubeconfig's context (default: its current one)")
    add_switch(group, "--ha-enable-leader-election",
        help="of several replicas only one is ready, the leader (default: false)")  # fmt: skip
    add("--ha-lease-duration", type=_lease_duration, metavar="SECONDS",
        help="a leader that has not renewed its lease for so long is replaced"
        f" (default: {_DEFAULTS.lease_duration_s:g})")  # fmt: skip
    add("--ha-renew-interval", type=_renew_interval, metavar="SECONDS",
        help="the leader renews its lease so often"
        f" (default: {_DEFAULTS.renew_interval_s:g})")  # fmt: skip
    add("--ha-leader-label", metavar="KEY=VALUE",
        help="the label that the leader's pod bears, and no other, for a Service to select; needs"
        " POD_NAME (default: none)")  # fmt: skip


def cluster_options(
    args: argparse.Namespace,
    environment: Mapping[str, str] = os.environ,
    namespace_file: Path = NAMESPACE_FILE,
) -> ClusterOptions | None:
    """Return which cluster resources come from, None where they come from files.

    Raises UsageError where the options do not go together.
    """
    given = vars(args)
    _check_choice(given)
    if "manifests" in given:
        return None
    namespace = given.get("pool_namespace") or _own_namespace(environment, namespace_file)
    kind: PoolKind = given.get("pool_kind", _DEFAULTS.pool_kind)
    names = tuple(dict.fromkeys(given.get("pool_name", ())))
    default_group = _DEFAULTS.pool_group if kind == _DEFAULTS.pool_kind else _IMPORT_GROUP
    options = ClusterOptions(
        pool_names=names,
        pool_selector=given.get("pool_selector", ""),
        pool_namespace=namespace,
        pool_group=given.get("pool_group", default_group),
        pool_kind=kind,
        endpoint_selector=given.get("endpoint_selector", ""),
        endpoint_target_ports=_target_ports(given),
        standalone_name=_standalone_name(given, environment),
        kubeconfig=given.get("kubeconfig"),
        context=given.get("context"),
        member_contexts=tuple(dict.fromkeys(given.get("member_clusters", ()))),
        act_as_exporting_controller=given.get("act_as_exporting_controller", False),
        leader_election=given.get("ha_enable_leader_election", False),
        lease_duration_s=given.get("ha_lease_duration", _DEFAULTS.lease_duration_s),
        renew_interval_s=given.get("ha_renew_interval", _DEFAULTS.renew_interval_s),
        identity=environment.get("POD_NAME") or f"{socket.gethostname()}-{secrets.token_hex(4)}",
        leader_label=_leader_label(given, environment, namespace_file),
    )
    _check_election(given, options)
    _check_imports(given, kind)
    return _with_lease_name(options)


def _check_choice(given: Mapping[str, Any]) -> None:
    """Find what contradicts itself, or says nothing, about which pools there are to be."""
    if "manifests" in given:
        for flag in _CLUSTER_ONLY:
            if given.get(key_of(flag)):
                raise UsageError(f"{flag} is for a cluster: found it beside --manifests")
    chosen = [flag for flag in _CHOICES if key_of(flag) in given]
    if not chosen and "manifests" not in given:
        raise UsageError(
            "nothing says where pools come from; expected --manifests for files, or, for a"
            " cluster, one of " + ", ".join(_CHOICES)
        )
    if len(chosen) > 1:
        raise UsageError(f"found {' and '.join(chosen)}; expected one of them")
    for flag in ("--pool-selector", "--endpoint-selector"):
        if key_of(flag) in given:
            parse_label_selector(given[key_of(flag)], flag)


def _target_ports(given: Mapping[str, Any]) -> tuple[int, ...]:
    ports = tuple(dict.fromkeys(given.get("endpoint_target_ports", ())))
    if "endpoint_selector" in given:
        if not ports:
            raise UsageError("--endpoint-selector needs --endpoint-target-ports beside it")
        if len(ports) > _MAX_PORTS:
            raise UsageError(
                f"--endpoint-target-ports: found {len(ports)} ports; expected up to {_MAX_PORTS}"
            )
    elif ports:
        raise UsageError("--endpoint-target-ports is for --endpoint-selector, which is not there")
    return ports


def _standalone_name(given: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    pod = environment.get("POD_NAME", "")
    if "endpoint_selector" not in given or not pod:
        return _DEFAULTS.standalone_name
    found = _POD_NAME.fullmatch(pod)
    if found is None:
        raise UsageError(
            f"POD_NAME: found {pod!r}; expected the name of a Deployment's pod, such as"
            " epp-7c9d8bf5b4-x2x9k: --endpoint-selector calls its pool after the Deployment"
        )
    return found[1]


def _own_namespace(environment: Mapping[str, str], file: Path) -> str:
    if namespace := environment.get("NAMESPACE"):
        return namespace
    try:
        return file.read_text().strip() or _DEFAULTS.pool_namespace
    except OSError:  # not in a cluster, or its service account is not mounted
        return _DEFAULTS.pool_namespace


def _leader_label(
    given: Mapping[str, Any], environment: Mapping[str, str], namespace_file: Path
) -> LeaderLabelOptions | None:
    if "ha_leader_label" not in given:
        return None
    key, value = parse_label(given["ha_leader_label"], "--ha-leader-label")
    pod = environment.get("POD_NAME")
    if not pod:
        raise UsageError(
            "--ha-leader-label: found no POD_NAME in the environment; expected the name of the pod"
            " that is to bear the label, from metadata.name"
        )
    namespace = _own_namespace(environment, namespace_file)
    return LeaderLabelOptions(key=key, value=value, pod=pod, namespace=namespace)


def _check_election(given: Mapping[str, Any], options: ClusterOptions) -> None:
    if not options.leader_election:
        for flag in ("--ha-lease-duration", "--ha-renew-interval", "--ha-leader-label"):
            if key_of(flag) in given:
                raise UsageError(f"{flag} is for --ha-enable-leader-election, which is not there")
    if 2 * options.renew_interval_s > options.lease_duration_s:
        raise UsageError(
            f"--ha-renew-interval: found {options.renew_interval_s:g} s; expected at most half of"
            f" --ha-lease-duration, which is {options.lease_duration_s:g} s"
        )


def _check_imports(given: Mapping[str, Any], kind: PoolKind) -> None:
    is_import = kind == "InferencePoolImport"
    if is_import and "endpoint_selector" in given:
        raise UsageError(f"--pool-kind {kind} is of no use with --endpoint-selector")
    if is_import and not given.get("member_clusters"):
        raise UsageError(f"--pool-kind {kind} needs --member-clusters beside it")
    for flag in ("--member-clusters", "--act-as-exporting-controller"):
        if not is_import and given.get(key_of(flag)):
            raise UsageError(f"{flag} is for --pool-kind InferencePoolImport")


def _with_lease_name(options: ClusterOptions) -> ClusterOptions:
    """Name the lease after what is served, the same in all replicas: one pool, or several."""
    if options.endpoint_selector:
        served = options.standalone_name
    elif options.pool_selector:
        served = f"pools-{_digest(options.pool_selector)}"
    else:
        served = "-".join(sorted(options.pool_names))
    if options.pool_kind != _DEFAULTS.pool_kind:
        served = f"import-{served}"  # the cluster may have a pool of this name as well
    name = f"epp-{options.pool_namespace}-{served}.llm-d.ai"
    if len(name) > _MAX_NAME:
        name = f"epp-{options.pool_namespace}-pools-{_digest(served)}.llm-d.ai"
    return replace(options, lease_name=name)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:10]


def _name(text: str) -> str:
    if len(text) <= _MAX_NAME and _NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text[:100]!r} is not a name of lower-case letters, digits, '-' and '.'"
    )


def _ports(text: str) -> list[int]:
    return [whole_number(part, 1, 65_535, "a port") for part in text.split(",")]


def _lease_duration(text: str) -> float:
    found_s = seconds(text)
    if not 1 <= found_s <= LONGEST_LEASE_S or found_s % 1:  # the API has whole seconds
        expected = f"a whole number of seconds from 1 to {LONGEST_LEASE_S:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return found_s


def _renew_interval(text: str) -> float:
    found_s = seconds(text)
    if not found_s:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0")
    return found_s
