"""``epp check``: is a configuration good, and what does it say."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epp.config.picker_config import PickerConfig
    from epp.config.scrape import ScrapeOptions
    from epp.core.flow import BandOptions
    from epp.core.flow.saturation import SaturationOptions

__all__ = ["add_parser"]

_UNBOUNDED = 1 << 62


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subcommands.add_parser(
        "check",
        help="check a configuration file and tell what it says",
        description="Check an EndpointPickerConfig without starting anything: a short summary and"
        " exit code 0 if it can be used, all that is wrong with it and exit code 2 if not.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="an EndpointPickerConfig")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import sys

    from epp.config.picker_config import PickerConfigError, read_picker_config

    try:
        config = read_picker_config(args.file)
    except PickerConfigError as error:
        for problem in error.problems:
            print(f"epp: {problem}", file=sys.stderr)
        return 2
    for note in config.notes:
        print(f"note: {note}")
    for line in _summary(config):
        print(line)
    return 0


def _summary(config: "PickerConfig") -> list[str]:
    flow, limits = config.flow, config.flow.limits
    sources = [str(source.__struct_config__.tag) for source in config.claims.fairness_id]
    lines = [
        *_profiles(config),
        f"scraping: {_scraping(config.scrape)}",
        *([] if config.reads_bodies else ["bodies: not looked into"]),
        f"queue: {_bounds(limits.max_requests, limits.max_bytes)}; waits"
        f" {_time(limits.wait_limit_s)}, {_time(limits.no_endpoint_wait_limit_s)} while the pool is"
        " empty",
        f"detector: {_detector(config.saturation)}",
        f"usage limit: {flow.usage_limit.policy}",
        f"eviction: {'on' if flow.eviction else 'off'}",
        f"fairness ids from: {', '.join(sources) or 'nowhere'}",
    ]
    bands = {f"band {priority}": flow.bands[priority] for priority in sorted(flow.bands)[::-1]}
    if flow.negative_band is not None:
        bands["other bands below 0"] = flow.negative_band
    bands["other bands"] = flow.band
    return lines + [f"{title}: {_band(options)}" for title, options in bands.items()]


def _profiles(config: "PickerConfig") -> list[str]:
    lines: list[str] = []
    for profile in config.scheduling.new_scheduler().profiles.values():
        filters = [each.name for each in profile.filters]
        scorers = [f"{each.name} {each.weight:g}" for each in profile.scorers]
        parts = [", ".join(filters), " + ".join(scorers), profile.picker_name]
        lines.append(f"profile {profile.name}: {' → '.join(filter(None, parts))}")
    return lines


def _scraping(options: "ScrapeOptions | None") -> str:
    if options is None:
        return "off"
    port = "the endpoint's port" if options.port is None else f"port {options.port}"
    return f"{options.scheme}, {port}, {options.path}, every {_time(options.interval_s)}"


def _detector(options: "SaturationOptions | None") -> str:
    from epp.core.flow.saturation import ConcurrencyOptions, UtilizationOptions

    if options is None:
        return "the default of epp serve"
    if isinstance(options, ConcurrencyOptions):
        return "concurrency"
    return "utilization" if isinstance(options, UtilizationOptions) else "adaptive"


def _band(band: "BandOptions") -> str:
    parts = [band.fairness, band.ordering, _bounds(band.max_requests, band.max_bytes)]
    if band.min_share:
        parts.append(f"at least {band.min_share:.0%} of dispatches")
    if band.max_wait_s is not None:
        parts.append(f"goes next after {_time(band.max_wait_s)}")
    if band.wait_limit_s is not None:
        parts.append(f"waits {_time(band.wait_limit_s)}")
    return "; ".join(parts)


def _bounds(requests: int, volume: int) -> str:
    most = "any number of" if requests > _UNBOUNDED else f"{requests:,}"
    return f"{most} requests, {'any number of' if volume > _UNBOUNDED else f'{volume:,}'} bytes"


def _time(time_s: float | None) -> str:
    return "without end" if time_s is None or time_s == float("inf") else f"{time_s:g} s"
