"""Measure what the transports cost: CPU time of the endpoint picker per request and per chunk of a
streamed response, with `epp serve --transport http2` and `--transport grpcio` in turns.

Most of it goes through a real Envoy. Chunks cost Envoy more than they cost the endpoint picker, so
what a real Envoy says on one connection is also captured once and said again without Envoy, the
chunks one by one and several at a time. README.md beside this file says more.
"""

import argparse
import gc
import sys
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from loadkit.capture import Capture, Relay, read_capture
from loadkit.command import add_amount, positive, progress, run, watched
from loadkit.compare import (
    TRANSPORTS,
    Comparison,
    Row,
    Stacks,
    compare_replays,
    compare_requests,
    render,
)
from loadkit.measure import Amount, LoadFailedError, load_on, run_once
from loadkit.report import describe_machine
from loadkit.scenarios import SCENARIOS, GatewayKind, Scenario
from loadkit.stack import OtherWork, start_gateways

from epp.gateway.envoy_binary import find_envoy
from epp.gateway.processes import Supervisor

_CLIENTS: Final = (1, 16)
_ROUNDS: Final = 5
_DURATION_S: Final = 1.0
_STREAMS: Final = 8
"""Each brings 250 chunks per second: 2,000 together."""

_WANTED_RATIOS: Final = {"small": 6.0, "small-duplex": 5.0, "large-duplex": 1.7}
_WANTED_CHUNK_RATIO: Final = 4.0
_WANTED_REPLAY_US: Final = {1: 30.0, 4: 12.0, 16: 12.0}
"""By how many chunks arrive per read."""

_STREAM: Final = Scenario(
    name="stream",
    text="SSE responses that bring 2,000 events per second together, through the EPP",
    gateway="duplex",
    body_bytes=200,
    answer="long-stream",
)
_CAPTURED: Final = msgspec.structs.replace(_STREAM, name="capture", gateway="relayed")
_REPLAY: Final = "replay"
_WORK: Final = (*_WANTED_RATIOS, _STREAM.name, _REPLAY)


def main() -> int:
    """Run the benchmark and return the exit code: 1 if a request failed, 2 for a wrong usage."""
    arguments = _parser().parse_args()
    return run("transport.py", _measure(arguments), render, as_json=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure the CPU time that the endpoint picker uses per request and per chunk"
        " with each of its transports, in turns, behind a real Envoy. Takes about 2 minutes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--clients", type=positive, nargs="+", default=list(_CLIENTS), metavar="N",
        help="concurrent clients where requests are measured, each with one request at a time",
    )  # fmt: skip
    parser.add_argument(
        "--work", choices=_WORK, action="append", metavar="NAME",
        help=f"only this, may be given more than once: {', '.join(_WORK)}",
    )  # fmt: skip
    add_amount(
        parser,
        duration_s=_DURATION_S,
        rounds=_ROUNDS,
        rounds_help="rounds, each a run with either transport",
    )
    return parser


async def _measure(arguments: argparse.Namespace) -> Comparison:
    envoy = find_envoy(arguments.envoy)
    machine = describe_machine(envoy)
    amount = Amount(
        rounds=arguments.rounds, duration_s=arguments.duration, requests=arguments.requests
    )
    with TemporaryDirectory(prefix="epp-benchmark-") as path:
        async with Supervisor(Path(path)) as supervisor, Relay() as relay:
            stacks = await _start(supervisor, Path(path), envoy, relay)
            others = OtherWork(process.pid for process in supervisor.processes)
            names = arguments.work or _WORK
            work = _measure_all(names, sorted(set(arguments.clients)), stacks, relay, amount)
            rows = await watched(supervisor, work)
            other_work_share = others.share()
    return Comparison(
        machine=machine,
        rounds=amount.rounds,
        duration_s=amount.duration_s if amount.requests is None else None,
        requests=amount.requests,
        other_work_share=other_work_share,
        rows=rows,
    )


async def _start(supervisor: Supervisor, directory: Path, envoy: Path, relay: Relay) -> Stacks:
    stacks = {}
    for transport in TRANSPORTS:
        kinds: list[GatewayKind] = ["headers", "duplex"]
        if transport == "http2":
            kinds.append("relayed")
        stacks[transport] = await start_gateways(
            supervisor,
            directory,
            envoy,
            kinds,
            slots=1,
            label=f"{transport}-",
            serve_arguments=("--transport", transport),
            relay_port=relay.port,
        )
    relay.target_port = stacks["http2"]["relayed"].epp_port
    for process in supervisor.processes:
        progress(f"started {process.name} (pid {process.pid})")
    return stacks


async def _measure_all(
    names: Collection[str], clients: list[int], stacks: Stacks, relay: Relay, amount: Amount
) -> tuple[Row, ...]:
    # What was imported to set up Envoy is a lot to walk through in the middle of a measurement.
    gc.collect()
    gc.freeze()
    rows = [
        await compare_requests(
            scenario, count, stacks, amount, progress, wanted_ratio=_WANTED_RATIOS[scenario.name]
        )
        for scenario in SCENARIOS
        if scenario.name in _WANTED_RATIOS and scenario.name in names
        for count in clients
    ]
    if _STREAM.name in names:
        row = await compare_requests(
            _STREAM,
            _STREAMS,
            stacks,
            amount,
            progress,
            per_chunk=True,
            wanted_ratio=_WANTED_CHUNK_RATIO,
        )
        rows.append(row)
    if _REPLAY in names:
        capture = await _capture(stacks, relay)
        rows += [
            await compare_replays(capture, count, stacks, amount, progress, wanted_us=wanted_us)
            for count, wanted_us in _WANTED_REPLAY_US.items()
        ]
    return tuple(rows)


async def _capture(stacks: Stacks, relay: Relay) -> Capture:
    """Have Envoy send a stream of each client through the relay. Raises LoadFailedError."""
    gateway = stacks["http2"][_CAPTURED.gateway]
    amount = Amount(rounds=1, duration_s=0.0, requests=_STREAMS)
    async with load_on(gateway, _CAPTURED, _STREAMS) as load:
        await run_once(load, gateway, _CAPTURED, amount)
    said = relay.longest()
    capture = read_capture(said)
    if capture is None:
        raise LoadFailedError("the captured streams did not run at the same time")
    progress(f"captured {len(said)} bytes, {len(capture.chunks)} chunks to say again")
    return capture


if __name__ == "__main__":
    sys.exit(main())
