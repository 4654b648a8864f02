"""``epp simulate``: what flow control and routing make of a workload, with no GPU, in no time."""

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
before simulated engines, and tell who waited how long and who got how much, or, where a scenario
compares ways of routing, when the first tokens came and what was found in the engines' caches. A
scenario is a YAML file, or the name of one that ships with epp (--list). A trace is a CSV file with
a header: arrival_s, prompt_tokens, output_tokens and, if wanted, tenant and priority; with it, the
scenario only says what the pool and the policies are.
"""
_POLICIES = ("configured", "weighted-fair", "round-robin", "global-strict", "oracle")
_ROUTINGS = (
    *("random", "round-robin", "least-in-flight", "reference-default", "default"),
    *("oracle", "oracle-hits"),
)


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
        "--routing",
        action="append",
        choices=_ROUTINGS,
        help="pick endpoints this way, may be repeated; the oracles see into the engines"
        " (default: those that the scenario names)",
    )
    parser.add_argument(
        "--endpoints",
        type=_at_least(1),
        metavar="N",
        help="have N endpoints, with as much to do for each as in the scenario",
    )
    parser.add_argument(
        "--load", type=_factor, default=1.0, metavar="FACTOR", help="have FACTOR times the load"
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
    jobs = [_with_options(*job, args) for job in _scenarios(args)]
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
    scenario: "Scenario", trace: "Trace | None", args: argparse.Namespace
) -> "tuple[Scenario, Trace | None]":
    import msgspec

    from epp.simulation.scaling import scaled

    scenario = scaled(scenario, args.endpoints, args.load)
    if args.routing:
        scenario = msgspec.structs.replace(scenario, routing=tuple(dict.fromkeys(args.routing)))
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
    from epp.simulation.simulation import simulate, variant_name

    runs: list[Run] = []
    results: list[SimulationResult] = []
    variants = [
        (scenario, trace, policy, routing, seed)
        for scenario, trace in jobs
        for policy in scenario.policies
        for routing in scenario.routing
        for seed in range(1, scenario.seeds + 1)
    ]
    progress = Progress(sys.stderr, len(variants))
    try:
        for scenario, trace, policy, routing, seed in variants:
            progress.begin(
                f"{scenario.name}, {variant_name(scenario, policy, routing)}, seed {seed}"
            )
            result = simulate(
                scenario, policy, seed, routing=routing, trace=trace, on_progress=progress.at
            )
            runs.append(_summary_of(scenario, result))
            if args.report is not None:
                results.append(result)  # for nothing else: they are large
            progress.end(len(result.requests))
    finally:
        progress.close()
    return runs, results


def _summary_of(scenario: "Scenario", result: "SimulationResult") -> "Run":
    from epp.simulation.backlog import backlogged_flows, served_within
    from epp.simulation.routing_figures import routing_figures
    from epp.simulation.summary import summarise
    from epp.simulation.table import Run

    return Run(
        summary=summarise(result),
        weights=dict(scenario.weights),
        backlogged=backlogged_flows(result),
        served_within_3_tries=served_within(result, 3),
        routing=routing_figures(result) if scenario.is_about_routing else None,
    )


def _print(runs: "list[Run]", *, as_json: bool) -> None:
    from epp.simulation.routing_table import routing_table
    from epp.simulation.table import comparison_table, flow_table, to_json

    if as_json:
        print(to_json(runs))
        return
    routed = [run.routing for run in runs if run.routing is not None]
    tables = [routing_table(routed)] if routed else []
    runs = [run for run in runs if run.routing is None]
    variants: dict[tuple[str, PolicyName | str], list[Run]] = {}
    for run in runs:
        variants.setdefault((run.summary.scenario, run.summary.policy), []).append(run)
    tables += [flow_table(variant) for variant in variants.values()]
    if len({policy for _, policy in variants}) > 1:
        tables.append(comparison_table(runs))
    print("\n\n".join(tables))


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


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0.0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if 0.0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
