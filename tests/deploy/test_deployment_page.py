"""What docs/deployment.md says holds: its examples work, and it has all there is."""

import os
import re
from pathlib import Path

import yaml

from .rendering import CONFIG, KUSTOMIZE, args_of, build, epp_container, identity, render

_PAGE = (CONFIG.parent / "docs/deployment.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _PAGE, re.DOTALL)


def test_every_component_and_overlay_is_named() -> None:
    named = set(re.findall(r"`([a-z-]+)`", _PAGE))
    components = {path.name for path in (KUSTOMIZE / "components").iterdir()}
    overlays = {path.name for path in (KUSTOMIZE / "overlays").iterdir()}
    assert components - {"leader-election"} | overlays <= named


def test_the_kustomization_can_be_built(tmp_path: Path) -> None:
    example, _ = blocks("yaml")
    here = os.path.relpath(CONFIG, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(example.replace("epp/config/", f"{here}/"))
    manifests = build(tmp_path)
    assert "--pool-name=my-pool" in args_of(manifests)
    assert epp_container(manifests)["image"] == "registry.example.com/inference/epp:0.1.0"
    assert ("NetworkPolicy", "epp") in map(identity, manifests)
    assert {each["metadata"]["namespace"] for each in manifests} == {"inference"}


def test_the_values_are_of_the_production_overlay() -> None:
    _, values = blocks("yaml")
    chart = {kind for kind, _ in map(identity, render(yaml.safe_load(values)))}
    assert chart == {kind for kind, _ in map(identity, build(KUSTOMIZE / "overlays/production"))}


def test_the_helm_command_sets_values_that_there_are() -> None:
    (command,) = [each for each in blocks("console") if "helm install" in each]
    values = yaml.safe_load((CONFIG / "chart/epp/values.yaml").read_text())
    paths = re.findall(r"--set '?([a-zA-Z.]+)=", command)
    assert "pools.names" in paths
    for path in paths:
        node = values
        for part in path.split("."):
            node = node[part]
