"""Compare ways of routing in simulation: the time to first token, and what is found in caches.

README.md beside this file says how.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from loadkit.command import positive, progress
from routing_docs import HIGH, NORMAL, WORKLOADS, Measured, Setting, write_docs

from epp.errors import UsageError
from epp.simulation.routing_figures import RoutingFigures, routing_figures
from epp.simulation.scaling import scaled
from epp.simulation.scenario import RoutingName, Scenario
from epp.simulation.scenario_file import read_scenario
from epp.simulation.simulation import simulate

_HIGH_LOAD: Final = {"chat": 1.2, "documents": 2.0, "lora": 1.8, "prefixes": 1.8, "random": 1.25}
"""Of what the scenarios have, by workload: about four fifths of what the best way sustains."""

_DOCUMENTED: Final = (Setting(8), Setting(16), Setting(16, HIGH), Setting(64))
_DOCUMENTED_SEEDS: Final = range(11, 14)
"""Others than those with which something was tuned."""

_AT_HIGH_LOAD: Final[tuple[RoutingName, ...]] = (
    *("least-in-flight", "reference-default", "default", "oracle"),
)
_QUICK: Final[tuple[RoutingName, ...]] = ("reference-default", "default", "oracle")
_QUICK_S: Final = 150.0
_ENDPOINT_SECONDS: Final = 3200.0
_MEASURED_S: Final = (60.0, 400.0)


def main(arguments: Iterable[str] | None = None) -> int:
    """Simulate and print, or write the documentation."""
    args = _parser().parse_args(None if arguments is None else list(arguments))
    args.documented |= args.write_docs
    try:
        measured = _measured(args)
        if args.write_docs:
            write_docs(measured)
        elif args.json:
            print(msgspec.json.format(msgspec.json.encode(measured)).decode())
    except UsageError as error:
        print(f"routing: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    routings = read_scenario(f"routing-{WORKLOADS[0]}").routing
    parser = argparse.ArgumentParser(prog="routing", description=__doc__)
    parser.add_argument("--workload", action="append", choices=WORKLOADS)
    parser.add_argument("--policy", action="append", choices=routings)
    parser.add_argument("--endpoints", type=positive, action="append", metavar="N")
    parser.add_argument("--load", choices=(NORMAL, HIGH), default=NORMAL)
    parser.add_argument("--seeds", type=positive, default=1, metavar="N", help="runs of each kind")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes at a time")
    parser.add_argument("--quick", action="store_true", help="shorter, and only what is close")
    parser.add_argument("--json", action="store_true", help="print every figure, as JSON")
    parser.add_argument(
        "--documented", action="store_true", help="all settings and seeds of docs/routing.md"
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write tables and plots of docs/routing.md"
    )
    parser.add_argument(
        "--reuse",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="take what is in the output of an earlier --json, and simulate only the rest",
    )
    return parser


class _Job(NamedTuple):
    """One run. A scenario cannot be sent to another process, what makes it can."""

    workload: str
    setting: Setting
    is_quick: bool
    policy: RoutingName
    seed: int


def _measured(args: argparse.Namespace) -> list[Measured]:
    known: dict[tuple[str, Setting, str], Measured] = {}
    for path in args.reuse:
        for each in msgspec.json.decode(path.read_bytes(), type=list[Measured]):
            known[each.workload, each.setting, each.policy] = each
    seeds = _DOCUMENTED_SEEDS if args.documented else range(1, args.seeds + 1)
    found = []
    with ProcessPoolExecutor(args.jobs) as processes:
        for workload, setting, policy in _variants(args):
            each = known.get((workload, setting, policy))
            if each is None:
                progress(f"{workload}, {setting.name}: {policy}")
                jobs = [_Job(workload, setting, args.quick, policy, seed) for seed in seeds]
                each = Measured(workload, setting, policy, list(processes.map(_run, jobs)))
            found.append(each)
            if not (args.json or args.write_docs):
                print(_line(each, is_first=len(found) == 1), flush=True)
    return found


def _variants(args: argparse.Namespace) -> Iterator[tuple[str, Setting, RoutingName]]:
    settings = [Setting(endpoints, args.load) for endpoints in args.endpoints or [16]]
    if args.documented:
        settings = list(_DOCUMENTED)
    for setting in settings:
        for workload in args.workload or WORKLOADS:
            every = read_scenario(f"routing-{workload}").routing
            if args.documented and setting.load == HIGH:
                every = _AT_HIGH_LOAD
            for policy in args.policy or (_QUICK if args.quick else every):
                yield workload, setting, policy


def _run(job: _Job) -> RoutingFigures:
    scenario = _scenario(job)
    return routing_figures(simulate(scenario, seed=job.seed, routing=job.policy))


def _line(each: Measured, *, is_first: bool) -> str:
    """Return the figures in columns of fixed width, after their headlines where it is the first."""
    head = ("workload", "policy", "mean", "p50", "p95", "p99 ms", "hits %", "tokens/s", "busiest",
            "refused %")  # fmt: skip
    fields = (("ttft_mean_s", 1e3, 1), ("ttft_p50_s", 1e3, 1), ("ttft_p95_s", 1e3, 1),
              ("ttft_p99_s", 1e3, 1), ("hit_ratio", 100, 2), ("output_tokens_per_s", 1, 0),
              ("imbalance", 1, 2), ("refused_ratio", 100, 1))  # fmt: skip
    numbers = [f"{factor * each.figure(field)[0]:.{digits}f}" for field, factor, digits in fields]
    rows = [head] if is_first else []
    rows.append((f"{each.workload}, {each.setting.name}", each.policy, *numbers))
    return "\n".join(
        f"{row[0]:34}{row[1]:18}" + "".join(f"{cell:>10}" for cell in row[2:]) for row in rows
    )


def _scenario(job: _Job) -> Scenario:
    """Return the scenario; the more endpoints there are, the shorter it need be."""
    workload, setting = job.workload, job.setting
    load = _HIGH_LOAD[workload] if setting.load == HIGH else 1.0
    scenario = scaled(read_scenario(f"routing-{workload}"), setting.endpoints, load)
    least_s, most_s = _MEASURED_S
    length_s = min(most_s, max(least_s, _ENDPOINT_SECONDS / setting.endpoints))
    duration_s = scenario.measure_from_s + min(length_s, _QUICK_S if job.is_quick else length_s)
    return msgspec.structs.replace(
        scenario, name=f"{workload}, {setting.name}", duration_s=duration_s
    )


if __name__ == "__main__":
    sys.exit(main())
