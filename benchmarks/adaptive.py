"""Compare the limits that the detector `adaptive` finds with the best fixed limit, in simulation.

README.md beside this file says how.
"""

import argparse
import sys
from collections.abc import Iterable
from statistics import fmean
from typing import Final

import msgspec
from loadkit.command import positive, progress
from loadkit.report import table
from saturation_rig import (
    PROFILES,
    Figures,
    Load,
    Profile,
    Reports,
    best_fixed,
    fresh,
    frozen,
    late,
    outage,
    run,
)

from epp.core.flow.saturation import AdaptiveOptions

_LIMITS: Final = (16, 32, 40, 48, 64, 80, 112, 160)
_OVERLOAD: Final = Load(from_s=60, until_s=240)
_CHANGE_S: Final = 120.0
_CHANGE_FACTOR: Final = 4.0
_LOAD_BEFORE: Final = 0.4
_LATE_S: Final = 5
_LOST_S: Final = 60


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One profile: the best fixed limit of each seed, and shares of what it brings."""

    profile: str
    best_limits: list[int]
    best_tokens_per_s: list[float]
    limit: list[float]
    waiting: list[float]
    throughput: list[float]
    changed: list[float]
    late: list[float]
    frozen: list[float]
    frozen_from_the_start: list[float]
    outage: list[float]


def main(arguments: Iterable[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="adaptive", description=__doc__)
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="runs of each kind")
    parser.add_argument("--json", action="store_true", help="print every figure, as JSON")
    args = parser.parse_args(None if arguments is None else list(arguments))
    rows = [_row(profile, range(1, args.seeds + 1)) for profile in PROFILES]
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        print(_render(rows))
    return 0


def _row(profile: Profile, seeds: Iterable[int]) -> Row:
    row = Row(profile=profile.name, best_limits=[], best_tokens_per_s=[], limit=[], waiting=[],
              throughput=[], changed=[], late=[], frozen=[], frozen_from_the_start=[],
              outage=[])  # fmt: skip
    for seed in seeds:
        progress(f"{profile.name}, seed {seed}")
        limit, best = best_fixed(profile, _OVERLOAD, seed, _LIMITS)
        row.best_limits.append(limit)
        row.best_tokens_per_s.append(best)
        found = _adaptive(profile, _OVERLOAD, seed)
        row.limit.append(found.limit)
        row.waiting.append(found.waiting)
        row.throughput.append(found.tokens_per_s / best)
        change = Load(
            from_s=_CHANGE_S + 30,
            until_s=_CHANGE_S + 120,
            rate_per_s=_LOAD_BEFORE * best / profile.output_tokens,
            change_s=_CHANGE_S,
            change_factor=_CHANGE_FACTOR,
        )
        changed = best_fixed(profile, change, seed, _LIMITS)[1]
        row.changed.append(_adaptive(profile, change, seed).tokens_per_s / changed)
        for shares, reports in (
            (row.late, late(_LATE_S)),
            (row.frozen, frozen(_LOST_S)),
            (row.frozen_from_the_start, frozen(0)),
            (row.outage, outage(_LOST_S)),
        ):
            shares.append(_adaptive(profile, _OVERLOAD, seed, reports).tokens_per_s / best)
    return row


def _adaptive(profile: Profile, load: Load, seed: int, reports: Reports = fresh) -> Figures:
    return run(profile, AdaptiveOptions(), load, seed, reports)


def _render(rows: list[Row]) -> str:
    head = (
        *("profile", "best fixed limit", "tokens/s", "limit found", "waiting in the engine"),
        *("throughput", "load times 4", "reports 5 s late", "frozen at 60 s"),
        *("frozen from the start", "none after 60 s"),
    )
    return "\n".join(table([head, *map(_cells, rows)]))


def _cells(row: Row) -> list[str]:
    shares = (row.throughput, row.changed, row.late, row.frozen, row.frozen_from_the_start)
    return [
        row.profile,
        ", ".join(map(str, row.best_limits)),
        f"{fmean(row.best_tokens_per_s):.0f}",
        f"{fmean(row.limit):.0f}",
        f"{fmean(row.waiting):.2f}",
        *map(_shares, (*shares, row.outage)),
    ]


def _shares(shares: list[float]) -> str:
    return f"{100 * fmean(shares):.0f}% ({100 * min(shares):.0f} to {100 * max(shares):.0f})"


if __name__ == "__main__":
    sys.exit(main())
