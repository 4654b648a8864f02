"""Electors and the emulated API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from epp.discovery.kubernetes.api.connection import ClusterConnection
from tests.apiserver import ApiServer
from tests.apiserver import lease as lease_object
from tests.discovery.kubernetes.election.electors import NAME, START, elector
from tests.discovery.support import wait_until

LEASES = ("coordination.k8s.io/v1", "Lease", "default")


@asynccontextmanager
async def connected(api: ApiServer, directory: Path) -> AsyncIterator[ClusterConnection]:
    connection = ClusterConnection(api.kubeconfig(directory))
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_lease_is_created_renewed_released_and_taken_over(tmp_path: Path) -> None:
    times = (START + timedelta(milliseconds=number) for number in count())
    async with ApiServer() as api, connected(api, tmp_path) as connection:
        first = elector(connection, "first", renew_interval_s=0.05, utc_now=lambda: next(times))
        running = asyncio.create_task(first.run())
        await wait_until(lambda: first.may_write)
        await wait_until(lambda: len(api.asked_for("update", "leases")) > 2)
        lease = api.get(*LEASES, NAME)
        assert lease is not None
        assert lease["spec"] == {
            "holderIdentity": "first",
            "leaseDurationSeconds": 8,
            "acquireTime": "2026-01-31T12:00:00.000000Z",
            "renewTime": lease["spec"]["renewTime"],
            "leaseTransitions": 0,
        }
        assert lease["spec"]["renewTime"] > lease["spec"]["acquireTime"]

        second = elector(connection, "second")
        running_too = asyncio.create_task(second.run())
        await wait_until(lambda: second.holder == "first")
        await wait_until(lambda: len(api.open_watches) == 2)
        assert [w.query["fieldSelector"] for w in api.open_watches] == [f"metadata.name={NAME}"] * 2
        await first.release()
        await running
        await wait_until(lambda: second.may_write)
        assert second.transitions == 1
        running_too.cancel()
        await asyncio.gather(running_too, return_exceptions=True)


@pytest.mark.parametrize("refused", ["", "list"])
async def test_what_others_have_written_on_the_lease_stays(refused: str, tmp_path: Path) -> None:
    async with ApiServer() as api, connected(api, tmp_path) as connection:
        if refused:
            api.fail(403, times=None, verb=refused)
        found = lease_object(NAME, "", "2026-01-01T00:00:00.000000Z", transitions=5)
        found["metadata"] |= {
            "labels": {"app": "epp"},
            "annotations": {"note": "mine"},
            "finalizers": ["example.com/keep"],
        }
        api.put(found)
        only = elector(connection, "only")
        running = asyncio.create_task(only.run())
        await wait_until(lambda: only.may_write)
        lease = api.get(*LEASES, NAME)
        assert lease is not None
        for field in ("labels", "annotations", "finalizers"):
            assert lease["metadata"][field] == found["metadata"][field]
        assert lease["spec"]["leaseTransitions"] == 6
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_of_many_that_start_at_once_one_leads(tmp_path: Path) -> None:
    async with ApiServer() as api, connected(api, tmp_path) as connection:
        many = [elector(connection, f"epp-{number}") for number in range(5)]
        running = [asyncio.create_task(each.run()) for each in many]
        await wait_until(lambda: all(each.holder for each in many))
        [leader] = [each for each in many if each.is_leader]
        assert leader.may_write
        await leader.release()
        await wait_until(lambda: any(each.may_write for each in many))
        assert sum(each.is_leader for each in many) == 1
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
