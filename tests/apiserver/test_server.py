"""The emulator, asked as clients ask: what they rely on is what the real one does."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from kubernetes_asyncio import client, config, watch

from . import ApiServer, lease, objective, pod, pool, renamed
from .client import EVENTS, LEASES, OBJECTIVES, PODS, Client


@pytest_asyncio.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


@pytest_asyncio.fixture
async def ask(api: ApiServer) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(api.url, session)


async def test_the_typed_client_and_its_watch_work(api: ApiServer, tmp_path: Path) -> None:
    api.put(pod("a", "127.0.0.2"))
    api.split_chunks(7)
    settings = client.Configuration()
    await config.load_kube_config(
        str(api.kubeconfig(tmp_path)), client_configuration=settings, persist_config=False
    )
    async with client.ApiClient(settings) as connection:
        core = client.CoreV1Api(connection)
        found = await core.list_namespaced_pod("default")
        assert [item.status.pod_ip for item in found.items] == ["127.0.0.2"]
        api.put(pod("a", "127.0.0.2", ready=False))
        api.delete("v1", "Pod", "default", "a")
        async with watch.Watch() as watching:
            stream = watching.stream(
                core.list_namespaced_pod,
                "default",
                resource_version=found.metadata.resource_version,
                timeout_seconds=1,
            )
            seen = [(event["type"], event["object"].metadata.name) async for event in stream]
        leases = client.CoordinationV1Api(connection)
        made = await leases.create_namespaced_lease(
            "default",
            client.V1Lease(
                metadata=client.V1ObjectMeta(name="l"),
                spec=client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=3),
            ),
        )
    assert seen == [("MODIFIED", "a"), ("DELETED", "a")]
    assert made.metadata.uid


async def test_pages_of_a_list_are_of_one_moment(api: ApiServer, ask: Client) -> None:
    for name in "abcde":
        api.put(pod(name))
    first = await ask.get(PODS, limit=2)
    api.delete("v1", "Pod", "default", "c")
    api.put(pod("f"))
    token = first["metadata"]["continue"]
    rest = await ask.get(PODS, **{"limit": 9, "continue": token})
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c", "d", "e"]
    assert first["metadata"]["remainingItemCount"] == 3
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "kind" not in rest["items"][0]  # as of kinds that are built in
    api.compact()
    gone = await ask.get(PODS, 410, **{"limit": 9, "continue": token})
    assert gone["reason"] == "Expired"
    fresh = await ask.get(PODS, **{"limit": 9, "continue": gone["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in fresh["items"]] == ["d", "e", "f"]


async def test_versions_that_lists_and_watches_ask_for(api: ApiServer, ask: Client) -> None:
    old = api.put(pod("a"))["metadata"]["resourceVersion"]
    api.put(pod("a", ready=False))
    exact = await ask.get(PODS, resourceVersion=old, resourceVersionMatch="Exact")
    newer = await ask.get(PODS, resourceVersion=old)
    assert exact["metadata"]["resourceVersion"] == old
    assert exact["items"][0]["status"]["conditions"][-1]["status"] == "True"
    assert newer["items"][0]["status"]["conditions"][-1]["status"] == "False"
    future = await ask.get(PODS, 504, resourceVersion=9_999_999)
    assert future["details"]["retryAfterSeconds"] == 1
    assert (await ask.get(PODS, 400, resourceVersion="x"))["reason"] == "BadRequest"
    api.compact()
    assert (await ask.get(PODS, 410, resourceVersion=old, limit=1))["reason"] == "Expired"
    async with ask.watch(PODS, resourceVersion=old) as stream:  # not an answer but an event
        event = await stream.event()
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert await stream.ended()


async def test_a_watch_tells_what_begins_and_ceases_to_match(api: ApiServer, ask: Client) -> None:
    api.put(pod("a", labels={"app": "x"}))
    async with ask.watch(PODS, labelSelector="app in (x,y),!gone") as stream:
        assert (await stream.event())["type"] == "ADDED"  # no version: what there is, first
        api.put(pod("b", labels={"app": "z"}))
        api.put(pod("b", labels={"app": "y"}))
        api.put(pod("a", labels={"app": "x", "gone": ""}))
        added, deleted = await stream.event(), await stream.event()
        assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "b")
        assert (deleted["type"], deleted["object"]["metadata"]["labels"]) == (
            "DELETED",
            {"app": "x"},
        )
        # The state is the last one that matched, the version that of the change.
        now = api.get("v1", "Pod", "default", "a")
        assert now is not None
        assert (
            deleted["object"]["metadata"]["resourceVersion"] == (now["metadata"]["resourceVersion"])
        )
    assert (await ask.get(PODS, 400, fieldSelector="spec.image=x"))["code"] == 400
    found = await ask.get(PODS, fieldSelector="metadata.name=b")
    assert [item["metadata"]["name"] for item in found["items"]] == ["b"]


async def test_bookmarks_and_the_end_of_a_watch(api: ApiServer, ask: Client) -> None:
    api.put(pool())
    asked = {"resourceVersion": api.store.version, "allowWatchBookmarks": "true"}
    async with ask.watch(PODS, **asked, timeoutSeconds=1) as stream:
        api.put(pool("other"))
        api.bookmark()
        event = await stream.event()
        assert event["type"] == "BOOKMARK"
        assert event["object"]["metadata"]["resourceVersion"] == str(api.store.version)
        assert (await stream.event())["type"] == "BOOKMARK"  # before the end
        assert await stream.ended()
    asked = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    async with ask.watch(PODS, **asked, allowWatchBookmarks="true") as stream:
        end = await stream.event()
        annotations = end["object"]["metadata"]["annotations"]
        assert annotations == {"k8s.io/initial-events-end": "true"}


async def test_faults_of_watches(api: ApiServer, ask: Client) -> None:
    version = api.put(pod("a"))["metadata"]["resourceVersion"]
    async with ask.watch(PODS, resourceVersion=version) as stream:
        api.duplicate_events()
        api.split_chunks(3)
        api.put(pod("b"))
        assert await stream.event() == await stream.event()
        api.duplicate_events(0)
        api.half_open()
        api.put(pod("c"))
        async with ask.watch(PODS, resourceVersion=version) as silent:
            assert await silent.hears_nothing(0.05)
        assert await stream.hears_nothing(0.01)
        api.half_open(silent=False)
        assert (await stream.event())["object"]["metadata"]["name"] == "c"
        api.drop_watches()
        assert await stream.ended()
    async with ask.watch(PODS, resourceVersion=version) as stream:
        await stream.event()
        await stream.event()
        api.drop_watches(reset=True)
        with pytest.raises(aiohttp.ClientError):
            await stream.event()
    async with ask.watch(PODS, resourceVersion=version) as stream:
        await stream.event()
        await stream.event()
        api.expire_watches()
        assert (await stream.event())["object"]["code"] == 410
        assert await stream.ended()
    assert not api.open_watches
    assert all(asked.ended_s for asked in api.asked_for("watch", "pods"))


async def test_faults_of_requests(api: ApiServer, ask: Client) -> None:
    api.fail(429, times=2, retry_after_s=3, resource="pods", verb="list")
    late = api.delay(0.05, times=1, resource="leases")
    answer, headers = await ask.do("GET", PODS, 429)
    assert headers["retry-after"] == "3"
    assert answer["details"] == {"retryAfterSeconds": 3}
    await ask.get(LEASES)
    assert late.hits == 1
    await ask.get(PODS, 429)
    await ask.get(PODS)
    forbidden = api.fail(403, times=None, resource="pods")
    assert 'cannot list resource "pods"' in (await ask.get(PODS, 403))["message"]
    forbidden.cancel()
    await ask.get(PODS)
    api.break_off(resource="pods", times=2)  # aiohttp tries twice
    with pytest.raises(aiohttp.ClientError):
        await ask.get(PODS)
    assert [r.status for r in api.asked_for("list", "pods")] == [429, 429, 200, 403, 200, 0, 0]


async def test_the_server_goes_and_comes_back(api: ApiServer, ask: Client) -> None:
    url = api.url
    async with ask.watch(PODS) as stream:
        await api.stop()
        with pytest.raises(aiohttp.ClientError):
            await stream.event()
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask.get(PODS)
    api.put(pod("a"))
    await api.start()
    assert api.url == url
    assert len((await ask.get(PODS))["items"]) == 1


async def test_kinds_are_not_installed_until_they_are(api: ApiServer, ask: Client) -> None:
    kind = ("inference.networking.x-k8s.io/v1alpha2", "InferenceObjective")
    api.put(objective("o"))
    async with ask.watch(OBJECTIVES, resourceVersion=api.store.version) as stream:
        api.uninstall(*kind)
        assert await stream.ended()
    async with ask.session.get(api.url + OBJECTIVES) as response:
        assert (response.status, await response.text()) == (404, "404 page not found\n")
    found = await ask.get("/apis/inference.networking.x-k8s.io/v1alpha2")
    assert "inferenceobjectives" not in [item["name"] for item in found["resources"]]
    api.install(*kind)
    assert (await ask.get(OBJECTIVES))["items"] == []


async def test_tokens_and_reviews(api: ApiServer, ask: Client) -> None:
    api.access.add_token("secret", "alice", ("ops",))
    api.access.allow("ops", "get", "/metrics")
    assert (await ask.get(PODS, 401))["reason"] == "Unauthorized"
    ask.headers["authorization"] = "Bearer secret"
    await ask.get(PODS)
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    good = await ask.post(path, {**body, "spec": {"token": "secret"}})
    bad = await ask.post(path, {**body, "spec": {"token": "other"}})
    assert good["status"]["user"]["username"] == "alice"
    assert "authenticated" not in bad["status"]
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    about = {"path": "/metrics", "verb": "get"}
    for groups, allowed in ((["ops"], True), ([], False)):
        spec = {"user": "alice", "groups": groups, "nonResourceAttributes": about}
        assert (await ask.post(path, {**body, "spec": spec}))["status"]["allowed"] is allowed
    api.access.expire_token("secret")
    await ask.get(PODS, 401)


async def test_writes_of_a_lease(api: ApiServer, ask: Client) -> None:
    time = "2026-01-01T00:00:00.000000Z"
    made = await ask.post(LEASES, lease("l", "a", time))
    again = await ask.post(LEASES, lease("l", "b", time), 409)
    assert again["reason"] == "AlreadyExists"
    path = f"{LEASES}/l"
    version = made["metadata"]["resourceVersion"]
    changed = lease("l", "b", time)
    changed["metadata"]["resourceVersion"] = version
    newer = await ask.put(path, changed)
    assert newer["spec"]["holderIdentity"] == "b"
    assert (await ask.put(path, changed, 409))["reason"] == "Conflict"
    await ask.put(path, lease("l", "b", time), 422)  # needs a version
    assert (await ask.put(path, newer)) == newer  # no change is no event
    wrong = lease("m", "b", "2026-01-01T00:00:00Z")  # six digits, always
    await ask.post(LEASES, wrong, 400)
    await ask.post(LEASES, lease("m", "b", time, duration_s=0), 422)
    made = await ask.put(f"{LEASES}/n", lease("n", "c", time), 201)
    uid = {"preconditions": {"uid": "another"}}
    await ask.do("DELETE", f"{LEASES}/n", 409, uid)
    await ask.do("DELETE", f"{LEASES}/n", 200)


async def test_pods_terminate_before_they_are_gone(api: ApiServer, ask: Client) -> None:
    api.put(pod("a"))
    answer, _ = await ask.do("DELETE", f"{PODS}/a", 200)
    assert answer["metadata"]["deletionGracePeriodSeconds"] == 30
    assert api.get("v1", "Pod", "default", "a") is not None
    await ask.do("DELETE", f"{PODS}/a", 200, {"gracePeriodSeconds": 0})
    assert api.get("v1", "Pod", "default", "a") is None


async def test_events_are_the_same_in_both_groups(api: ApiServer, ask: Client) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "c",
        "reportingInstance": "i",
        "action": "Pick",
        "reason": "NoEndpoints",
        "type": "Warning",
        "note": "none",
        "regarding": {"kind": "InferencePool", "name": "pool", "namespace": "default"},
    }
    await ask.post(EVENTS, {**event, "reportingController": ""}, 422)
    await ask.post(EVENTS, event)
    found = await ask.get("/api/v1/namespaces/default/events/e")
    assert (found["message"], found["involvedObject"]["name"]) == ("none", "pool")
    assert (await ask.get(f"{EVENTS}/e"))["note"] == "none"


async def test_it_is_a_process_too(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "pods.json").write_text(json.dumps(renamed(pod("x"), "y")))
    arguments = ("--manifests", str(tmp_path / "manifests"), "--pods", "2")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.apiserver"),
        *arguments,
        *("--kubeconfig", str(tmp_path / "config")),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        assert json.loads((tmp_path / "config").read_text())["clusters"][0]["cluster"] == {
            "server": url
        }
        async with aiohttp.ClientSession() as session:
            ask = Client(url, session)
            await ask.post("/emulator/put", {"item": pod("z")}, 200)
            await ask.post("/emulator/churn", {"rate_per_s": 1000}, 200)
            async with ask.watch(PODS, resourceVersion=0) as stream:
                seen: list[dict[str, Any]] = [await stream.event() for _ in range(10)]
            assert {event["type"] for event in seen} >= {"ADDED", "MODIFIED"}
            asked = await ask.get("/emulator/requests")
            assert [request["verb"] for request in asked] == ["watch"]
    finally:
        process.kill()
        await process.wait()
