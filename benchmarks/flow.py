"""Measure what the queue costs: CPU time of an arrival, an end and a dispatch, by how many requests
and flows wait, memory per waiting request, a burst, and what idling costs.

It drives the router of a pool as the endpoint picker does, without sockets. README.md beside this
file says more.
"""

import argparse
import asyncio
import gc
import random
import sys
import time
import tracemalloc
from functools import partial
from typing import Final

import msgspec
from loadkit.command import positive, progress
from loadkit.figures import Spread, spread
from loadkit.report import cell, machine_line, table

from epp.clock import Alarm
from epp.core.claims import RequestClaims
from epp.core.flow import BandOptions, FlowLimits, FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions, make_detector
from epp.core.gate import Ending, Route
from epp.core.ports import NullRecorder
from epp.core.request import Outcome
from epp.core.resources import Endpoint, PoolResources, PoolSpec
from epp.core.router import Router, RouterAdmission
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers

_QUEUED: Final = (10, 1_000, 100_000)
_FLOWS: Final = (1, 100, 10_000)
_STEPS: Final = 4_000
_BATCH: Final = 8
_ENDPOINTS: Final = 4
_SLOTS: Final = 8
"""Of each endpoint: 32 requests run."""

_WANTED_US: Final = 30.0
_WANTED_BYTES: Final = 3_072
_WANTED_BURST_S: Final = 0.5
_REMEMBERED: Final = 10_000
_WITHOUT_END: Final = 1 << 40
_ENDING: Final = Ending(
    status=200, cause="complete", duration_s=1.0, response_bytes=None, output_tokens=180
)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of each step with so many requests of so many flows waiting, in microseconds, and
    what each of them takes in memory, in bytes."""

    queued: int
    flows: int
    enqueue_us: Spread
    end_us: Spread
    dispatch_us: Spread
    bytes_each: float


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``burst_s`` is how long it takes to dispatch ``burst`` requests at one event;
    ``idle_cpu_ms`` the CPU time of a second in which as many wait and nothing happens."""

    machine: str
    rounds: int
    steps: int
    costs: tuple[Cost, ...]
    burst: int
    burst_s: Spread
    idle_cpu_ms: float


class _Waiter:
    """Keeps what it was told."""

    __slots__ = ("admission", "running")

    def __init__(self, running: "list[_Waiter]") -> None:
        self.running = running
        self.admission: RouterAdmission | None = None

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        self.running.append(self)

    def passed(self, destination: str, now: float) -> None:
        raise AssertionError("an inference request was let pass")

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        raise AssertionError(f"a request was refused: {outcome}")

    def evicted(self, retry_after_s: int, now: float) -> None:
        raise AssertionError("a request was evicted")


class _Queue:
    """A pool whose endpoints are full, with requests that wait."""

    def __init__(self, *, endpoints: int = _ENDPOINTS, slots: int = _SLOTS) -> None:
        limits = FlowLimits(
            max_requests=_WITHOUT_END,
            max_bytes=_WITHOUT_END,
            wait_limit_s=86_400.0,
            no_endpoint_wait_limit_s=86_400.0,
            reject_hopeless=True,
        )
        self.timers = Timers()
        self.router = Router(
            scheduler=LeastLoaded(),
            options=FlowOptions(
                limits=limits,
                band=BandOptions(max_requests=_WITHOUT_END, max_bytes=_WITHOUT_END),
                max_flows=2 * max(_FLOWS),
            ),
            make_detector=partial(make_detector, ConcurrencyOptions(max_requests=slots)),
            timers=self.timers,
            rng=random.Random(1),
            recorder=NullRecorder(),
        )
        self.endpoints = [
            Endpoint(name=f"default/{number}", address=f"10.0.0.{number}", port=8000)
            for number in range(1, endpoints + 1)
        ]
        self.running: list[_Waiter] = []
        self.now = 1_000.0
        self._slots = slots
        self._rng = random.Random(2)
        self._arrived = 0

    def open(self) -> None:
        """Let the endpoints join."""
        resources = PoolResources(pool=PoolSpec(name="pool"), endpoints=tuple(self.endpoints))
        self.router.apply(resources, self.now)

    def claims(self, count: int, flows: int) -> list[RequestClaims]:
        """Return what requests of so many flows in turn say of themselves."""
        made = []
        for _ in range(count):
            self._arrived += 1
            claims = RequestClaims(
                id=f"request-{self._arrived}",
                fairness_id=f"tenant-{self._arrived % flows}",
                model="model",
                body_bytes=2_000,
                prompt_tokens=self._rng.randint(10, 4_000),
                max_output_tokens=1_000,
            )
            made.append(claims)
        return made

    def enqueue(self, claims: list[RequestClaims]) -> int:
        """Let requests arrive; return the CPU time that it took, in nanoseconds."""
        waiters = [_Waiter(self.running) for _ in claims]
        admit, now = self.router.admit, self.now
        start_ns = time.thread_time_ns()
        for each, waiter in zip(claims, waiters, strict=True):
            waiter.admission = admit(each, waiter, now)
        return time.thread_time_ns() - start_ns

    def end(self, count: int) -> int:
        """Let as many end of those that run, with no capacity for others."""
        self._set_limits(0)
        ended, self.running[:count] = self.running[:count], []
        self.now += 0.001 * count
        finish, now = self.router.finish, self.now
        start_ns = time.thread_time_ns()
        for waiter in ended:
            finish(waiter.admission, _ENDING, now)  # type: ignore[arg-type]
        spent_ns = time.thread_time_ns() - start_ns
        self._set_limits(self._slots)
        return spent_ns

    def dispatch(self) -> int:
        """Let all go that can."""
        start_ns = time.thread_time_ns()
        self.router.flow.pump(self.now)
        return time.thread_time_ns() - start_ns

    def _set_limits(self, limit: int) -> None:
        for slot in self.router.pool.active.nonzero()[0].tolist():
            self.router.pool.set_limit(slot, limit, "inflight")


def main() -> int:
    """Run the benchmark and return the exit code."""
    arguments = _parser().parse_args()
    document = _measure(arguments)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        print(_render(document))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure what the queue costs. Takes about a minute.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=positive, default=3, metavar="N")
    parser.add_argument("--steps", type=positive, default=_STEPS, metavar="N", help="of a round")
    parser.add_argument(
        "--queued", type=positive, nargs="+", default=_QUEUED, metavar="N", help="requests waiting"
    )
    parser.add_argument("--flows", type=positive, nargs="+", default=_FLOWS, metavar="N")
    parser.add_argument("--burst", type=positive, default=10_000, metavar="N")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document with all figures"
    )
    return parser


def _measure(arguments: argparse.Namespace) -> Document:
    machine = machine_line()
    costs = tuple(
        _cost(queued, flows, arguments.rounds, arguments.steps)
        for queued in arguments.queued
        for flows in arguments.flows
    )
    return Document(
        machine=machine,
        rounds=arguments.rounds,
        steps=arguments.steps,
        costs=costs,
        burst=arguments.burst,
        burst_s=spread([_burst_s(arguments.burst) for _ in range(arguments.rounds)]),
        idle_cpu_ms=asyncio.run(_idle_cpu_ms(arguments.burst)),
    )


def _cost(queued: int, flows: int, rounds: int, steps: int) -> Cost:
    progress(f"{queued} waiting requests of {flows} flows")
    queue = _Queue()
    queue.open()
    queue.enqueue(queue.claims(_ENDPOINTS * _SLOTS + queued, flows))
    figures = []
    gc.collect()
    gc.freeze()
    for _ in range(rounds + 1):  # the first warms up
        spent = [0, 0, 0]
        for _ in range(max(1, steps // _BATCH)):
            spent[0] += queue.enqueue(queue.claims(_BATCH, flows))
            spent[1] += queue.end(_BATCH)
            spent[2] += queue.dispatch()
        count = max(1, steps // _BATCH) * _BATCH
        figures.append([each / count / 1_000 for each in spent])
    gc.unfreeze()
    enqueue, end, dispatch = (spread(each) for each in zip(*figures[1:], strict=True))
    return Cost(
        queued=queued,
        flows=flows,
        enqueue_us=enqueue,
        end_us=end,
        dispatch_us=dispatch,
        bytes_each=_bytes_each(queued, flows),
    )


def _bytes_each(queued: int, flows: int) -> float:
    """Return the memory that a waiting request takes, what it says of itself and its body left
    out, since those belong to its exchange."""
    queued = min(queued, _REMEMBERED)
    queue = _Queue()
    queue.open()
    queue.enqueue(queue.claims(_ENDPOINTS * _SLOTS, flows))
    claims = queue.claims(queued, flows)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    queue.enqueue(claims)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / queued


def _burst_s(count: int) -> float:
    """Return how long it takes to dispatch as many requests at one event: the pool was empty, and
    endpoints for all of them join."""
    progress(f"a burst of {count}")
    queue = _Queue(endpoints=100, slots=-(-count // 100))
    queue.enqueue(queue.claims(count, 100))
    start_ns = time.thread_time_ns()
    queue.open()
    spent_ns = time.thread_time_ns() - start_ns
    if len(queue.running) != count:
        raise AssertionError(f"only {len(queue.running)} of {count} were dispatched")
    return spent_ns / 1e9


async def _idle_cpu_ms(count: int) -> float:
    """Return the CPU time of a second in which as many wait and nothing happens."""
    progress(f"a second in which {count} wait")
    queue = _Queue()
    queue.now = time.monotonic()
    queue.open()
    queue.enqueue(queue.claims(_ENDPOINTS * _SLOTS + count, 100))
    alarm = Alarm(queue.timers)
    alarm.start()
    start_ns = time.process_time_ns()
    await asyncio.sleep(1.0)
    spent_ns = time.process_time_ns() - start_ns
    alarm.stop()
    return spent_ns / 1e6


def _render(document: Document) -> str:
    rows: list[tuple[str, ...]] = [
        ("waiting", "flows", "arrival, µs", "end, µs", "dispatch, µs", "bytes each")
    ]
    rows += [
        (
            f"{each.queued}",
            f"{each.flows}",
            cell(each.enqueue_us, 1),
            cell(each.end_us, 1),
            cell(each.dispatch_us, 1),
            f"{each.bytes_each:.0f}",
        )
        for each in document.costs
    ]
    steps = [s for c in document.costs for s in (c.enqueue_us, c.end_us, c.dispatch_us)]
    slowest = max(step.median for step in steps)
    largest = max(each.bytes_each for each in document.costs)
    burst = document.burst_s
    return "\n".join(
        [
            f"* {document.machine}",
            f"* {document.rounds} rounds of {document.steps} steps; median (smallest to largest)",
            "",
            *table(rows),
            "",
            f"* The slowest step takes {slowest:.1f} µs (wanted: {_WANTED_US:.0f} at most), a"
            f" waiting request {largest:.0f} bytes (wanted: {_WANTED_BYTES} at most).",
            f"* A burst of {document.burst} at one event is dispatched in {burst.median:.2f} s"
            f" ({burst.min:.2f} to {burst.max:.2f}; wanted: {_WANTED_BURST_S} at most).",
            f"* A second in which {document.burst} wait and nothing happens costs"
            f" {document.idle_cpu_ms:.1f} ms of CPU.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
