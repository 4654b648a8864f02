"""The label of the leader's pod: who bears it, whatever becomes of leaders and the API server."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.discovery.cluster import LeaderLabelOptions
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.election.leader_label import (
    LEASE_ANNOTATION,
    LabelStep,
    LeaderLabel,
    label_steps,
)
from tests.apiserver import ApiServer
from tests.apiserver import pod as pod_object
from tests.discovery.kubernetes.election.electors import NAME, elector
from tests.discovery.support import wait_until

KEY, VALUE = "inference-epp/leader", "epp"
PODS = ("one", "two")


class Replica:
    """One EPP as far as the label goes. Whether it leads is set from outside."""

    def __init__(self, connection: ClusterConnection, pod: str) -> None:
        self.is_leader = False
        self.may_write = False
        self.label = LeaderLabel(
            connection,
            LeaderLabelOptions(key=KEY, value=VALUE, pod=pod, namespace="default"),
            lease_name=NAME,
            is_leader=lambda: self.is_leader,
            may_write=lambda: self.may_write,
            rng=random.Random(1),
        )
        self.task = asyncio.create_task(self.label.run())

    def leads(self, does: bool) -> None:
        self.is_leader = self.may_write = does
        self.label.changed()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Place:
    """The API server and what was borne by whom, as its history has it."""

    def __init__(self, api: ApiServer, connection: ClusterConnection) -> None:
        self.api = api
        self.connection = connection
        self.replicas: dict[str, Replica] = {}

    def start(self, pod: str) -> Replica:
        self.replicas[pod] = Replica(self.connection, pod)
        return self.replicas[pod]

    def bearers(self) -> list[str]:
        pods = [each["metadata"] for each in self.api.items("v1", "Pod", "default")]
        return [pod["name"] for pod in pods if pod.get("labels", {}).get(KEY) == VALUE]

    async def borne_by(self, *pods: str) -> None:
        await wait_until(lambda: self.bearers() == list(pods))

    async def asked(self, verb: str, times: int) -> None:
        await wait_until(lambda: len(self.api.asked_for(verb, "pods")) >= times)

    async def looked(self, replica: Replica) -> None:
        """Let it look, and do what is to be done."""
        for _ in range(2):  # the second one begins when the first one is done
            before = len(self.api.asked_for("list", "pods"))
            replica.label.changed()
            await self.asked("list", before + 1)

    async def others_are_asked(self) -> None:
        """Let pass what a request takes that was due before."""
        for _ in range(2):
            await self.connection.get("/api/v1/namespaces/default/pods/one")

    def patched(self) -> list[str]:
        return [each.name for each in self.api.asked_for("patch", "pods")]


def labelled(pod: str, lease: str = NAME) -> dict[str, object]:
    return pod_object(pod, labels={KEY: VALUE}, annotations={LEASE_ANNOTATION: lease})


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    async with ApiServer() as api:
        for pod in PODS:
            api.put(pod_object(pod, labels={"app": "epp"}, annotations={"note": "mine"}))
        connection = ClusterConnection(api.kubeconfig(directory))
        await connection.open()
        made = Place(api, connection)
        try:
            yield made
        finally:
            for replica in made.replicas.values():
                await replica.stop()
            await connection.close()


# ---- what is to be done ----


@given(st.dictionaries(st.sampled_from("abcd"), st.just("7")), st.booleans())
def test_it_is_put_on_before_it_is_taken_off_and_somebody_always_bears_it(
    bearers: dict[str, str], leads: bool
) -> None:
    borne = set(bearers)
    for step in label_steps(bearers.items(), "a", leads=leads):
        borne ^= {step.pod}
        assert step.bears is (step.pod in borne)
        assert borne
        assert leads or step == LabelStep("a", False)
        assert bool(step.version) is (step.pod != "a")
    if leads:
        assert borne == {"a"}
    elif set(bearers) != {"a"}:
        assert borne == bearers.keys() - {"a"}


# ---- hand-overs ----


async def test_the_label_goes_with_the_lead_and_all_else_on_the_pods_stays(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        first, second = at.start("one"), at.start("two")
        first.leads(True)
        await at.borne_by("one")
        found = at.api.get("v1", "Pod", "default", "one")
        assert found is not None
        assert found["metadata"]["labels"] == {"app": "epp", KEY: VALUE}
        assert found["metadata"]["annotations"] == {"note": "mine", LEASE_ANNOTATION: NAME}

        first.leads(False)
        await at.looked(first)  # nobody else bears it yet, so it stays
        assert at.bearers() == ["one"]
        second.leads(True)
        await at.borne_by("two")
        assert at.patched()[:2] == ["one", "two"]
        found = at.api.get("v1", "Pod", "default", "one")
        assert found is not None
        assert found["metadata"]["labels"] == {"app": "epp"}
        assert found["metadata"]["annotations"] == {"note": "mine"}


async def test_who_leads_no_more_takes_it_off_where_the_next_one_does_not(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        only = at.start("one")
        only.leads(True)
        await at.borne_by("one")
        at.api.put(labelled("two"))
        only.leads(False)
        await at.borne_by("two")


@pytest.mark.parametrize("comes_back", [False, True])
async def test_the_next_one_takes_it_off_whom_was_killed(tmp_path: Path, comes_back: bool) -> None:
    async with place(tmp_path) as at:
        killed = elector(at.connection, "one", lease_duration_s=1.0, renew_interval_s=0.2)
        leading = asyncio.create_task(killed.run())
        first = at.start("one")
        killed.on_change = first.leads
        await at.borne_by("one")
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await first.stop()
        assert at.bearers() == ["one"]
        if comes_back:
            first = at.start("one")  # its container is restarted; it does not lead yet

        following = elector(at.connection, "two", lease_duration_s=1.0, renew_interval_s=0.2)
        second = at.start("two")
        following.on_change = second.leads
        running = asyncio.create_task(following.run())
        await at.borne_by("two")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_end_takes_it_off_even_if_nobody_follows(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        only = at.start("one")
        only.leads(True)
        await at.borne_by("one")
        only.leads(False)
        await only.stop()
        await only.label.end()
        assert at.bearers() == []


async def test_who_bears_nothing_ends_without_a_word(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        replica = at.start("one")
        await at.asked("list", 1)
        await at.others_are_asked()
        replica.label.changed()
        await at.others_are_asked()
        await replica.stop()
        await replica.label.end()
        assert at.patched() == []
        assert len(at.api.asked_for("list", "pods")) == 1


async def test_without_an_answer_it_ends_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(tmp_path) as at:
        only = at.start("one")
        only.leads(True)
        await at.borne_by("one")
        await only.stop()
        await at.api.stop()
        await only.label.end()
    assert f"label {KEY}={VALUE} stays on pod one" in caplog.text


# ---- who may ----


async def test_who_is_not_sure_to_lead_changes_nothing(tmp_path: Path) -> None:
    """As a leader that was suspended for longer than its lease, until it has asked."""
    async with place(tmp_path) as at:
        replica = at.start("one")
        replica.leads(True)
        await at.borne_by("one")
        replica.may_write = False
        at.api.put(labelled("two"))
        before = len(at.api.asked_for("list", "pods"))
        replica.label.changed()
        await at.others_are_asked()
        assert len(at.api.asked_for("list", "pods")) == before
        replica.may_write = True
        replica.label.changed()
        await at.borne_by("one")


async def test_who_loses_the_lead_meanwhile_takes_nothing_off(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        at.api.put(labelled("two"))
        at.api.delay(0.1, times=1, verb="patch", resource="pods", name="one")
        replica = at.start("one")
        replica.leads(True)
        await at.asked("patch", 1)
        replica.leads(False)
        await at.asked("patch", 2)
        await at.borne_by("two")
        assert at.patched() == ["one", "one"]


async def test_what_epps_of_another_lease_have_labelled_stays(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        at.api.put(labelled("theirs", "epp-default-other.llm-d.ai"))
        replica = at.start("two")
        replica.leads(True)
        await at.borne_by("theirs", "two")
        replica.leads(False)
        await at.looked(replica)
        assert at.bearers() == ["theirs", "two"]
        assert at.patched() == ["two"]


async def test_who_may_not_is_told_once_which_rule_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(tmp_path) as at:
        fault = at.api.fail(403, times=None, verb="patch", resource="pods")
        replica = at.start("one")
        replica.leads(True)
        await at.asked("patch", 1)
        replica.label.changed()
        await at.asked("patch", 2)
        fault.cancel()
        replica.label.changed()
        await at.borne_by("one")
        assert replica.label.results["refused"] == 2
    [line] = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    rule = 'apiGroups: [""], resources: [pods], verbs: [list, patch] in namespace default'
    assert f"needs the rule {rule}" in line
    assert "403" in line


async def test_what_is_looked_at_again_and_again_may_come_from_memory(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        replica = at.start("one")
        replica.leads(True)
        await at.borne_by("one")
        await at.looked(replica)
        versions = [each.query.get("resourceVersion") for each in at.api.asked_for("list", "pods")]
        assert versions[0] is None
        assert versions[-1] == "0"


# ---- trouble ----


async def test_an_api_server_that_comes_back_is_told(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        first, second = at.start("one"), at.start("two")
        first.leads(True)
        await at.borne_by("one")
        await at.api.stop()
        first.leads(False)
        second.leads(True)
        await wait_until(lambda: second.label.results["failed"])
        await at.api.start()
        await at.borne_by("two")


async def test_a_pod_that_has_changed_meanwhile_is_looked_at_again(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        at.api.put(labelled("two"))
        at.api.delay(0.1, times=1, verb="patch", resource="pods", name="one")
        replica = at.start("one")
        replica.leads(True)
        await at.asked("patch", 1)
        at.api.put(labelled("two") | {"spec": {"nodeName": "node-2", "containers": []}})
        await at.borne_by("one")
        assert replica.label.results["conflict"] == 1


async def test_pods_that_are_gone_are_no_trouble(tmp_path: Path) -> None:
    async with place(tmp_path) as at:
        at.api.put(labelled("gone"))
        at.api.fail(404, verb="patch", resource="pods", name="gone")
        at.api.put(labelled("two"))
        replica = at.start("one")
        replica.leads(True)
        await at.borne_by("gone", "one")
        assert replica.label.results["gone"] == 1


async def test_a_pod_name_that_is_none_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(tmp_path) as at:
        at.start("nobody").leads(True)
        await at.asked("patch", 1)
        await wait_until(lambda: "nobody" in caplog.text)
