"""Measure what several processes bring: `epp serve` and `epp serve --workers N` in turns.

Throughput is measured with calls that need no Envoy, which would use up the machine before any EPP
is busy; what a request costs is measured so, and behind a real Envoy too. README.md beside this
file says how.
"""

import argparse
import gc
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Final

import msgspec
from loadkit.calls import Calls
from loadkit.client import Load
from loadkit.command import add_amount, positive, progress, run, watched
from loadkit.figures import Spread, spread
from loadkit.measure import Amount, load_on, run_once, warm_up
from loadkit.report import Machine, cell, describe_machine, machine_lines, table
from loadkit.scenarios import SCENARIOS, GatewayKind, Scenario
from loadkit.stack import Gateway, OtherWork, cpu_by_process_s, start_gateways

from epp.errors import UsageError
from epp.gateway.envoy_binary import find_envoy
from epp.gateway.processes import Supervisor

_WORKERS: Final = 2
_ROUNDS: Final = 5
_DURATION_S: Final = 1.0
_CALLS: Final = 256
_CONNECTIONS: Final = 16
_BODY_BYTES: Final = 200
_CHUNKS: Final = 50
_SMALL: Final = next(each for each in SCENARIOS if each.name == "small")
_ENVOY_CLIENTS: Final = 64
_WANTED_RATIO: Final = 1.7


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run took. CPU times are in microseconds per request: ``core_us`` is the core's, 0
    where there is one process, ``rest_us`` that of all others, ``load_us`` that of the load."""

    requests: int
    requests_per_s: float
    core_us: float
    rest_us: float
    load_us: float

    @property
    def epp_us(self) -> float:
        """CPU time of the whole EPP."""
        return self.core_us + self.rest_us


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """A run with one process, and one with several right after."""

    one: Run
    several: Run


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of load.

    ``ratio`` is how many times the requests several processes can serve that one process can, each
    process on a core of its own as long as there are cores; see README.md.
    """

    name: str
    clients: int
    requests_per_s_one: Spread
    requests_per_s_several: Spread
    epp_us_one: Spread
    epp_us_several: Spread
    core_us: Spread
    load_us: Spread
    ratio: Spread
    rounds: tuple[Round, ...]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``other_work_share`` is how much of the machine went elsewhere meanwhile."""

    machine: Machine
    workers: int
    rounds: int
    other_work_share: float
    rows: tuple[Row, ...]


def main() -> int:
    """Run the benchmark and return the exit code: 1 if a request failed, 2 for a wrong usage."""
    arguments = _parser().parse_args()
    return run("workers.py", _measure(arguments), _render, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure what `epp serve --workers N` brings and costs, beside one process in"
        " the same run. Takes about half a minute.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--workers", type=positive, default=_WORKERS, metavar="N")
    parser.add_argument(
        "--transport", choices=("http2", "grpcio"), default="http2", help="that of both"
    )
    add_amount(
        parser,
        duration_s=_DURATION_S,
        rounds=_ROUNDS,
        rounds_help="rounds, each a run with one process and one with several",
    )
    return parser


async def _measure(arguments: argparse.Namespace) -> Document:
    if arguments.workers < 2:
        raise UsageError("--workers 1: expected at least 2, to be compared with one process")
    envoy = find_envoy(arguments.envoy)
    machine = describe_machine(envoy)
    amount = Amount(
        rounds=arguments.rounds, duration_s=arguments.duration, requests=arguments.requests
    )
    with TemporaryDirectory(prefix="epp-benchmark-") as path:
        async with Supervisor(Path(path)) as supervisor:
            pair = []
            for label, more in (("one", ()), ("several", ("--workers", str(arguments.workers)))):
                gateways = await start_gateways(
                    supervisor,
                    Path(path),
                    envoy,
                    ["headers"],
                    slots=1,
                    label=f"{label}-",
                    serve_arguments=("--transport", arguments.transport, *more),
                )
                pair.append(gateways)
            gc.collect()
            gc.freeze()
            others = OtherWork(process.pid for process in supervisor.processes)
            rows = await watched(supervisor, _measure_all(pair, arguments.workers, amount))
            other_work_share = others.share()
    return Document(
        machine=machine,
        workers=arguments.workers,
        rounds=amount.rounds,
        other_work_share=other_work_share,
        rows=rows,
    )


async def _measure_all(
    pair: Sequence[dict[GatewayKind, Gateway]], workers: int, amount: Amount
) -> tuple[Row, ...]:
    return (
        await _measure_calls("calls without Envoy", 0, pair, workers, amount),
        await _measure_calls(f"the same with {_CHUNKS} chunks", _CHUNKS, pair, workers, amount),
        await _measure_scenario(_SMALL, pair, workers, amount),
    )


async def _measure_calls(
    name: str,
    chunks: int,
    pair: Sequence[dict[GatewayKind, Gateway]],
    workers: int,
    amount: Amount,
) -> Row:
    """Measure with calls that need no Envoy. Raises LoadFailedError."""
    async with AsyncExitStack() as stack:
        measures = []
        for gateways in pair:
            gateway = gateways["headers"]
            calls = Calls(
                gateway.epp_port,
                connections=_CONNECTIONS,
                calls=_CALLS,
                body_bytes=_BODY_BYTES,
                chunks=chunks,
            )
            await stack.enter_async_context(calls)
            await calls.run(requests=_CALLS)  # does not count: everything is new to everybody

            async def once(calls: Calls = calls) -> tuple[int, float]:
                done = await calls.run(
                    duration_s=amount.duration_s if amount.requests is None else None,
                    requests=amount.requests,
                )
                return done.calls, done.per_s

            measures.append((gateway, once))
        return await _row(name, _CALLS, measures, workers, amount)


async def _measure_scenario(
    scenario: Scenario,
    pair: Sequence[dict[GatewayKind, Gateway]],
    workers: int,
    amount: Amount,
) -> Row:
    """Measure through Envoy. Raises LoadFailedError."""
    async with AsyncExitStack() as stack:
        measures = []
        for gateways in pair:
            gateway = gateways[scenario.gateway]
            load = await stack.enter_async_context(load_on(gateway, scenario, _ENVOY_CLIENTS))
            await warm_up(load, scenario, amount)

            async def once(load: Load = load, gateway: Gateway = gateway) -> tuple[int, float]:
                sample = await run_once(load, gateway, scenario, amount)
                return sample.requests, sample.requests_per_s

            measures.append((gateway, once))
        name = f"{scenario.name}, through Envoy"
        return await _row(name, _ENVOY_CLIENTS, measures, workers, amount)


async def _row(
    name: str,
    clients: int,
    measures: Sequence[tuple[Gateway, Callable[[], Awaitable[tuple[int, float]]]]],
    workers: int,
    amount: Amount,
) -> Row:
    rounds: list[Round] = []
    for number in range(amount.rounds):
        one, several = [await _run_once(gateway, once) for gateway, once in measures]
        rounds.append(Round(one=one, several=several))
        progress(
            f"{name}, round {number + 1} of {amount.rounds}:"
            f" one process {one.requests_per_s:.0f}/s, {one.epp_us:.0f} us;"
            f" {workers} workers {several.requests_per_s:.0f}/s, {several.epp_us:.0f} us"
        )

    def over(figure: Callable[[Round], float]) -> Spread:
        return spread([figure(each) for each in rounds])

    return Row(
        name=name,
        clients=clients,
        requests_per_s_one=over(lambda each: each.one.requests_per_s),
        requests_per_s_several=over(lambda each: each.several.requests_per_s),
        epp_us_one=over(lambda each: each.one.epp_us),
        epp_us_several=over(lambda each: each.several.epp_us),
        core_us=over(lambda each: each.several.core_us),
        load_us=over(lambda each: each.several.load_us),
        ratio=over(lambda each: _ratio(each, workers)),
        rounds=tuple(rounds),
    )


async def _run_once(gateway: Gateway, once: Callable[[], Awaitable[tuple[int, float]]]) -> Run:
    assert gateway.epp_pid is not None
    before_s, load_before_s = cpu_by_process_s(gateway.epp_pid), process_time()
    requests, per_s = await once()
    after_s, load_after_s = cpu_by_process_s(gateway.epp_pid), process_time()
    used_us = [(b - a) / requests * 1e6 for a, b in zip(before_s, after_s, strict=True)]
    core_us = used_us[1] if len(used_us) > 1 else 0.0  # the parent is the first
    return Run(
        requests=requests,
        requests_per_s=per_s,
        core_us=core_us,
        rest_us=sum(used_us) - core_us,
        load_us=(load_after_s - load_before_s) / requests * 1e6,
    )


def _ratio(each: Round, workers: int) -> float:
    """Return how many times what one process can serve ``workers`` processes can, on as many cores.

    One process serves ``1 / cpu`` requests per second of its core. Several share their cores, but
    no more than one core is of use to the core process, and to each worker.
    """
    several = each.several
    per_us = min(workers / several.epp_us, workers / several.rest_us, 1.0 / several.core_us)
    return per_us * each.one.epp_us


def _render(document: Document) -> str:
    workers = document.workers
    rows: list[Sequence[str]] = [
        (
            *("load", "clients", "requests/s, one process", f"requests/s, {workers} workers"),
            *("CPU µs/request, one process", f"CPU µs/request, {workers} workers"),
            *("of it the core's", "the load's own", f"{workers} cores serve"),
        )
    ]
    rows += [
        (
            each.name,
            str(each.clients),
            cell(each.requests_per_s_one, 0),
            cell(each.requests_per_s_several, 0),
            cell(each.epp_us_one, 0),
            cell(each.epp_us_several, 0),
            cell(each.core_us, 0),
            cell(each.load_us, 0),
            f"{cell(each.ratio, 2)} times",
        )
        for each in document.rows
    ]
    lines = [
        *machine_lines(document.machine, document.other_work_share),
        f"{document.rounds} rounds, a run with one process and one with {workers} workers",
        "",
        *table(rows),
        "",
        "Median over the rounds (smallest to largest).",
    ]
    if workers == _WORKERS:
        lines.append(f"Wanted of {workers} cores: at least {_WANTED_RATIO:g} times.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
