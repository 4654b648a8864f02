"""Both transports doing the same work in turns: what it costs the EPP, and how they compare."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, TypeAlias

import msgspec

from loadkit.capture import Capture
from loadkit.figures import Spread, spread
from loadkit.measure import Amount, load_on, run_once, warm_up
from loadkit.replay import replay
from loadkit.report import Machine, cell, machine_lines, table
from loadkit.scenarios import GatewayKind, Scenario
from loadkit.stack import Gateway

__all__ = ["TRANSPORTS", "Comparison", "Cost", "Row", "Stacks", "compare_replays",
           "compare_requests", "render"]  # fmt: skip

TRANSPORTS: Final = ("http2", "grpcio")
Stacks: TypeAlias = Mapping[str, Mapping[GatewayKind, Gateway]]
"""The gateways of each transport."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one run cost the EPP: CPU time in microseconds per request, or per chunk, and how many
    of those there were. ``messages`` are those to the EPP, per request or chunk."""

    cpu_us: float
    count: int
    messages: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of work. ``clients`` is 0 where there is no Envoy in front; ``ratio`` is that of
    grpcio to http2, round by round. ``wanted_ratio`` and ``wanted_us`` are the bounds that the
    transport http2 is held to: at least this ratio, at most this time."""

    name: str
    unit: str
    clients: int
    http2_us: Spread
    grpcio_us: Spread
    ratio: Spread
    wanted_ratio: float | None
    wanted_us: float | None
    rounds: tuple[dict[str, Cost], ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``other_work_share`` is how much of the machine went elsewhere meanwhile."""

    machine: Machine
    rounds: int
    duration_s: float | None
    requests: int | None
    other_work_share: float
    rows: tuple[Row, ...]


async def compare_requests(
    scenario: Scenario,
    clients: int,
    stacks: Stacks,
    amount: Amount,
    progress: Callable[[str], None],
    *,
    per_chunk: bool = False,
    wanted_ratio: float | None = None,
) -> Row:
    """Measure a scenario through Envoy with so many clients, per request or per chunk of a
    streamed response. Raises LoadFailedError."""
    rounds: list[dict[str, Cost]] = []
    async with AsyncExitStack() as stack:
        loads = {}
        for transport in TRANSPORTS:
            gateway = stacks[transport][scenario.gateway]
            load = await stack.enter_async_context(load_on(gateway, scenario, clients))
            await warm_up(load, scenario, amount)
            loads[transport] = (load, gateway)
        for number in range(amount.rounds):
            costs = {}
            for transport, (load, gateway) in loads.items():
                sample = await run_once(load, gateway, scenario, amount)
                # A chunk is a message, and there are hundreds to the few that a request takes.
                units = sample.ext_proc_messages if per_chunk else 1.0
                costs[transport] = Cost(
                    cpu_us=sample.epp_cpu_us / units,
                    count=round(sample.requests * units),
                    messages=sample.ext_proc_messages / units,
                )
            rounds.append(costs)
            progress(_line(f"{scenario.name}, clients {clients}", number, amount, costs))
    unit = "chunk" if per_chunk else "request"
    return _row(scenario.name, unit, clients, rounds, wanted_ratio=wanted_ratio)


async def compare_replays(
    capture: Capture,
    chunks_per_read: int,
    stacks: Stacks,
    amount: Amount,
    progress: Callable[[str], None],
    *,
    wanted_us: float | None = None,
) -> Row:
    """Measure chunks that arrive so many at a time, without Envoy. Raises LoadFailedError."""
    name = f"replay-{chunks_per_read}"
    rounds: list[dict[str, Cost]] = []
    for number in range(amount.rounds):
        costs = {}
        for transport in TRANSPORTS:
            gateway = stacks[transport]["duplex"]
            assert gateway.epp_pid is not None
            replayed = await asyncio.to_thread(
                replay, capture, gateway.epp_port, gateway.epp_pid, chunks_per_read
            )
            cpu_us = replayed.cpu_s / replayed.chunks * 1e6
            costs[transport] = Cost(cpu_us=cpu_us, count=replayed.chunks, messages=1.0)
        rounds.append(costs)
        progress(_line(name, number, amount, costs))
    return _row(name, "chunk", 0, rounds, wanted_us=wanted_us)


def render(comparison: Comparison) -> str:
    """Return the figures for people; the table is Markdown."""
    amount = (
        f"runs of {comparison.duration_s:g} s"
        if comparison.requests is None
        else f"runs of {comparison.requests} requests"
    )
    rows: list[Sequence[str]] = [
        ("work", "clients", "http2, µs", "grpcio, µs", "grpcio / http2", "wanted")
    ]
    rows += [
        (
            each.name,
            str(each.clients or "-"),
            f"{cell(each.http2_us, 1)} per {each.unit}",
            cell(each.grpcio_us, 1),
            cell(each.ratio, 1),
            _wanted(each),
        )
        for each in comparison.rows
    ]
    return "\n".join(
        [
            *machine_lines(comparison.machine, comparison.other_work_share),
            f"{comparison.rounds} rounds, {amount} for each transport in turn",
            "",
            *table(rows),
            "",
            "CPU time of the EPP process: median over the rounds (smallest to largest).",
        ]
    )


def _wanted(row: Row) -> str:
    if row.wanted_ratio is not None:
        return f"at least {row.wanted_ratio:g}"
    return "" if row.wanted_us is None else f"at most {row.wanted_us:g} µs"


def _row(
    name: str,
    unit: str,
    clients: int,
    rounds: Sequence[dict[str, Cost]],
    *,
    wanted_ratio: float | None = None,
    wanted_us: float | None = None,
) -> Row:
    return Row(
        name=name,
        unit=unit,
        clients=clients,
        http2_us=spread([each["http2"].cpu_us for each in rounds]),
        grpcio_us=spread([each["grpcio"].cpu_us for each in rounds]),
        ratio=spread([each["grpcio"].cpu_us / each["http2"].cpu_us for each in rounds]),
        wanted_ratio=wanted_ratio,
        wanted_us=wanted_us,
        rounds=tuple(rounds),
    )


def _line(what: str, number: int, amount: Amount, costs: Mapping[str, Cost]) -> str:
    figures = ", ".join(f"{transport} {cost.cpu_us:.1f} us" for transport, cost in costs.items())
    return f"{what}, round {number + 1} of {amount.rounds}: {figures}"
