"""Which pools of which cluster, as the command line says."""

import argparse
from pathlib import Path

import pytest
from msgspec.structs import replace

from epp.config.cluster_arguments import (
    add_cluster_arguments,
    add_pool_arguments,
    cluster_options,
)
from epp.discovery.cluster import ClusterOptions, LeaderLabelOptions
from epp.errors import UsageError

NOWHERE = Path("/nowhere")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--manifests", action="append", default=argparse.SUPPRESS)
    add_pool_arguments(parser.add_argument_group())
    add_cluster_arguments(parser)
    return parser.parse_args(arguments)


def found(*arguments: str, file: Path = NOWHERE, **environment: str) -> ClusterOptions:
    options = cluster_options(parse(*arguments), environment, file)
    assert options is not None
    return options


def test_a_pool_of_a_cluster() -> None:
    options = found("--pool-name", "llm", POD_NAME="epp-1")
    assert options == ClusterOptions(
        pool_names=("llm",), identity="epp-1", lease_name="epp-default-llm.llm-d.ai"
    )


def test_everything_that_can_be_said_of_pools() -> None:
    options = found(
        *("--pool-name=b", "--pool-name=a", "--pool-name=b", "--pool-namespace=ns"),
        *("--pool-group=inference.networking.x-k8s.io", "--kubeconfig=/k", "--context=c"),
        *("--ha-enable-leader-election", "--ha-lease-duration=10s", "--ha-renew-interval=500ms"),
        POD_NAME="me",
    )
    assert options == ClusterOptions(
        pool_names=("b", "a"),
        pool_namespace="ns",
        pool_group="inference.networking.x-k8s.io",
        kubeconfig=Path("/k"),
        context="c",
        leader_election=True,
        lease_name="epp-ns-a-b.llm-d.ai",
        lease_duration_s=10.0,
        renew_interval_s=0.5,
        identity="me",
    )


def test_pods_without_a_pool() -> None:
    options = found(
        *("--endpoint-selector=app=llm", "--endpoint-target-ports=8000,8001"),
        *("--endpoint-target-ports", "8000,9000"),
        POD_NAME="my-epp-7c9d8bf5b4-x2x9k",
    )
    assert options.endpoint_selector == "app=llm"
    assert options.endpoint_target_ports == (8000, 8001, 9000)
    assert options.standalone_name == "my-epp"
    assert options.lease_name == "epp-default-my-epp.llm-d.ai"


def test_imported_pools_are_of_another_group() -> None:
    options = found(
        "--pool-name=llm", "--pool-kind=InferencePoolImport", "--member-clusters=east,west,east"
    )
    assert options.member_contexts == ("east", "west")
    assert options.pool_group == "inference.networking.x-k8s.io"
    assert options.lease_name == "epp-default-import-llm.llm-d.ai"
    assert not options.act_as_exporting_controller


def test_the_namespace_is_that_of_the_option_the_environment_or_the_pod(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.write_text("of-the-pod\n")
    given = ("--pool-name=llm", "--pool-namespace=given")
    assert found(*given, file=file, NAMESPACE="env").pool_namespace == "given"
    assert found("--pool-name=llm", file=file, NAMESPACE="env").pool_namespace == "env"
    assert found("--pool-name=llm", file=file).pool_namespace == "of-the-pod"
    assert found("--pool-name=llm").pool_namespace == "default"


def test_each_process_has_an_identity_of_its_own() -> None:
    first, second = found("--pool-name=llm").identity, found("--pool-name=llm").identity
    assert first
    assert first != second


def test_the_label_of_the_leader_is_for_the_pod_in_its_own_namespace(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    file.write_text("of-the-pod")
    given = (
        *("--pool-name=llm", "--pool-namespace=of-the-pool", "--ha-enable-leader-election"),
        "--ha-leader-label=inference-epp/leader=epp",
    )
    options = found(*given, file=file, POD_NAME="me")
    assert options.leader_label == LeaderLabelOptions(
        key="inference-epp/leader", value="epp", pod="me", namespace="of-the-pod"
    )
    with pytest.raises(UsageError, match="--ha-leader-label: found no POD_NAME in the environment"):
        found(*given)


def test_replicas_agree_on_the_lease() -> None:
    lease = found("--pool-selector=team=a").lease_name
    assert lease == found("--pool-selector=team=a").lease_name
    assert lease != found("--pool-selector=team=b").lease_name
    names = [f"--pool-name={letter * 63}" for letter in "abcdef"]
    lease = found(*names).lease_name
    assert lease == found(*reversed(names)).lease_name
    assert lease != found(*names[1:]).lease_name
    assert len(lease) <= 253


def test_files_need_no_cluster() -> None:
    for more in ((), ("--pool-name=a", "--pool-name=b"), ("--pool-selector=a=b",)):
        assert cluster_options(parse("--manifests=.", *more)) is None
    off = parse("--manifests=.", "--ha-enable-leader-election=false")
    assert cluster_options(off) is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "nothing says where pools come from; expected --manifests for files, or, for a"
         " cluster, one of --pool-name, --pool-selector, --endpoint-selector"),
        ("--pool-name=a --pool-selector=b=c", "found --pool-name and --pool-selector; expected"),
        ("--pool-name=a --endpoint-selector=b=c --endpoint-target-ports=1",
         "found --pool-name and --endpoint-selector; expected one"),
        ("--pool-selector==", "--pool-selector: found '='; expected a label selector"),
        ("--endpoint-selector=a=b, --endpoint-target-ports=1",
         "--endpoint-selector: found 'a=b,'; expected a label selector"),
        ("--manifests=. --pool-selector=a,,b", "--pool-selector: found 'a,,b'; expected a label"),
        ("--endpoint-selector=a=b", "--endpoint-selector needs --endpoint-target-ports"),
        ("--pool-name=a --endpoint-target-ports=1", "--endpoint-target-ports is for --endpoint"),
        ("--endpoint-selector=a --endpoint-target-ports=1,2,3,4,5,6,7,8,9", "found 9 ports;"),
        ("--pool-name=a --ha-lease-duration=9", "--ha-lease-duration is for --ha-enable-leader-el"),
        ("--pool-name=a --ha-renew-interval=9", "--ha-renew-interval is for --ha-enable-leader-el"),
        ("--pool-name=a --ha-enable-leader-election --ha-leader-label=a",
         "--ha-leader-label: found 'a'; expected a label such as inference-epp/leader=epp"),
        ("--manifests=. --ha-leader-label=a=b", "--ha-leader-label is for a cluster: found it"),
        ("--pool-name=a --ha-enable-leader-election --ha-renew-interval=5",
         "--ha-renew-interval: found 5 s; expected at most half of --ha-lease-duration, which"),
        ("--pool-name=a --pool-kind=InferencePoolImport", "needs --member-clusters beside it"),
        ("--pool-name=a --member-clusters=b", "--member-clusters is for --pool-kind Inference"),
        ("--pool-name=a --act-as-exporting-controller", "controller is for --pool-kind Inference"),
        ("--endpoint-selector=a --endpoint-target-ports=1 --pool-kind=InferencePoolImport",
         "is of no use with --endpoint-selector"),
        ("--manifests=. --endpoint-selector=a=b", "--endpoint-selector is for a cluster: found it"),
        ("--manifests=. --kubeconfig=a", "--kubeconfig is for a cluster: found it beside --manif"),
        ("--manifests=. --ha-enable-leader-election", "--ha-enable-leader-election is for a clus"),
        ("--manifests=. --pool-name=a --pool-selector=b", "found --pool-name and --pool-selector;"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_clear_error(arguments: str, complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        cluster_options(parse(*arguments.split()), {}, NOWHERE)
    assert complaint in str(raised.value)


def test_a_label_is_for_a_leader() -> None:
    with pytest.raises(UsageError, match="--ha-leader-label is for --ha-enable-leader-election"):
        found("--pool-name=a", "--ha-leader-label=a=b", POD_NAME="me")


@pytest.mark.parametrize("pod", ["epp-0", "epp", "epp-7c9d8bf5b4-aeiou", "-x-x2x9k"])
def test_a_pool_is_not_called_after_a_pod_that_no_deployment_has(pod: str) -> None:
    selected = ("--endpoint-selector=a=b", "--endpoint-target-ports=1")
    with pytest.raises(UsageError, match=f"POD_NAME: found '{pod}'; expected the name of a Depl"):
        found(*selected, POD_NAME=pod)
    assert found(*selected).standalone_name == "epp"


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--pool-name=", "'' is not a name of lower-case letters"),
        ("--pool-name=ns/llm", "'ns/llm' is not a name of lower-case letters"),
        ("--pool-namespace=NS", "'NS' is not a name of lower-case letters"),
        ("--endpoint-target-ports=0", "'0' is not a port"),
        ("--endpoint-target-ports=80,x", "'x' is not a port"),
        ("--endpoint-target-ports=80,", "'' is not a port"),
        ("--member-clusters=a,,b", "'a,,b' is not a list of names"),
        ("--ha-lease-duration=1.5", "'1.5' is not a whole number of seconds from 1 to 3600"),
        ("--ha-lease-duration=2h", "'2h' is not a whole number of seconds from 1 to 3600"),
        ("--ha-renew-interval=0", "'0' is not a time above 0"),
    ],
)
def test_wrong_values(argument: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(argument)
    assert complaint in capsys.readouterr().err


def test_a_cluster_is_told_apart_by_nothing_else() -> None:
    """What stands in the options is what was said; all else has its default."""
    options = found("--pool-name=llm", POD_NAME="me")
    default = ClusterOptions()
    said = replace(options, pool_names=(), identity="", lease_name="")
    assert said == default
