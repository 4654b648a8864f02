"""Measure what the events of a large cluster cost: traffic goes on while pods come, go and change.

Requests are sent at a rate, through Envoy with and without the EPP, with and without events, in
turns within one run, so that whatever else the machine does meets all four. README.md beside this
file says how.
"""

import argparse
import asyncio
import gc
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import aiohttp
import msgspec
from loadkit.client import Task
from loadkit.cluster import PROBE, Cluster, start_cluster
from loadkit.command import add_amount, positive, progress, run, watched
from loadkit.figures import Spread, spread
from loadkit.measure import LoadFailedError
from loadkit.pace import paced
from loadkit.report import Machine, cell, describe_machine, machine_lines, table
from loadkit.scenarios import ANSWERS, SCENARIOS
from loadkit.stack import OtherWork, cpu_s

from epp.gateway.envoy_binary import find_envoy
from epp.gateway.processes import Supervisor
from tests.apiserver.churn import address_of
from tests.apiserver.objects import pod

_PROBES: Final = 20
_PROBE_EVERY_S: Final = 0.005
_PATIENCE_S: Final = 20.0
_EVENTS: Final = re.compile(rb'kubernetes_events_total\{[^}]*kind="Pod"[^}]*\} ([0-9.e+]+)', re.I)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Requests at a rate while there were so many events a second, over all rounds: ``added`` is
    with the EPP minus without it, round by round."""

    events_per_s: float
    requests: int
    latency_p50_ms: Spread
    latency_p99_ms: Spread
    added_p50_ms: Spread
    added_p99_ms: Spread
    epp_cpu_share: Spread


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``event_cpu_us`` is the EPP's CPU time for one event while there is no traffic.

    ``staleness_ms`` is how long after its change at the API server a pod was picked no more, or
    picked again, with events going on; its ``max`` is the slowest of all. ``missed_events`` are
    those that the EPP had not counted in the end.
    """

    machine: Machine
    pods: int
    requests_per_s: int
    rounds: int
    duration_s: float
    other_work_share: float
    quiet: Case
    busy: Case
    p99_ratio: float
    event_cpu_us: Spread
    idle_cpu_share: float
    staleness_ms: Spread
    memory_before_mib: float
    memory_after_mib: float
    events: int
    missed_events: int


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    p50_ms: float
    p99_ms: float
    requests: int
    epp_cpu_share: float


def main() -> int:
    """Run the benchmark and return the exit code: 1 if something failed, 2 for a wrong usage."""
    parser = argparse.ArgumentParser(
        description="Measure what the events of a cluster do to requests. Takes about 150 s.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--pods", type=positive, default=5000, metavar="N", help="pods of the pool")
    add("--events", type=positive, default=200, metavar="N", help="events of pods a second")
    add("--rate", type=positive, default=300, metavar="N", help="requests a second")
    add("--probes", type=positive, default=_PROBES, metavar="N", help="changes that are timed")
    add("--serve", default="", metavar="ARGUMENTS", help="more arguments for epp serve")
    add_amount(parser, duration_s=5.0, rounds=5, rounds_help="rounds, each of four runs")
    arguments = parser.parse_args()
    return run("watch.py", _measure(arguments), _render, as_json=arguments.json)


async def _measure(arguments: argparse.Namespace) -> Document:
    envoy = find_envoy(arguments.envoy)
    machine = describe_machine(envoy)
    addresses = [address_of(slot) for slot in range(arguments.pods)]
    with TemporaryDirectory(prefix="epp-benchmark-") as path:
        async with Supervisor(Path(path)) as supervisor, aiohttp.ClientSession() as session:
            more = arguments.serve.split()
            cluster = await start_cluster(supervisor, Path(path), envoy, addresses, more)
            for process in supervisor.processes:
                progress(f"started {process.name} (pid {process.pid})")
            gc.collect()
            gc.freeze()
            measuring = _Measuring(cluster, session, arguments)
            return await watched(supervisor, measuring.document(machine))


class _Measuring:
    def __init__(
        self, cluster: Cluster, session: aiohttp.ClientSession, arguments: argparse.Namespace
    ) -> None:
        self._cluster = cluster
        self._session = session
        self._arguments = arguments

    async def document(self, machine: Machine) -> Document:
        """Measure all of it."""
        arguments = self._arguments
        await self._set_probe(is_ready=True)
        await asyncio.sleep(arguments.duration)
        memory_before = _memory_mib(self._cluster.epp_pid)
        events_before = await self._counted_events()
        others = OtherWork(self._cluster.pids)
        idle_share, event_cpu_us = await self._event_cost()
        runs = await self._all_runs()
        progress("staleness")
        await self._churn(arguments.events)
        staleness_ms = [
            await self._staleness_ms(is_ready=bool(number % 2))
            for number in range(arguments.probes)
        ]
        made = await self._churn(0)
        await asyncio.sleep(arguments.duration)
        counted = await self._counted_events() - events_before
        quiet = _case(0, runs[False, False], runs[False, True])
        busy = _case(arguments.events, runs[True, False], runs[True, True])
        return Document(
            machine=machine,
            pods=arguments.pods,
            requests_per_s=arguments.rate,
            rounds=arguments.rounds,
            duration_s=arguments.duration,
            other_work_share=others.share(),
            quiet=quiet,
            busy=busy,
            p99_ratio=busy.added_p99_ms.median / max(quiet.added_p99_ms.median, 1e-6),
            event_cpu_us=event_cpu_us,
            idle_cpu_share=idle_share,
            staleness_ms=spread(staleness_ms),
            memory_before_mib=memory_before,
            memory_after_mib=_memory_mib(self._cluster.epp_pid),
            events=made,
            missed_events=made + len(staleness_ms) - counted,
        )

    async def _all_runs(self) -> dict[tuple[bool, bool], list[_Run]]:
        """Return the runs of all rounds, by whether there were events and whether an EPP."""
        arguments = self._arguments
        runs: dict[tuple[bool, bool], list[_Run]] = {}
        for number in range(arguments.rounds):
            for with_events in (False, True):
                progress(f"round {number + 1} of {arguments.rounds}, events {with_events}")
                await self._churn(arguments.events if with_events else 0)
                for with_epp in (False, True):
                    found = await self._load(with_epp, seed=number)
                    runs.setdefault((with_events, with_epp), []).append(found)
        return runs

    async def _event_cost(self) -> tuple[float, Spread]:
        """Return the share of a core that the EPP takes while nothing happens, and the CPU time of
        an event beyond that, in microseconds."""
        arguments, pid = self._arguments, self._cluster.epp_pid
        began_s, before = perf_counter(), cpu_s(pid)
        await asyncio.sleep(arguments.duration)
        idle_share = (cpu_s(pid) - before) / (perf_counter() - began_s)
        costs = []
        progress("events without requests")
        for _ in range(arguments.rounds):
            first = await self._churn(arguments.events)
            began_s, before = perf_counter(), cpu_s(pid)
            await asyncio.sleep(arguments.duration)
            used_s = cpu_s(pid) - before - idle_share * (perf_counter() - began_s)
            made = await self._churn(0) - first
            costs.append(max(0.0, used_s) / max(made, 1) * 1e6)
        return idle_share, spread(costs)

    async def _load(self, with_epp: bool, *, seed: int) -> _Run:
        """Send requests, and return what they took."""
        arguments, cluster = self._arguments, self._cluster
        scenario = SCENARIOS[0]
        task = Task(
            port=cluster.on_port if with_epp else cluster.off_port,
            request=scenario.request(),
            body=ANSWERS[scenario.answer].body,
            is_picked=with_epp,
        )
        before = cpu_s(cluster.epp_pid)
        window = await paced(
            task, rate_per_s=arguments.rate, duration_s=arguments.duration, seed=seed
        )
        used_s = cpu_s(cluster.epp_pid) - before
        if window.failed:
            raise LoadFailedError(f"{window.failed} requests failed: {window.failures}")
        taken_ms = sorted(latency_s * 1e3 for latency_s in window.latencies_s)
        return _Run(
            p50_ms=_percentile(taken_ms, 0.50),
            p99_ms=_percentile(taken_ms, 0.99),
            requests=len(taken_ms),
            epp_cpu_share=used_s / window.elapsed_s,
        )

    async def _churn(self, rate_per_s: float) -> int:
        """Have so many events a second; return how many there have been."""
        told = await self._cluster.control(self._session, "churn", rate_per_s=rate_per_s)
        return int(told["events"])

    async def _staleness_ms(self, *, is_ready: bool) -> float:
        """Change the pod ``probe``; return how long it takes until requests for it tell so."""
        began_s = perf_counter()
        await self._set_probe(is_ready=is_ready)
        return (await self._probe_answers(200 if is_ready else 503) - began_s) * 1e3

    async def _set_probe(self, *, is_ready: bool) -> None:
        item = pod("probe", PROBE, ready=is_ready)
        await self._cluster.control(self._session, "put", item=item)

    async def _probe_answers(self, status: int) -> float:
        """Wait until a request that is for the probe alone is answered so; return when."""
        url = f"http://127.0.0.1:{self._cluster.probe_port}/v1/chat/completions"
        head, _, body = SCENARIOS[0].request().partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")[2:]
        headers = dict(line.split(": ", 1) for line in lines if line)
        give_up_s = perf_counter() + _PATIENCE_S
        while perf_counter() < give_up_s:
            async with self._session.post(url, data=body, headers=headers) as response:
                if response.status == status:
                    return perf_counter()
            await asyncio.sleep(_PROBE_EVERY_S)
        raise LoadFailedError(f"a change of a pod was not known after {_PATIENCE_S:g} s")

    async def _counted_events(self) -> int:
        url = f"http://127.0.0.1:{self._cluster.metrics_port}/metrics"
        async with self._session.get(url) as response:
            found = _EVENTS.search(await response.read())
        return int(float(found[1])) if found else 0


def _case(events_per_s: float, off: Sequence[_Run], on: Sequence[_Run]) -> Case:
    pairs = list(zip(off, on, strict=True))
    return Case(
        events_per_s=events_per_s,
        requests=sum(each.requests for each in on),
        latency_p50_ms=spread([each.p50_ms for each in on]),
        latency_p99_ms=spread([each.p99_ms for each in on]),
        added_p50_ms=spread([with_it.p50_ms - without.p50_ms for without, with_it in pairs]),
        added_p99_ms=spread([with_it.p99_ms - without.p99_ms for without, with_it in pairs]),
        epp_cpu_share=spread([each.epp_cpu_share for each in on]),
    )


def _percentile(ascending: Sequence[float], share: float) -> float:
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _memory_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def _render(document: Document) -> str:
    head = (
        "events/s",
        "requests",
        "added p50, ms",
        "added p99, ms",
        "p99 in all, ms",
        "EPP, share of a core",
    )
    rows = [
        (
            f"{case.events_per_s:g}",
            f"{case.requests}",
            cell(case.added_p50_ms, 2),
            cell(case.added_p99_ms, 2),
            cell(case.latency_p99_ms, 2),
            cell(case.epp_cpu_share, 3),
        )
        for case in (document.quiet, document.busy)
    ]
    stale = document.staleness_ms
    return "\n".join(
        [
            *machine_lines(document.machine, document.other_work_share),
            f"{document.pods} pods, {document.requests_per_s} requests/s",
            "",
            *table([head, *rows]),
            "",
            f"Added p99 with events, in parts of that without: {document.p99_ratio:.2f}",
            f"CPU time of an event: {cell(document.event_cpu_us, 0)} µs; of an EPP that is idle:"
            f" {document.idle_cpu_share:.2%} of a core",
            f"A change of a pod is known after {stale.median:.0f} ms (at most {stale.max:.0f})",
            f"Memory of the EPP: {document.memory_before_mib:.0f} MiB before,"
            f" {document.memory_after_mib:.0f} MiB after {document.events} events,"
            f" {document.missed_events} of them missed",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
