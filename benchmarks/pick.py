"""Measure what a decision costs: CPU time of reading a request's body, of its pick among so many
endpoints, and of all of it, with the default profile.

It drives the claims reader and the router of a pool as the endpoint picker does, without sockets.
The bodies are chats that grow, as of agents: a system prompt that all share, and turns. README.md
beside this file says more.
"""

import argparse
import gc
import random
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Final

import msgspec
from loadkit.command import positive, progress
from loadkit.figures import Spread, spread
from loadkit.report import cell, machine_line, table

from epp.core.claims import ClaimsOptions, ClaimsReader, RequestClaims
from epp.core.flow import FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions, make_detector
from epp.core.gate import Ending, Route
from epp.core.headers import Headers
from epp.core.pool import EngineLoad
from epp.core.ports import NullRecorder
from epp.core.request import Outcome
from epp.core.resources import Endpoint, PoolResources, PoolSpec
from epp.core.router import Router, RouterAdmission
from epp.core.scheduling import LeastLoaded, Scheduler
from epp.core.scheduling.default import default_scheduler
from epp.core.timers import Timers

_ENDPOINTS: Final = (10, 100, 1_000)
_BODY_KB: Final = (1, 60, 400)
_REQUESTS: Final = 400
_RUNNING_EACH: Final = 4
_CHATS: Final = 50
_MAX_INSPECTED_BYTES: Final = 64 << 20
_SYSTEM: Final = "You are a careful assistant of the engineers of a large company. " * 8
_WANTED_US: Final = {10: 150.0, 1_000: 500.0}
_WANTED_US_PER_100_KB: Final = 500.0
_ENDING: Final = Ending(
    status=200, cause="complete", duration_s=1.0, response_bytes=None, first_byte_s=0.2
)
_HEADERS: Final = Headers([(b":path", b"/v1/chat/completions"), (b"x-request-id", b"1")])


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of one request, in microseconds.

    ``read_us`` is reading the body, hashes of its prompt included; ``decide_us`` all from there to
    the lease and, later, to its end; ``least_us`` the same with the simplest scheduler there is.
    """

    endpoints: int
    body_kb: int
    read_us: Spread
    decide_us: Spread
    least_us: Spread


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    machine: str
    rounds: int
    requests: int
    costs: tuple[Cost, ...]


class _Waiter:
    """Insists on a dispatch at once."""

    __slots__ = ()

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        pass

    def passed(self, destination: str, now: float) -> None:
        raise AssertionError("an inference request was let pass")

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        raise AssertionError(f"a request was refused: {outcome}")

    def evicted(self, retry_after_s: int, now: float) -> None:
        raise AssertionError("a request was evicted")


class _Traffic:
    """A pool of busy endpoints, to which one request comes when one has ended."""

    def __init__(self, scheduler: Scheduler, endpoints: int) -> None:
        self.router = Router(
            scheduler=scheduler,
            options=FlowOptions(),
            make_detector=partial(make_detector, ConcurrencyOptions(max_requests=1_000)),
            timers=Timers(),
            rng=random.Random(1),
            recorder=NullRecorder(),
        )
        members = tuple(
            Endpoint(name=f"default/{n}", address=f"10.0.{n >> 8}.{n & 255}", port=8000)
            for n in range(endpoints)
        )
        self.now = 1_000.0
        self.router.apply(PoolResources(pool=PoolSpec(name="pool"), endpoints=members), self.now)
        for member in members:
            load = EngineLoad(0, _RUNNING_EACH, 0.3, block_tokens=16, cache_blocks=30_000)
            self.router.scraped(member.destination, load, self.now)
        self._most_running = endpoints * _RUNNING_EACH
        self._running: deque[RouterAdmission] = deque()

    def serve(self, claims: RequestClaims) -> None:
        """Dispatch one request, and let the oldest end if there are enough."""
        self.now += 0.000_01
        self._running.append(self.router.admit(claims, _Waiter(), self.now))
        if len(self._running) > self._most_running:
            self.router.finish(self._running.popleft(), _ENDING, self.now)


def _bodies(body_kb: int) -> Iterator[bytes]:
    """Yield bodies of about this size for ever, each of one of some chats, longer by a turn."""
    rng = random.Random(3)
    turn_bytes = max(200, body_kb * 1024 // 40)
    chats: list[list[dict[str, str]]] = [[] for _ in range(_CHATS)]
    while True:
        messages = chats[rng.randrange(_CHATS)]
        size = sum(len(message["content"]) for message in messages)
        if not messages or size > body_kb * 1024:
            messages[:] = [{"role": "system", "content": _SYSTEM}]
            while sum(len(each["content"]) for each in messages) < body_kb * 1024 * 0.9:
                messages.append({"role": "user", "content": _text(rng, turn_bytes)})
        messages.append({"role": "user", "content": _text(rng, turn_bytes // 4)})
        yield msgspec.json.encode({"model": "model", "messages": messages, "max_tokens": 200})


def _text(rng: random.Random, size: int) -> str:
    return rng.randbytes(size // 2).hex().replace("0", " ")


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
        description="Measure what reading a request and picking its endpoint cost. Takes about a"
        " minute.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=positive, default=3, metavar="N")
    parser.add_argument("--requests", type=positive, default=_REQUESTS, metavar="N", help="each")
    parser.add_argument("--endpoints", type=positive, nargs="+", default=_ENDPOINTS, metavar="N")
    parser.add_argument("--body-kb", type=positive, nargs="+", default=_BODY_KB, metavar="KB")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document with all figures"
    )
    return parser


def _measure(arguments: argparse.Namespace) -> Document:
    machine = machine_line()
    costs = tuple(
        _cost(endpoints, body_kb, arguments.rounds, arguments.requests)
        for endpoints in arguments.endpoints
        for body_kb in arguments.body_kb
    )
    return Document(
        machine=machine, rounds=arguments.rounds, requests=arguments.requests, costs=costs
    )


def _cost(endpoints: int, body_kb: int, rounds: int, requests: int) -> Cost:
    progress(f"{endpoints} endpoints, bodies of {body_kb} KB")
    reader = ClaimsReader(ClaimsOptions())
    default, least = _Traffic(default_scheduler(), endpoints), _Traffic(LeastLoaded(), endpoints)
    bodies = _bodies(body_kb)
    for body in (next(bodies) for _ in range(endpoints * _RUNNING_EACH)):
        for traffic in (default, least):
            traffic.serve(_read(reader, body))
    figures = []
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        some = [next(bodies) for _ in range(requests)]
        start_ns = time.thread_time_ns()
        claims = [_read(reader, body) for body in some]
        spent_ns = [time.thread_time_ns() - start_ns]
        for traffic in (default, least):
            start_ns = time.thread_time_ns()
            for each in claims:
                traffic.serve(each)
            spent_ns.append(time.thread_time_ns() - start_ns)
        figures.append([each / requests / 1_000 for each in spent_ns])
    gc.unfreeze()
    read, decide, simplest = (spread(each) for each in zip(*figures, strict=True))
    return Cost(
        endpoints=endpoints, body_kb=body_kb, read_us=read, decide_us=decide, least_us=simplest
    )


def _read(reader: ClaimsReader, body: bytes) -> RequestClaims:
    return reader.read(_HEADERS, body, None, max_inspected_bytes=_MAX_INSPECTED_BYTES)


def _render(document: Document) -> str:
    rows: list[tuple[str, ...]] = [
        ("endpoints", "body, KB", "read, µs", "decide, µs", "least loaded, µs", "all, µs", "wanted")
    ]
    rows += [
        (
            f"{each.endpoints}",
            f"{each.body_kb}",
            cell(each.read_us, 1),
            cell(each.decide_us, 1),
            cell(each.least_us, 1),
            f"{each.read_us.median + each.decide_us.median:.0f}",
            _wanted(each),
        )
        for each in document.costs
    ]
    return "\n".join([document.machine, "", *table(rows)])


def _wanted(cost: Cost) -> str:
    base = _WANTED_US.get(cost.endpoints)
    if base is None:
        return ""
    return f"{base + _WANTED_US_PER_100_KB * cost.body_kb / 100:.0f}"


if __name__ == "__main__":
    sys.exit(main())
