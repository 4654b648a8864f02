"""The options of the command line that say what a configuration says: given, they win over it."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from msgspec.structs import replace

from epp.config.data_plugins import SHORTEST_INTERVAL_S, scrape_intervals
from epp.config.quantities import Duration
from epp.config.scrape import ScrapeOptions, ScrapeScheme
from epp.core.flow import BandOptions, FlowLimits
from epp.core.flow.saturation import ConcurrencyOptions, SaturationOptions
from epp.errors import UsageError

if TYPE_CHECKING:
    from epp.config.picker_config import PickerConfig

__all__ = [
    "add_flow_arguments",
    "add_scrape_arguments",
    "add_switch",
    "key_of",
    "name_list",
    "picker_config",
    "port",
    "positive",
    "seconds",
    "switch",
    "whole_number",
]

_NO_DOCUMENT: Final = b"{}"


def add_flow_arguments(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add ``--config-file``, ``--config-text``, and the options that win over what these say.

    None of them has a default: whether they were given matters. Returns their group.
    """
    group = parser.add_argument_group(
        "flow control", "What is given here wins over what the configuration says."
    )
    flow = FlowLimits()

    def add(flag: str, **options: object) -> None:
        group.add_argument(flag, default=argparse.SUPPRESS, **options)  # type: ignore[arg-type]

    add("--config-file", type=Path, metavar="FILE",
        help="an EndpointPickerConfig; the options below win over it")  # fmt: skip
    add("--config-text", metavar="YAML", help="the same, as the option's text")
    add("--max-concurrency", type=positive, metavar="N",
        help="most requests in flight at one endpoint: the concurrency-detector, whichever the"
        " configuration names")  # fmt: skip
    add("--max-queued-requests", type=positive, metavar="N",
        help=f"most requests that wait (default: {flow.max_requests})")  # fmt: skip
    add("--max-queued-bytes", type=positive, metavar="BYTES",
        help=f"most bytes of request bodies that wait (default: {flow.max_bytes})")  # fmt: skip
    add("--request-ttl", type=seconds, metavar="SECONDS",
        help="longest wait in the queue; 0 waits without end"
        f" (default: {flow.wait_limit_s:g})")  # fmt: skip
    add("--no-endpoint-ttl", type=seconds, metavar="SECONDS",
        help="longest wait while the pool has no endpoint; 0 waits without end"
        f" (default: {flow.no_endpoint_wait_limit_s:g})")  # fmt: skip
    add("--reject-hopeless", action=argparse.BooleanOptionalAction,
        help="refuse on arrival what would expire before its turn, by the measured drain rate"
        f" (default: {flow.reject_hopeless})")  # fmt: skip
    return group


def add_scrape_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that win over the configuration's data layer. None of them has a default."""
    group = parser.add_argument_group(
        "model servers' metrics", "What is given here wins over what the configuration says."
    )
    scrape = ScrapeOptions()

    def add(flag: str, **options: object) -> None:
        group.add_argument(flag, default=argparse.SUPPRESS, **options)  # type: ignore[arg-type]

    add("--scrape", action=argparse.BooleanOptionalAction,
        help="fetch every endpoint's metrics page, for the load of its engine"
        " (default: True)")  # fmt: skip
    add("--metrics-scrape-interval", type=_interval, metavar="SECONDS",
        help="fetch it about so often; a fifth as often where nothing runs or waits, four times as"
        f" often where requests wait in the engine (default: {scrape.interval_s:g})")  # fmt: skip
    add("--metrics-scrape-path", type=_path, metavar="PATH",
        help=f"where the page is (default: {scrape.path})")  # fmt: skip
    add("--metrics-scrape-scheme", choices=get_args(ScrapeScheme),
        help="how it is fetched; with https, certificates are not verified unless the configuration"
        f" says so (default: {scrape.scheme})")  # fmt: skip


def picker_config(args: argparse.Namespace) -> "PickerConfig":
    """Return what the configuration says, if there is one, and what the options say in its place.

    Raises UsageError, PickerConfigError included, for what is wrong with it.
    """
    given = vars(args)
    requests, volume = given.get("max_queued_requests"), given.get("max_queued_bytes")
    # Who wants to queue so much, wants it also where all of it is of one priority.
    band = BandOptions()
    if requests is not None:
        band = replace(band, max_requests=requests)
    if volume is not None:
        band = replace(band, max_bytes=volume)
    config = _read(given.get("config_file"), given.get("config_text"), band)
    limits = config.flow.limits
    if requests is not None:
        limits = replace(limits, max_requests=requests)
    if volume is not None:
        limits = replace(limits, max_bytes=volume)
    if "request_ttl" in given:
        limits = replace(limits, wait_limit_s=given["request_ttl"] or None)
    if "no_endpoint_ttl" in given:
        limits = replace(limits, no_endpoint_wait_limit_s=given["no_endpoint_ttl"] or None)
    if "reject_hopeless" in given:
        limits = replace(limits, reject_hopeless=given["reject_hopeless"])
    if "max_concurrency" in given:
        config = replace(config, saturation=_fixed(config.saturation, given["max_concurrency"]))
    return replace(
        config,
        flow=replace(config.flow, limits=limits),
        scrape=_scrape_options(config.scrape, given),
    )


def _scrape_options(
    configured: ScrapeOptions | None, given: Mapping[str, Any]
) -> ScrapeOptions | None:
    is_wanted = given.get("scrape", configured is not None)
    if not is_wanted:
        return None
    options = configured or ScrapeOptions()
    if "metrics_scrape_interval" in given:
        options = replace(options, **scrape_intervals(given["metrics_scrape_interval"]))
    if "metrics_scrape_path" in given:
        options = replace(options, path=given["metrics_scrape_path"])
    if "metrics_scrape_scheme" in given:
        options = replace(options, scheme=given["metrics_scrape_scheme"])
    return options


def _read(path: Path | None, text: str | None, band: BandOptions) -> "PickerConfig":
    from epp.config.picker_config import parse_picker_config, read_picker_config

    if path is not None and text is not None:
        raise UsageError("found both --config-file and --config-text; expected one of them")
    if path is not None:
        return read_picker_config(path, band=band)
    data = _NO_DOCUMENT if text is None else text.encode("utf-8", "surrogateescape")
    return parse_picker_config("--config-text", data, band=band)


def _fixed(options: SaturationOptions | None, max_requests: int) -> ConcurrencyOptions:
    if isinstance(options, ConcurrencyOptions):
        return replace(options, max_requests=max_requests)
    return ConcurrencyOptions(max_requests=max_requests)


def _interval(text: str) -> float:
    found_s = seconds(text)
    if found_s < SHORTEST_INTERVAL_S:
        raise argparse.ArgumentTypeError(f"{text!r} is less than {SHORTEST_INTERVAL_S} seconds")
    return found_s


def _path(text: str) -> str:
    if text.startswith("/") and text.isascii() and text.isprintable() and " " not in text:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not a path that begins with /")


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    return whole_number(text, 1, 1 << 62, "a whole number of at least 1")


def whole_number(text: str, lowest: int, highest: int, expected: str) -> int:
    """Parse a whole number within bounds."""
    if text.isascii() and text.isdigit() and lowest <= int(text) <= highest:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")


def name_list(text: str) -> list[str]:
    """Parse names with commas between."""
    names = [part.strip() for part in text.split(",")]
    if all(names):
        return names
    raise argparse.ArgumentTypeError(f"{text!r} is not a list of names with commas between")


def port(text: str) -> int:
    """Parse the number of a port to listen on; 0 stands for any that is free."""
    return whole_number(text, 0, 65_535, "a port")


def seconds(text: str) -> float:
    """Parse a time of at least 0: seconds (``30``, ``0.5``), or as Go writes it (``1m30s``)."""
    try:
        found = float(text)
    except ValueError:
        try:
            found = Duration.parse(text)
        except ValueError:
            found = -1.0
    if 0 <= found < float("inf"):
        return float(found)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, such as 30 or 1m30s")


def switch(text: str) -> bool:
    """Parse what Go takes for a boolean."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def add_switch(
    group: "argparse._ArgumentGroup", flag: str, *, help: str, default: object = argparse.SUPPRESS
) -> None:
    """Add an option that is switched on by ``--flag`` and on or off by ``--flag=true|false``."""
    group.add_argument(
        flag, nargs="?", const=True, type=switch, default=default, metavar="true|false", help=help
    )


def key_of(flag: str) -> str:
    """Return the name under which argparse keeps what was given for a flag, ``--like-this``."""
    return flag[2:].replace("-", "_")
