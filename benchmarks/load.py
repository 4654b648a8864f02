"""Measure what the endpoint picker adds to a request, with a real Envoy.

Each scenario is measured in rounds, each a run through Envoy without the ext_proc filter and a run
with it right after, so that whatever else the machine does meets both. What is measured, how, and
the figures of one machine are in README.md beside this file.
"""

import argparse
import gc
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from loadkit.command import add_amount, positive, progress, run, watched
from loadkit.figures import Result
from loadkit.measure import Amount, measure
from loadkit.report import Document, Settings, describe_machine, event_costs, render
from loadkit.scenarios import SCENARIOS, GatewayKind, Scenario
from loadkit.stack import ENDPOINTS, ENVOY_THREADS, Gateway, OtherWork, start_gateways

from epp.errors import UsageError
from epp.gateway.envoy_binary import find_envoy
from epp.gateway.processes import Supervisor

_CLIENTS: Final = (1, 16)
_ROUNDS: Final = 3
_DURATION_S: Final = 1.0
_CLIENTS_PER_SLOT: Final = 4


def main() -> int:
    """Run the benchmark and return the exit code: 1 if a request failed, 2 for a wrong usage."""
    arguments = _parser().parse_args()
    return run("load.py", _measure(arguments), render, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        description="Measure what the endpoint picker adds to a request, with a real Envoy: each"
        " run with the ext_proc filter beside one without it. Takes about 90 s.",
        epilog="Scenarios: " + "; ".join(f"{each.name}: {each.text}" for each in SCENARIOS) + ".",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--clients", type=positive, nargs="+", default=list(_CLIENTS), metavar="N",
        help="concurrent clients, each with one request at a time; several numbers are measured"
        " one after the other",
    )  # fmt: skip
    add_amount(
        parser,
        duration_s=_DURATION_S,
        rounds=_ROUNDS,
        rounds_help="rounds of each scenario, a run without the EPP and one with it",
    )
    parser.add_argument(
        "--scenario", choices=names, action="append", metavar="NAME",
        help=f"only this one, may be given more than once: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument(
        "--serve", default="", metavar="ARGUMENTS",
        help="more arguments for epp serve, such as --serve='--transport http2'",
    )  # fmt: skip
    return parser


async def _measure(arguments: argparse.Namespace) -> Document:
    clients: list[int] = sorted(set(arguments.clients))
    slots = max(1, clients[-1] // _CLIENTS_PER_SLOT)
    plan = _plan(arguments.scenario, clients, slots)
    envoy = find_envoy(arguments.envoy)
    machine = describe_machine(envoy)
    amount = Amount(
        rounds=arguments.rounds, duration_s=arguments.duration, requests=arguments.requests
    )
    with TemporaryDirectory(prefix="epp-benchmark-") as path:
        async with Supervisor(Path(path)) as supervisor:
            kinds: list[GatewayKind] = ["off", *{scenario.gateway for scenario, _ in plan}]
            gateways = await start_gateways(
                supervisor,
                Path(path),
                envoy,
                kinds,
                slots,
                serve_arguments=shlex.split(arguments.serve),
            )
            for process in supervisor.processes:
                progress(f"started {process.name} (pid {process.pid})")
            others = OtherWork(process.pid for process in supervisor.processes)
            results = await watched(supervisor, _measure_all(plan, gateways, amount))
            other_work_share = others.share()
    settings = Settings(
        clients=tuple(clients),
        rounds=amount.rounds,
        duration_s=amount.duration_s if amount.requests is None else None,
        requests=amount.requests,
        endpoints=ENDPOINTS,
        slots=slots,
        envoy_threads=ENVOY_THREADS,
        serve=arguments.serve,
    )
    return Document(
        machine=machine,
        settings=settings,
        other_work_share=other_work_share,
        results=results,
        event_costs=event_costs(results),
    )


def _plan(names: list[str] | None, clients: list[int], slots: int) -> list[tuple[Scenario, int]]:
    """Return which scenarios are measured, with how many clients each. Raises UsageError."""
    plan = [
        (scenario, count)
        for scenario in SCENARIOS
        if names is None or scenario.name in names
        for count in clients
        # With no more clients than slots, nothing is contended.
        if scenario.gateway != "contended" or count > slots
    ]
    if not plan:
        raise UsageError(f"--clients {clients[-1]}: with one client nothing waits; expected more")
    return plan


async def _measure_all(
    plan: list[tuple[Scenario, int]], gateways: dict[GatewayKind, Gateway], amount: Amount
) -> tuple[Result, ...]:
    # What was imported to set up Envoy is a lot to walk through in the middle of a measurement.
    gc.collect()
    gc.freeze()
    off = gateways["off"]
    results = [
        await measure(scenario, clients, off, gateways[scenario.gateway], amount, progress)
        for scenario, clients in plan
    ]
    return tuple(results)


if __name__ == "__main__":
    sys.exit(main())
