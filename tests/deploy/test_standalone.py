"""Envoy beside the endpoint picker in one pod."""

import subprocess
import sys
from pathlib import Path

import pytest

from .chart_values import EXAMPLES
from .rendering import CHART, KUSTOMIZE, build, find, pod_spec, render
from .serving import serving


def test_envoys_configuration_is_what_the_command_prints() -> None:
    command = [sys.executable, "-m", "epp", "envoy-config"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for path in (KUSTOMIZE / "components/standalone/envoy.yaml", CHART / "files/envoy.yaml"):
        assert path.read_text() == printed


@pytest.mark.parametrize("standalone", ["kustomize", "chart"])
def test_envoy_finds_the_endpoint_picker_in_its_pod(standalone: str, tmp_path: Path) -> None:
    found = (
        build(KUSTOMIZE / "overlays/standalone")
        if standalone == "kustomize"
        else render(EXAMPLES["standalone"])
    )
    pod, served = pod_spec(found), serving(found, tmp_path)
    (epp,), (envoy,) = pod["initContainers"], pod["containers"]
    assert epp["restartPolicy"] == "Always"  # it goes on beside Envoy, and is there first
    assert served.security.self_signed is None
    (config_volume,) = [each for each in pod["volumes"] if each["name"] == "envoy"]
    config_map = find(found, "ConfigMap", config_volume["configMap"]["name"])
    bootstrap = config_map["data"]["envoy.yaml"]
    assert f"port_value: {served.args.grpc_port}" in bootstrap
    assert f"port_value: {envoy['ports'][0]['containerPort']}" in bootstrap
    assert str(served.args.eds_file) in bootstrap
    for container in (epp, envoy):
        (mount,) = [each for each in container["volumeMounts"] if each["name"] == "endpoints"]
        assert mount["mountPath"] == str(served.args.eds_file.parent)
        assert mount.get("readOnly", False) == (container is envoy)
