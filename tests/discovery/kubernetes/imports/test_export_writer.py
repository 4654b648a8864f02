"""The exporting controller between the API servers of two clusters."""

import asyncio
import contextlib
import itertools
import random
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from epp.clock import monotonic_s
from epp.discovery.declared import EXPERIMENTAL_GROUP, POOL_GROUP
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.imports.export_writer import ExportWriter
from epp.discovery.kubernetes.imports.exports import CONTROLLER, CREATED_BY
from epp.discovery.kubernetes.imports.member import MemberCluster
from epp.discovery.kubernetes.watch.pace import Pace
from tests.apiserver import ApiServer, Recorded, pool, pool_import
from tests.apiserver.kubeconfig import Context, write_kubeconfig
from tests.discovery.support import wait_until

_PACE = Pace(first_pause_s=0.01, longest_pause_s=0.02, relist_spread_s=0.01)
_EXPORT = {"inference.networking.x-k8s.io/export": "ClusterSet"}
_POOL = (f"{POOL_GROUP}/v1", "InferencePool", "default", "pool")
_IMPORT = (f"{EXPERIMENTAL_GROUP}/v1alpha1", "InferencePoolImport", "default", "pool")
_OTHER = {"name": "example.com/gateway", "parents": []}


def _rights() -> set[tuple[str, str, str]]:
    """What the Role of the page allows: group, resource and verb."""
    page = (Path(__file__).parents[4] / "docs/multi-cluster.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    documents = [each for block in blocks for each in yaml.safe_load_all(block)]
    [role] = [each for each in documents if each.get("kind") == "Role"]
    return {
        right
        for rule in role["rules"]
        for right in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


_RIGHTS = _rights()


def _right(request: Recorded) -> tuple[str, str, str]:
    """What a request needs."""
    parts = request.path.split("/")
    group = parts[2] if parts[1] == "apis" else ""
    resource = "/".join(filter(None, (request.resource, request.subresource)))
    return group, resource, "patch" if request.verb == "apply" else request.verb


class Exporting:
    """The clusters ``east`` and ``west``, and a controller; ``may_write`` is to be set."""

    def __init__(self, east: ApiServer, west: ApiServer) -> None:
        self.apis = {"east": east, "west": west}
        self.east = east
        self.west = west
        self.may_write = True
        self.writer: ExportWriter
        self.members: dict[str, MemberCluster] = {}

    def clusters(self, cluster: str) -> list[str] | None:
        """Return which clusters the import in a cluster names as exporting; None: no import, or
        nothing in it that this controller says."""
        found = self.apis[cluster].get(*_IMPORT)
        for entry in (found or {}).get("status", {}).get("controllers", ()):
            if entry["name"] == CONTROLLER:
                return [each["name"] for each in entry["exportingClusters"]]
        return None

    def unexport(self, cluster: str) -> None:
        """Take the annotation from the pool of a cluster."""
        found = self.apis[cluster].get(*_POOL)
        assert found is not None
        self.apis[cluster].put({**found, "metadata": {"name": "pool", "namespace": "default"}})

    def condition(self, cluster: str) -> dict[str, Any]:
        """Return the condition Exported of the pool in a cluster."""
        found = self.apis[cluster].get(*_POOL) or {}
        for parent in found.get("status", {}).get("parents", ()):
            if parent.get("controllerName") == CONTROLLER:
                assert parent["parentRef"] == {
                    "group": EXPERIMENTAL_GROUP,
                    "kind": "InferencePoolImport",
                    "name": "pool",
                    "namespace": "default",
                }
                (condition,) = parent["conditions"]
                return dict(condition)
        return {}

    def says(self, cluster: str, status: str) -> bool:
        return self.condition(cluster).get("status") == status


@pytest.fixture
async def two() -> AsyncIterator[Exporting]:
    async with ApiServer() as east, ApiServer() as west:
        yield Exporting(east, west)


@contextlib.asynccontextmanager
async def running(two: Exporting, directory: Path) -> AsyncIterator[None]:
    contexts = {name: Context(url=api.url) for name, api in two.apis.items()}
    file = write_kubeconfig(directory / "kubeconfig", contexts)
    async with contextlib.AsyncExitStack() as exits:
        members = two.members
        for name in two.apis:
            connection = ClusterConnection(file, name)
            await connection.open()
            exits.push_async_callback(connection.close)
            members[name] = MemberCluster(
                name,
                connection,
                "default",
                keeps_imports=True,
                pace=_PACE,
                wake=lambda: None,
                on_objects=lambda: two.writer.changed(),
            )
            exits.push_async_callback(members[name].watching.close)
        two.writer = ExportWriter(
            members,
            "default",
            may_write=lambda: two.may_write,
            rng=random.Random(1),
            clock=monotonic_s,
            utc_now=lambda: datetime(2026, 1, 2, tzinfo=UTC),
            max_writes_per_s=200.0,
            patience_s=0.3,
        )
        for member in members.values():
            member.start()
        task = asyncio.create_task(two.writer.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
    for api in two.apis.values():
        assert {_right(request) for request in api.requests} <= _RIGHTS


async def test_a_pool_is_exported_and_is_so_no_more(two: Exporting, tmp_path: Path) -> None:
    """What gateways say of pools and imports stays all the time."""
    exported = pool(annotations=_EXPORT)
    gateway = {"parentRef": {"name": "gateway"}, "conditions": []}
    exported["status"] = {"parents": [gateway]}
    two.east.put(exported)
    async with running(two, tmp_path):
        await wait_until(lambda: two.says("east", "True"))
        assert two.clusters("east") == two.clusters("west") == ["east"]
        condition = two.condition("east")
        assert condition["lastTransitionTime"] == "2026-01-02T00:00:00Z"
        assert (condition["type"], condition["reason"]) == ("Exported", "Exported")
        found = two.west.get(*_IMPORT)
        assert found is not None
        assert found["metadata"]["annotations"] == {CREATED_BY: CONTROLLER}
        found["status"]["controllers"].append(_OTHER)
        two.west.put(found)
        two.west.put(pool(annotations=_EXPORT))
        await wait_until(lambda: two.says("west", "True"))
        assert two.clusters("east") == two.clusters("west") == ["east", "west"]
        two.unexport("west")
        await wait_until(lambda: two.clusters("west") == ["east"] and not two.condition("west"))
        found = two.west.get(*_IMPORT)
        assert found is not None
        assert _OTHER in found["status"]["controllers"]
        two.unexport("east")
        await wait_until(lambda: not two.east.get(*_IMPORT) and not two.west.get(*_IMPORT))
        await wait_until(lambda: not two.condition("east"))
        found = two.east.get(*_POOL)
        assert found is not None
        assert found["status"]["parents"] == [gateway]
        assert not any(two.writer.writes[result] for result in ("failed", "invalid", "refused"))


async def test_imports_of_others_are_left_to_them(two: Exporting, tmp_path: Path) -> None:
    two.west.put(pool_import(clusters=("far",)))
    two.east.put(pool(annotations=_EXPORT))
    async with running(two, tmp_path):
        await wait_until(lambda: two.says("east", "True"))
        found = two.west.get(*_IMPORT)
        assert found is not None
        assert CREATED_BY not in found["metadata"].get("annotations", {})
        two.east.delete(*_POOL)
        await wait_until(lambda: two.east.get(*_IMPORT) is None)
        await wait_until(lambda: two.clusters("west") is None)
    found = two.west.get(*_IMPORT)
    assert found is not None
    assert [each["name"] for each in found["status"]["controllers"]] == ["example.com/exporter"]


async def test_a_member_that_is_away_is_named(two: Exporting, tmp_path: Path) -> None:
    """Others are written to meanwhile; when it is back, it gets what it has missed."""
    await two.west.stop()
    two.west.put(pool_import(clusters=("west",), controller=CONTROLLER))
    two.east.put(pool_import(clusters=("west",), controller=CONTROLLER))
    two.east.put(pool(annotations=_EXPORT))
    async with running(two, tmp_path):
        await wait_until(lambda: two.condition("east").get("message") == "no import in west")
        assert two.condition("east")["reason"] == "MemberFailed"
        assert two.clusters("east") == ["east", "west"], "nobody knows yet that west does not"
        await two.west.start()
        await wait_until(lambda: two.says("east", "True"))
        assert two.clusters("east") == two.clusters("west") == ["east"]


async def test_only_the_leader_writes(two: Exporting, tmp_path: Path) -> None:
    two.may_write = False
    two.east.put(pool(annotations=_EXPORT))
    async with running(two, tmp_path):
        await wait_until(lambda: len(two.west.open_watches) == 2)
        two.east.put(pool("other", annotations=_EXPORT))
        await wait_until(lambda: len(two.members["east"].pools) == 2)
        assert not sum(two.writer.writes.values())
        two.may_write = True
        await wait_until(lambda: two.says("east", "True"))


async def test_what_comes_of_errors(
    two: Exporting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two.east.put(pool(annotations=_EXPORT))
    two.west.fail(500, verb="create")
    two.east.fail(409, verb="update")
    async with running(two, tmp_path):
        await wait_until(lambda: two.says("east", "True"))
        assert two.writer.writes["failed"] == 1
        assert two.writer.writes["conflict"] >= 1
        assert "cluster west: an export could not be written" in caplog.text
        fault = two.west.fail(403, times=None, verb="delete")
        two.unexport("east")
        await wait_until(lambda: two.east.get(*_IMPORT) is None and fault.hits > 0)
        await wait_until(lambda: two.writer.writes["refused"] > 0)
        assert "may not delete" in caplog.text


async def test_an_answer_that_is_none_is_like_no_answer(
    two: Exporting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.east.put(pool(annotations=_EXPORT))
    async with running(two, tmp_path):
        connection = two.members["east"].connection
        get = connection.get

        async def of_a_proxy(*arguments: Any, **more: Any) -> bytes:
            return await get(*arguments, **more) if more.get("verb") == "list" else b"<html>"

        monkeypatch.setattr(connection, "get", of_a_proxy)
        await wait_until(lambda: two.writer.writes["failed"] > 0)
        monkeypatch.undo()
        await wait_until(lambda: two.says("east", "True"))


async def test_a_disagreement_costs_little(two: Exporting, tmp_path: Path) -> None:
    """Someone who takes the import away each time is given in to more and more."""
    two.east.put(pool(annotations=_EXPORT))
    async with running(two, tmp_path):
        await wait_until(lambda: two.says("east", "True"))
        for _ in range(3):
            two.west.delete(*_IMPORT)
            await wait_until(lambda: two.clusters("west") == ["east"])
        at_s = [each.at_s for each in two.west.asked_for("create") if each.status == 201]
        assert len(at_s) == 4
        assert at_s[2] - at_s[1] >= 0.5
        assert at_s[3] - at_s[2] >= 1.0
