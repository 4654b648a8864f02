"""``epp simulate``: what the flow control makes of a workload, without a GPU and in no time."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from epp.errors import UsageError

if TYPE_CHECKING:
    from epp.simulation.result import SimulationResult
    from epp.simulation.scenario import PolicyName, Scenario
    from epp.simulation.table import Run
    from epp.simulation.trace import Trace

__all__ = ["add_parser"]

_DESCRIPTION = """\
Run the endpoint picker's own flow control, scheduler and saturation detector under a virtual clock,
before simulated engines, and tell who waited how long and who got how much. A scenario is a YAML
file, or the name of one that ships with epp (--list). A trace is a CSV file with a header:
arrival_s, prompt_tokens, output_tokens and, if wanted, tenant and priority; with it, the scenario
only says what the pool and the policies are.
"""
_POLICIES = ("configured", "weighted-fair", "round-robin", "global-strict", "oracle")


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subcommands.add_parser(
        "simulate",
        help="try scheduling policies on a workload, under a virtual clock",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help="a scenario file, or the name of one"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios that ship")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="requests from a CSV file")
    parser.add_argument(
        "--policy",
        action="append",
        choices=_POLICIES,
        help="run under this policy, may be repeated; oracle is weighted-fair that knows the"
        " lengths, configured what the scenario says (default: those that the scenario names)",
    )
    parser.add_argument(
        "--seeds", type=_at_least(1), metavar="N", help="run with N seeds (default: the scenario's)"
    )
    parser.add_argument(
        "--duration", type=_seconds, metavar="SECONDS", help="let requests arrive for so long"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="write a report with plots"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from epp.simulation.scenario_file import read_scenario, shipped_scenarios

    if args.list:
        for name in shipped_scenarios():
            print(f"{name}\n    {read_scenario(name).description}")
        return 0
    if not args.scenarios and args.trace is None:
        raise UsageError("nothing to simulate; expected SCENARIO, --trace FILE, or --list")
    if args.report is not None:
        _check_report_path(args.report)
    jobs = [_with_options(scenario, args) for scenario in _scenarios(args)]
    runs, results = _simulate_all(jobs, args)
    if args.report is not None:
        from epp.simulation.report import write_report

        write_report(results, args.report)
    _print(runs, as_json=args.json)
    return 0


def _scenarios(args: argparse.Namespace) -> "list[tuple[Scenario, Trace | None]]":
    """Return what to simulate. Raises UsageError."""
    from epp.simulation.scenario import Scenario
    from epp.simulation.scenario_file import read_scenario

    scenarios = [read_scenario(named) for named in args.scenarios]
    if args.trace is None:
        for scenario, named in zip(scenarios, args.scenarios, strict=True):
            if not scenario.tenants:
                raise UsageError(f"{named}: there are no tenants; expected some, or --trace FILE")
        return [(scenario, None) for scenario in scenarios]
    return [_with_trace(scenario, args.trace) for scenario in scenarios or [Scenario()]]


def _with_trace(scenario: "Scenario", path: Path) -> "tuple[Scenario, Trace]":
    import msgspec

    from epp.simulation.trace import read_trace

    trace = read_trace(path, min(group.engine.context_tokens for group in scenario.pool))
    name = f"{scenario.name} {trace.name}".lstrip()
    # Until shortly after the last arrival, so that it is one of the arrivals.
    duration_s = trace.duration_s + scenario.sample_s
    measure_from_s = scenario.measure_from_s if scenario.measure_from_s < duration_s else 0.0
    traced = msgspec.structs.replace(
        scenario, name=name, duration_s=duration_s, measure_from_s=measure_from_s
    )
    return traced, trace


def _with_options(
    job: "tuple[Scenario, Trace | None]", args: argparse.Namespace
) -> "tuple[Scenario, Trace | None]":
    import msgspec

    scenario, trace = job
    if args.policy:
        scenario = msgspec.structs.replace(scenario, policies=tuple(dict.fromkeys(args.policy)))
    if args.seeds:
        scenario = msgspec.structs.replace(scenario, seeds=args.seeds)
    if args.duration:
        # The warm-up keeps its part of the time.
        measure_from_s = scenario.measure_from_s * args.duration / scenario.duration_s
        scenario = msgspec.structs.replace(
            scenario, duration_s=args.duration, measure_from_s=measure_from_s
        )
    return scenario, trace


def _simulate_all(
    jobs: "list[tuple[Scenario, Trace | None]]", args: argparse.Namespace
) -> "tuple[list[Run], list[SimulationResult]]":
    from epp.simulation.progress import Progress
    from epp.simulation.simulation import simulate

    runs: list[Run] = []
    results: list[SimulationResult] = []
    progress = Progress(sys.stderr, sum(len(s.policies) * s.seeds for s, _ in jobs))
    try:
        for scenario, trace in jobs:
            for policy in scenario.policies:
                for seed in range(1, scenario.seeds + 1):
                    progress.begin(f"{scenario.name}, {policy}, seed {seed}")
                    result = simulate(scenario, policy, seed, trace=trace, on_progress=progress.at)
                    runs.append(_summary_of(scenario, result))
                    if args.report is not None:
                        results.append(result)  # for nothing else: they are large
                    progress.end(len(result.requests))
    finally:
        progress.close()
    return runs, results


def _summary_of(scenario: "Scenario", result: "SimulationResult") -> "Run":
    from epp.simulation.backlog import backlogged_flows, served_within
    from epp.simulation.summary import summarise
    from epp.simulation.table import Run

    return Run(
        summary=summarise(result),
        weights=dict(scenario.weights),
        backlogged=backlogged_flows(result),
        served_within_3_tries=served_within(result, 3),
    )


def _print(runs: "list[Run]", *, as_json: bool) -> None:
    from epp.simulation.table import comparison_table, flow_table, to_json

    if as_json:
        print(to_json(runs))
        return
    variants: dict[tuple[str, PolicyName | str], list[Run]] = {}
    for run in runs:
        variants.setdefault((run.summary.scenario, run.summary.policy), []).append(run)
    print("\n\n".join(flow_table(variant) for variant in variants.values()))
    if len({policy for _, policy in variants}) > 1:
        print(f"\n{comparison_table(runs)}")


def _check_report_path(path: Path) -> None:
    """Raise UsageError before the work is done and not after it."""
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise UsageError(f"--report {path}: cannot be written; expected a file in a directory")


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if 0.0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
