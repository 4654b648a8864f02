"""What is told: the machine, and the figures as a table for people."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from loadkit.figures import Result, Spread

__all__ = ["Document", "EventCost", "Machine", "Settings", "cell", "describe_machine",
           "event_costs", "machine_line", "machine_lines", "render", "table"]  # fmt: skip

_PACKAGES: Final = ("inference-epp", "grpcio", "protobuf", "uvloop", "msgspec", "numpy")
_FEW: Final = 100
_EVENT_SCENARIOS: Final = ("stream", "small-duplex")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where the figures come from. ``load_average`` is that of the minute before the start."""

    cpu_model: str
    cores: int
    system: str
    python: str
    envoy: str
    packages: dict[str, str]
    load_average: float


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and what is fixed.

    ``slots`` is the limit of the contended pool, ``serve`` the further arguments of ``epp serve``.
    """

    clients: tuple[int, ...]
    rounds: int
    duration_s: float | None
    requests: int | None
    endpoints: int
    slots: int
    envoy_threads: int
    serve: str


class EventCost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of the EPP for one more event of a stream."""

    clients: int
    epp_cpu_us: float


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``other_work_share`` is how much of the machine went elsewhere meanwhile."""

    machine: Machine
    settings: Settings
    other_work_share: float
    results: tuple[Result, ...]
    event_costs: tuple[EventCost, ...]


def describe_machine(envoy: Path) -> Machine:
    """Return what matters of the machine and of the software that is measured."""
    answer = subprocess.run([envoy, "--version"], capture_output=True, text=True, check=True)
    return Machine(
        cpu_model=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        envoy=answer.stdout.partition("version:")[2].strip(),
        packages={name: version(name) for name in _PACKAGES},
        load_average=os.getloadavg()[0],
    )


def machine_line() -> str:
    """Return the machine and the interpreter in a line, and how busy they were before."""
    return (
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}"
        f" {platform.release()}, {platform.python_implementation()} {platform.python_version()};"
        f" load average before the start {os.getloadavg()[0]:.2f}"
    )


def event_costs(results: Sequence[Result]) -> tuple[EventCost, ...]:
    """Return what one more event costs, from a stream of many and an answer in one piece.

    Both go the same way, so the difference in CPU time is that in messages. Empty unless both
    were measured.
    """
    many, one = _EVENT_SCENARIOS
    found = {(each.scenario, each.clients): each.summary for each in results}
    costs = []
    for (scenario, clients), stream in found.items():
        single = found.get((one, clients))
        if scenario != many or single is None:
            continue
        messages = stream.ext_proc_messages.median - single.ext_proc_messages.median
        cpu_us = stream.epp_cpu_us.median - single.epp_cpu_us.median
        costs.append(EventCost(clients=clients, epp_cpu_us=cpu_us / max(messages, 1.0)))
    return tuple(costs)


def render(document: Document) -> str:
    """Return the figures for people; the table is Markdown."""
    return "\n".join(
        [
            *_preface(document),
            "",
            *_table(document.results),
            "",
            *_notes(document),
        ]
    )


def machine_lines(machine: Machine, other_work_share: float) -> list[str]:
    """Return what the figures were measured with, and how quiet it was."""
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    return [
        f"{machine.cpu_model}, {machine.cores} cores, {machine.system}; load average before the"
        f" start {machine.load_average:.2f}, meanwhile {other_work_share:.0%} of the"
        " machine went elsewhere",
        f"{machine.python}, Envoy {machine.envoy}, {packages}",
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        _line([each.ljust(width) for each, width in zip(row, widths, strict=True)]) for row in rows
    ]
    lines.insert(1, _line(["-" * width for width in widths]))
    return lines


def cell(spread: Spread, digits: int) -> str:
    """Return the median and, in parentheses, the range."""
    if not digits and spread.median < _FEW:
        digits = 1
    return f"{spread.median:.{digits}f} ({spread.min:.{digits}f} to {spread.max:.{digits}f})"


def _preface(document: Document) -> list[str]:
    settings = document.settings
    amount = (
        f"{settings.duration_s:g} s"
        if settings.requests is None
        else f"{settings.requests} requests"
    )
    return [
        *machine_lines(document.machine, document.other_work_share),
        f"{settings.rounds} rounds of {amount} without the EPP and {amount} with it,"
        f" {settings.endpoints} endpoints, {settings.envoy_threads} Envoy worker thread"
        + (f", epp serve {settings.serve}" if settings.serve else ""),
    ]


def _table(results: Sequence[Result]) -> list[str]:
    rows = [
        (
            *("scenario", "clients", "requests/s without EPP", "requests/s with EPP"),
            *("added p50, ms", "added p99, ms", "EPP CPU, µs/request", "messages/request"),
            *("Envoy CPU without, µs/request", "Envoy CPU with, µs/request"),
        )
    ]
    for each in results:
        figures = each.summary
        rows.append(
            (
                each.scenario,
                str(each.clients),
                cell(figures.requests_per_s_off, 0),
                cell(figures.requests_per_s_on, 0),
                cell(figures.added_p50_ms, 2),
                cell(figures.added_p99_ms, 2),
                cell(figures.epp_cpu_us, 0),
                f"{figures.ext_proc_messages.median:.1f}",
                cell(figures.envoy_cpu_off_us, 0),
                cell(figures.envoy_cpu_on_us, 0),
            )
        )
    return table(rows)


def _notes(document: Document) -> list[str]:
    notes = ["Median over the rounds (smallest to largest); messages are those to the EPP."]
    notes += [
        f"One more event of a stream costs {cost.epp_cpu_us:.0f} µs of EPP CPU"
        f" with {cost.clients} client{'s' if cost.clients > 1 else ''}."
        for cost in document.event_costs
    ]
    notes += [
        f"contended: {document.settings.slots} slots; of the requests of {each.clients} clients,"
        f" {each.summary.queued_share.median:.0%} waited 1 ms or longer, and all of them on"
        f" average {each.summary.queue_wait_mean_ms.median:.1f} ms; the added latency is mostly"
        " that."
        for each in document.results
        if each.scenario == "contended"
    ]
    return notes


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
