"""Measure what becomes of traffic when the API server is away for minutes, and how its return goes.

Requests are sent at a rate all the while, through Envoy with the EPP. Pods change while nobody can
hear of it. README.md beside this file says more.
"""

import argparse
import asyncio
import re
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

import aiohttp
import msgspec
from loadkit.client import Task
from loadkit.cluster import Cluster, start_cluster
from loadkit.command import positive, progress, run, watched
from loadkit.measure import LoadFailedError
from loadkit.pace import paced
from loadkit.report import Machine, describe_machine, machine_lines, table
from loadkit.scenarios import ANSWERS, SCENARIOS
from loadkit.stack import OtherWork, cpu_s

from epp.gateway.envoy_binary import find_envoy
from epp.gateway.processes import Supervisor
from tests.apiserver import ApiServer, Recorded, pod
from tests.apiserver.churn import address_of

_AGE: Final = re.compile(
    rb"^llm_d_epp_kubernetes_last_contact_age_seconds\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE
)
_READY: Final = re.compile(rb"^llm_d_epp_ready_endpoints\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
_PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.05


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Requests during a part of the run; ``staleness_s`` is how old the EPP's knowledge was at its
    end, at the oldest."""

    name: str
    duration_s: float
    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    epp_cpu_share: float
    staleness_s: float


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``caught_up_s`` is from the API server's return until the EPP knew of all that had
    changed; ``asked`` what was asked of the API server in the phase after, by verb and status."""

    machine: Machine
    pods: int
    changed: int
    requests_per_s: int
    other_work_share: float
    phases: list[Phase]
    caught_up_s: float
    asked: dict[str, int]


def main() -> int:
    """Run the benchmark and return the exit code: 1 if a request failed, 2 for a wrong usage."""
    parser = argparse.ArgumentParser(
        description="Measure an outage of the API server. Takes about seven minutes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--pods", type=positive, default=500, metavar="N", help="pods of the pool")
    add("--changed", type=positive, default=100, metavar="N", help="pods that go meanwhile")
    add("--rate", type=positive, default=100, metavar="N", help="requests a second")
    add("--outage", type=float, default=300.0, metavar="SECONDS", help="how long it is away")
    add("--beside", type=float, default=30.0, metavar="SECONDS", help="time before and after")
    add("--envoy", metavar="FILE", help="Envoy's binary, instead of the package's")
    add("--json", action="store_true", help="print all figures as JSON")
    arguments = parser.parse_args()
    return run("outage.py", _measure(arguments), _render, as_json=arguments.json)


async def _measure(arguments: argparse.Namespace) -> Document:
    envoy = find_envoy(arguments.envoy)
    machine = describe_machine(envoy)
    addresses = [address_of(slot) for slot in range(arguments.pods)]
    with TemporaryDirectory(prefix="epp-benchmark-") as path:
        async with (
            Supervisor(Path(path)) as supervisor,
            aiohttp.ClientSession() as session,
            ApiServer() as api,
        ):
            cluster = await start_cluster(supervisor, Path(path), envoy, addresses, (), api=api)
            measuring = _Measuring(cluster, session, api, addresses, arguments)
            return await watched(supervisor, measuring.document(machine))


class _Measuring:
    def __init__(
        self,
        cluster: Cluster,
        session: aiohttp.ClientSession,
        api: ApiServer,
        addresses: list[str],
        arguments: argparse.Namespace,
    ) -> None:
        self._cluster = cluster
        self._session = session
        self._api = api
        self._addresses = addresses
        self._arguments = arguments

    async def document(self, machine: Machine) -> Document:
        """Measure all of it."""
        arguments, api = self._arguments, self._api
        others = OtherWork(self._cluster.pids)
        phases = [await self._phase("before", arguments.beside)]
        await api.stop()
        for number in range(arguments.changed):
            api.put(pod(f"model-{number}", self._addresses[number], ready=False))
        phases.append(await self._phase("away", arguments.outage))
        asked = len(api.requests)
        await api.start()
        returned_s = monotonic()
        knowing = asyncio.create_task(self._until_known(arguments.pods - arguments.changed))
        phases.append(await self._phase("after", arguments.beside))
        return Document(
            machine=machine,
            pods=arguments.pods,
            changed=arguments.changed,
            requests_per_s=arguments.rate,
            other_work_share=others.share(),
            phases=phases,
            caught_up_s=await knowing - returned_s,
            asked=dict(Counter(map(_kind, api.requests[asked:]))),
        )

    async def _phase(self, name: str, duration_s: float) -> Phase:
        progress(f"{name}: {duration_s:g} s")
        cluster, scenario = self._cluster, SCENARIOS[0]
        task = Task(
            port=cluster.on_port,
            request=scenario.request(),
            body=ANSWERS[scenario.answer].body,
            is_picked=True,
        )
        before = cpu_s(cluster.epp_pid)
        window = await paced(task, rate_per_s=self._arguments.rate, duration_s=duration_s)
        used_s = cpu_s(cluster.epp_pid) - before
        if window.failed:
            raise LoadFailedError(f"{name}: {window.failed} requests failed: {window.failures}")
        taken_ms = sorted(latency_s * 1e3 for latency_s in window.latencies_s)
        ages_s = [float(age) for age in _AGE.findall(await self._page())]
        return Phase(
            name=name,
            duration_s=duration_s,
            requests=len(taken_ms),
            failed=window.failed,
            p50_ms=taken_ms[len(taken_ms) // 2],
            p99_ms=taken_ms[len(taken_ms) * 99 // 100],
            epp_cpu_share=used_s / window.elapsed_s,
            staleness_s=max(ages_s),
        )

    async def _until_known(self, ready: int) -> float:
        """Return when the EPP had so many endpoints, monotonic."""
        give_up_s = monotonic() + _PATIENCE_S
        while monotonic() < give_up_s:
            found = _READY.search(await self._page())
            if found is not None and float(found[1]) == ready:
                return monotonic()
            await asyncio.sleep(_POLL_S)
        raise LoadFailedError(f"what had changed was not known after {_PATIENCE_S:g} s")

    async def _page(self) -> bytes:
        url = f"http://127.0.0.1:{self._cluster.metrics_port}/metrics"
        async with self._session.get(url) as response:
            return await response.read()


def _kind(request: Recorded) -> str:
    # One object is asked for to see whether versions have gone back; nothing is listed for that.
    verb = "look" if request.query.get("limit") == "1" else request.verb
    return f"{verb} {request.status}"


def _render(document: Document) -> str:
    head = ("API server", "s", "requests", "failed", "p50, ms", "p99, ms", "CPU", "staleness, s")
    rows = [
        (
            each.name,
            f"{each.duration_s:g}",
            f"{each.requests}",
            f"{each.failed}",
            f"{each.p50_ms:.2f}",
            f"{each.p99_ms:.2f}",
            f"{each.epp_cpu_share:.3f}",
            f"{each.staleness_s:.0f}",
        )
        for each in document.phases
    ]
    asked = ", ".join(f"{kind}: {count}" for kind, count in sorted(document.asked.items()))
    return "\n".join(
        [
            *machine_lines(document.machine, document.other_work_share),
            f"{document.pods} pods, {document.changed} of them gone meanwhile,"
            f" {document.requests_per_s} requests/s",
            "",
            *table([head, *rows]),
            "",
            f"All that had changed was known {document.caught_up_s:.1f} s after the return",
            f"Asked of the API server since then: {asked or 'nothing'}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
