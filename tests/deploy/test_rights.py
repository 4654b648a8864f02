"""What the Roles grant is what an endpoint picker asks of the API server, and no more."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from msgspec.structs import replace

from epp.config import ServeOptions
from epp.service import Service
from tests.apiserver import ApiServer, Recorded, model_rewrite, objective, pod, pool

from .rendering import KUSTOMIZE, Manifest, build, find, render
from .serving import serving

_NAMESPACE = "inference"
# group, resource, verb. What is asked for by name only, is checked by name as well.
_EXPECTED = {
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "pods", "patch"),
    ("inference.networking.k8s.io", "inferencepools", "list"),
    ("inference.networking.k8s.io", "inferencepools", "watch"),
    *(
        (group, resource, verb)
        for group in ("inference.networking.x-k8s.io", "llm-d.ai")
        for resource, verb in (
            ("inferenceobjectives", "list"),
            ("inferenceobjectives", "watch"),
            ("inferencemodelrewrites", "list"),
            ("inferencemodelrewrites", "watch"),
            ("inferenceobjectives/status", "patch"),
        )
    ),
    *(
        ("coordination.k8s.io", "leases", verb)
        for verb in ("get", "list", "watch", "create", "update")
    ),
    ("events.k8s.io", "events", "patch"),
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
}
# Events are applied. What is applied and new, must be granted to be created as well.
_UNASKED = {("events.k8s.io", "events", "create")}


def granted(manifests: Sequence[Manifest]) -> Iterator[tuple[tuple[str, str, str], Any]]:
    """Every group, resource and verb that the endpoint picker's account has, and the names it has
    them for, None for all."""
    for binding in manifests:
        if not binding["kind"].endswith("RoleBinding"):
            continue
        if {"epp"} != {subject["name"] for subject in binding["subjects"]}:
            continue
        role = find(manifests, binding["roleRef"]["kind"], binding["roleRef"]["name"])
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield (group, resource, verb), rule.get("resourceNames")


def asked(recorded: Recorded) -> tuple[tuple[str, str, str], str]:
    """What a request needs to be granted, and for which name; no name: for all."""
    parts = recorded.path.split("/")
    group = parts[2] if parts[1] == "apis" else ""
    resource = "/".join(filter(None, (recorded.resource, recorded.subresource)))
    verb = "patch" if recorded.verb == "apply" else recorded.verb
    selector = recorded.query.get("fieldSelector", "")
    name = recorded.name or selector.removeprefix("metadata.name=")
    return (group, resource, verb), name


async def requests_of(manifests: Sequence[Manifest], directory: Path) -> list[Recorded]:
    """Let an endpoint picker run as the Deployment says, and return what it has asked for."""
    served = serving(manifests, directory)
    async with ApiServer() as api, aiohttp.ClientSession() as session:
        api.access.add_token("own", "epp")
        api.access.add_token("reader", "prometheus")
        api.access.allow("prometheus", "get", "/metrics")
        api.put(pool("llm", namespace=_NAMESPACE))
        api.put(pod("vllm-0", namespace=_NAMESPACE))
        for number, group in enumerate(("llm-d.ai", "inference.networking.x-k8s.io")):
            where = {"namespace": _NAMESPACE, "pool": "llm", "group": group}
            api.put(objective(f"objective-{number}", **where))
            rules = [{"targets": [{"modelRewrite": "chat"}]}]
            api.put(model_rewrite(f"rewrite-{number}", rules, **where))
        bad = objective("bad", namespace=_NAMESPACE, pool="llm")
        bad["spec"]["priority"] = "high"
        api.put(bad)  # of which an Event tells
        cluster = replace(
            served.cluster,
            kubeconfig=api.kubeconfig(directory, token="own"),
            lease_duration_s=1.0,
            renew_interval_s=0.1,
        )
        options = ServeOptions(
            manifests=(),
            cluster=cluster,
            metrics_auth=served.security.metrics_auth,
            host="127.0.0.1",
            grpc_port=0,
            health_port=0,
            metrics_port=0,
            scrape=None,
        )
        async with asyncio.timeout(30), Service(options) as service:
            url = f"http://127.0.0.1:{service.observability.port}/metrics"
            async with session.get(url, headers={"authorization": "Bearer reader"}) as response:
                assert response.status == 200
            async with asyncio.timeout(10):
                while not {asked(each)[0] for each in api.requests} >= _EXPECTED:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        return list(api.requests)


async def test_the_roles_grant_what_is_asked_for(tmp_path: Path) -> None:
    overlay = build(KUSTOMIZE / "overlays/production")
    chart = render({"leaderElection": {"enabled": True}, "metrics": {"auth": True}})
    requests = await requests_of(overlay, tmp_path)
    for manifests in (overlay, chart):
        grants = list(granted(manifests))
        for each in requests:
            wanted, name = asked(each)
            names = [names for what, names in grants if what == wanted]
            assert any(among is None or name in among for among in names), each
        assert {what for what, _ in grants} == _EXPECTED | _UNASKED


def test_the_base_grants_nothing_beyond_its_namespace() -> None:
    kinds = {each["kind"] for each in build(KUSTOMIZE / "base")}
    assert "Role" in kinds
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds
    leases = ("coordination.k8s.io", "leases", "create")
    assert leases not in dict(granted(build(KUSTOMIZE / "base")))
