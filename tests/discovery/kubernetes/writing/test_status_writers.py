"""Several writers of conditions at once; one and the API server."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.objects import InferenceObjective
from epp.discovery.kubernetes.watch.reflector import Reflector
from epp.discovery.kubernetes.writing.acceptance import KnownPools
from epp.discovery.kubernetes.writing.status import StatusWriter
from tests.apiserver import ApiServer
from tests.apiserver import objective as objective_object
from tests.discovery.kubernetes.writing.objective_cluster import (
    API,
    LATENCY_S,
    Cluster,
    knows,
    now_s,
    pool,
    virtually,
)
from tests.discovery.support import wait_until

# ---- several writers ----

NAMES = ("a", "b", "c")
STEPS = st.tuples(
    st.sampled_from(("put", "pools")),
    st.integers(0, 3),
    st.sampled_from((*NAMES, "nowhere")),
    st.floats(0.0, 5.0),
)


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=12), st.sets(st.sampled_from(NAMES)), st.floats(0.0, 4.0))
def test_two_writers_come_to_the_same_and_go_quiet(
    history: list[tuple[str, int, str, float]], there: set[str], lag_s: float
) -> None:
    async def main(cluster: Cluster) -> None:
        writers = {"a": cluster.writer(), "b": cluster.writer(lag_s=lag_s)}
        wanted: dict[str, str] = {}
        pools = set(there)

        def tell(wants: str, existing: tuple[str, ...]) -> None:
            writers[wants].follow_pools(knows(*existing, wants=wants))

        def tell_all() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(LATENCY_S, tell, "a", tuple(pools))
            loop.call_later(lag_s, tell, "b", tuple(pools))

        tell_all()
        for kind, number, name, pause_s in history:
            if kind == "put":
                wanted[f"o-{number}"] = name
                cluster.put(f"o-{number}", pool(name))
            else:
                pools ^= {name}
                tell_all()
            await asyncio.sleep(pause_s)
        await asyncio.sleep(200.0)
        for name, of in wanted.items():
            if of not in pools:
                assert cluster.said(name) == ("False", "PoolNotFound")
            elif of in writers:
                assert cluster.said(name) == ("True", "Accepted")
            else:
                assert cluster.said(name) == ("False", "PoolNotServed")
        before = len(cluster.writes)
        await asyncio.sleep(2_000.0)
        assert len(cluster.writes) == before
        assert before <= 4 * (len(history) + 1) * max(1, len(wanted))

    virtually(main)


def test_writers_of_different_groups_do_not_fight() -> None:
    async def main(cluster: Cluster) -> None:
        other = "inference.networking.x-k8s.io"
        cluster.writer().follow_pools(knows("a", wants="a"))
        cluster.writer().follow_pools(
            KnownPools(
                served={pool("a", other)},
                existing={pool("a", other)},
                kinds={(other, "InferencePool")},
            )
        )
        for number in range(5):
            cluster.put(f"one-{number}", pool("a"))
            cluster.put(f"other-{number}", pool("a", other))
            cluster.put(f"none-{number}", pool("b", other))
            cluster.put(f"third-{number}", pool("a", "example.com"))
        await asyncio.sleep(200.0)
        for number in range(5):
            assert cluster.said(f"one-{number}") == ("True", "Accepted")
            assert cluster.said(f"other-{number}") == ("True", "Accepted")
            assert cluster.said(f"none-{number}")[0] == "False"
            assert cluster.said(f"third-{number}") == ("False", "PoolNotServed")
        before = len(cluster.writes)
        assert before <= 40
        await asyncio.sleep(2_000.0)
        assert len(cluster.writes) == before

    virtually(main)


# ---- over the wire ----


@asynccontextmanager
async def following(api: ApiServer, directory: Path, group: str) -> AsyncIterator[StatusWriter]:
    connection = ClusterConnection(api.kubeconfig(directory))
    await connection.open()
    writer = StatusWriter(connection, may_write=lambda: True, rng=random.Random(1), clock=now_s)
    reflector = Reflector(
        connection,
        f"/apis/{group}/v1alpha2/namespaces/default/inferenceobjectives",
        InferenceObjective,
        lambda changes: writer.follow_objectives(group, changes),
    )
    tasks = [asyncio.create_task(each.run()) for each in (reflector, writer)]
    try:
        yield writer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()


@pytest.mark.parametrize("group", [API, "llm-d.ai"])
async def test_the_condition_gets_beside_the_default_one(group: str, tmp_path: Path) -> None:
    pending = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "Pending",
        "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }
    async with ApiServer() as api, following(api, tmp_path, group) as writer:
        found = objective_object("batch", pool="a", group=group)
        api.put({**found, "status": {"conditions": [pending]}})
        writer.follow_pools(knows("a", wants="a"))

        def conditions() -> dict[str, Any]:
            stored = api.get(f"{group}/v1alpha2", "InferenceObjective", "default", "batch")
            assert stored is not None
            return {each["type"]: each for each in stored["status"]["conditions"]}

        await wait_until(lambda: writer.writes["ok"])
        accepted = conditions()["Accepted"]
        assert conditions()["Ready"] == pending
        assert datetime.fromisoformat(accepted.pop("lastTransitionTime"))
        assert accepted == {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "InferencePool default/a is served by this endpoint picker",
            "observedGeneration": 1,
        }
        [asked] = api.asked_for("apply", "inferenceobjectives")
        assert asked.subresource == "status"
        assert asked.query == {"fieldManager": "epp", "force": "true"}
