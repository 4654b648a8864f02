"""The examples of docs/multi-cluster.md: what they say of clusters goes together."""

import argparse
import re
from pathlib import Path
from typing import Any

import yaml

from epp.config.cluster_arguments import cluster_options
from epp.serve import add_parser

_PAGE = (Path(__file__).parents[1] / "docs/multi-cluster.md").read_text()
_BLOCKS = re.findall(r"^```yaml\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)


def document(kind: str) -> Any:
    documents = [each for block in _BLOCKS for each in yaml.safe_load_all(block)]
    [found] = [each for each in documents if each.get("kind") == kind]
    return found


def test_the_deployment_names_contexts_of_the_kubeconfig() -> None:
    [container] = document("Deployment")["spec"]["template"]["spec"]["containers"]
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = cluster_options(parser.parse_args(container["args"]), {})
    assert options is not None
    assert options.act_as_exporting_controller
    kubeconfig = yaml.safe_load(document("Secret")["stringData"]["kubeconfig"])
    contexts = {each["name"]: each["context"] for each in kubeconfig["contexts"]}
    assert set(options.member_contexts) == set(contexts)
    for part in ("cluster", "user"):
        names = {each["name"] for each in kubeconfig[f"{part}s"]}
        assert {context[part] for context in contexts.values()} <= names


def test_the_kubeconfig_is_where_the_deployment_looks_for_it() -> None:
    spec = document("Deployment")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    [variable] = [each for each in container["env"] if each["name"] == "KUBECONFIG"]
    [mount] = container["volumeMounts"]
    [volume] = [each for each in spec["volumes"] if each["name"] == mount["name"]]
    secret = document("Secret")
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    [file] = secret["stringData"]
    assert variable["value"] == f"{mount['mountPath']}/{file}"
