"""What docs/kubernetes.md and README.md say of clusters holds."""

import re
import shutil
from itertools import product
from pathlib import Path

from epp.discovery.kubernetes.api import connection
from epp.discovery.kubernetes.writing import acceptance, events, status
from epp.discovery.schema import MAX_ENDPOINTS, MAX_OBJECTIVES, MAX_REWRITES

from .rendering import CONFIG, KUSTOMIZE, build, find, load
from .validation import refusals, schema_of

_PROJECT = CONFIG.parent
_PAGE = (_PROJECT / "docs/kubernetes.md").read_text()
_README = (_PROJECT / "README.md").read_text()


def rows(header: str) -> list[list[str]]:
    """The cells of the table that begins with this header."""
    table = re.search(rf"^{re.escape(header)}\n\| ---.*\n((?:\|.*\n)+)", _PAGE, re.MULTILINE)
    assert table is not None, header
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table[1].splitlines()
    ]


def quoted(cell: str) -> list[str]:
    return [each.strip('"') for each in re.findall(r"`([^`]*)`", cell)]


def test_the_rights_are_those_of_the_roles() -> None:
    said: dict[tuple[str, str], set[str]] = {}
    for groups, resources, verbs, _ in rows("| API group | resource | verbs | why |"):
        for key in product(quoted(groups), quoted(resources)):
            said.setdefault(key, set()).update(quoted(verbs))
    # Of the two groups each has the one resource.
    del said["authentication.k8s.io", "subjectaccessreviews"]
    del said["authorization.k8s.io", "tokenreviews"]
    given: dict[tuple[str, str], set[str]] = {}
    paths = [KUSTOMIZE / "base/role.yaml", *sorted((KUSTOMIZE / "components").glob("*/*.yaml"))]
    rules = [
        rule
        for each in load(*paths)
        if each.get("kind") in ("Role", "ClusterRole")
        for rule in each["rules"]
    ]
    for rule in rules:
        for key in product(rule.get("apiGroups", ()), rule.get("resources", ())):
            given.setdefault(key, set()).update(rule["verbs"])
    given["", "pods"].add("patch")  # for a flag that not every Deployment has
    assert said == given


def test_the_reasons_are_those_that_are_written() -> None:
    said = {reason for _, cell, _ in rows("| status | reason | means |") for reason in quoted(cell)}
    assert said == {
        value for name, value in vars(acceptance).items() if name.startswith("_REASON_")
    }
    said_events = {
        (quoted(reason)[0], kind) for reason, kind, _ in rows("| reason | type | when |")
    }
    assert said_events == {
        (reason, kind) for reason, (kind, _) in events._TYPES_AND_ACTIONS.items()
    }


def test_the_limits_are_those_of_the_code() -> None:
    limits = {what: limit for what, limit, _ in rows("| what | limit | beyond it |")}
    assert limits["endpoints of a pool, each port counted"] == f"{MAX_ENDPOINTS:,}"
    assert limits["objectives of a pool"] == f"{MAX_OBJECTIVES:,}"
    assert limits["objectives that get a condition"] == f"{status._MAX_OBJECTIVES:,}"
    assert limits["rewrites of a pool; rules of each"] == f"{MAX_REWRITES:,}; 256"
    assert limits["different things told by Events"] == str(events._MAX_SERIES)
    defaults = connection.ClusterConnection.__init__.__kwdefaults__
    sizes = (defaults["max_body_bytes"] >> 20, defaults["max_line_bytes"] >> 20)
    shown = limits["an answer of the API server; an object in a watch"]
    assert shown == f"{sizes[0]} MiB; {sizes[1]} MiB"


def test_what_the_readme_deploys_is_whole(tmp_path: Path) -> None:
    found = re.search(
        r"^\$ cat > my-cluster/kustomization.yaml <<END\n(.*?)^END$", _README, re.MULTILINE | re.S
    )
    assert found is not None
    shutil.copytree(CONFIG / "kustomize/base", tmp_path / "config/kustomize/base")
    shutil.copytree(CONFIG / "gateways", tmp_path / "config/gateways")
    directory = tmp_path / "my-cluster"
    directory.mkdir()
    (directory / "kustomization.yaml").write_text(found[1])
    manifests = build(directory)
    assert {each["metadata"]["namespace"] for each in manifests} == {"inference"}
    pool = find(manifests, "InferencePool")
    assert refusals(schema_of(build(CONFIG / "crd"), pool), pool) == []
    (subject,) = find(manifests, "RoleBinding", "epp")["subjects"]
    assert subject["namespace"] == "inference"
    image = find(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.example.com/inference/epp:0.1.0"
