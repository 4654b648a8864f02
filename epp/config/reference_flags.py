"""The command-line flags of the Go EPP that have another name here, or another meaning, or none.

They are accepted so that a Deployment can be switched over by changing its image. What one of them
does here, if anything, :func:`heed_reference_flags` puts into the arguments; what it does not do is
told in a note for the log. Those with the same name and meaning stand where all options stand.
"""

import argparse
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from epp.config.arguments import add_switch, key_of, port, seconds, switch
from epp.config.data_plugins import SHORTEST_INTERVAL_S
from epp.config.quantities import MAX_QUANTITY, Quantity
from epp.core.exchange import ExchangeLimits
from epp.errors import UsageError

__all__ = ["accept_empty", "accept_one_dash", "add_reference_flags", "heed_reference_flags"]

METRIC_NAMES: Final = {
    "--total-queued-requests-metric": "vllm:num_requests_waiting",
    "--total-running-requests-metric": "vllm:num_requests_running",
    "--kv-cache-usage-percentage-metric": "vllm:kv_cache_usage_perc",
    "--lora-info-metric": "vllm:lora_requests_info",
    "--cache-info-metric": "vllm:cache_config_info",
}
"""The deprecated flags for the names of engines' metrics, and their defaults, which alone they may
have."""

_EMPTY_BY_DEFAULT: Final = (
    "--cert-path", "--config-file", "--config-text", "--endpoint-selector",
    "--endpoint-target-ports", "--grpc-max-recv-msg-size", "--grpc-max-send-msg-size",
    "--kubeconfig", "--metrics-cert-dir", "--metrics-client-ca-file", "--pool-name",
    "--pool-namespace", "--tls-cipher-suites", "--tls-min-version",
)  # fmt: skip
_DEBUG_VERBOSITY: Final = 4
_LEVELS: Final = {"debug": "debug", "info": "info", "warn": "warning", "error": "error",
                  "dpanic": "error", "panic": "error", "fatal": "error"}  # fmt: skip


def _size(text: str) -> int:
    """Parse a size as the Go EPP takes it: ``10MiB``, ``25MB``, ``4194304``."""
    unit = re.fullmatch(r"(.*?)B?", text, re.DOTALL)
    try:
        found = Quantity.parse(unit[1] if unit else text)
    except ValueError:
        found = Quantity(MAX_QUANTITY)
    if found < MAX_QUANTITY:
        return int(found)
    raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 10MiB or 25MB")


def _verbosity(text: str) -> int:
    if re.fullmatch(r"-?[0-9]{1,3}", text, re.ASCII):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def _zap_level(text: str) -> str:
    if text in _LEVELS:
        return _LEVELS[text]
    if re.fullmatch(r"[1-9][0-9]{0,2}", text, re.ASCII):
        return "debug"
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a level: {', '.join(_LEVELS)}, or a number above 0"
    )


class _Unheeded(msgspec.Struct, frozen=True):
    """A flag that changes nothing: why not, and the value that asks for what is here anyway."""

    parse: Callable[[str], Any]
    reason: str
    quiet: object = None


_UNHEEDED: Final = {
    "--grpc-max-send-msg-size": _Unheeded(
        _size, "no message to the gateway is larger than a request's body"
    ),
    "--refresh-prometheus-metrics-interval": _Unheeded(
        seconds, "gauges are made whenever /metrics is read"
    ),
    "--metrics-staleness-threshold": _Unheeded(
        seconds,
        "gauges show what an engine said last, and scrape_age_seconds since when; what old figures"
        " mean for limits is said by metricsStalenessThreshold of a saturation detector",
    ),
    "--emit-endpoint-scores": _Unheeded(
        switch, "scores are not written into metadata; ask POST /debug/explain-pick", quiet=False
    ),
    "--enable-grpc-stream-metrics": _Unheeded(
        switch,
        "extproc_streams_inflight is always there; duration and result of streams are not counted",
        quiet=False,
    ),
    "--health-checking": _Unheeded(
        switch, "gRPC health is always served on the ext_proc port as well", quiet=True
    ),
    "--enable-cert-reload": _Unheeded(
        switch, "certificates that change are always read again", quiet=True
    ),
    "--enable-pprof": _Unheeded(
        switch, "profiles of Go's kind are not served", quiet=False
    ),
    "--tracing": _Unheeded(switch, "traces are not exported", quiet=False),
    "--allow-experimental-plugins": _Unheeded(
        switch, "every plugin type that is there may be used", quiet=False
    ),
    "--zap-devel": _Unheeded(switch, "the log's form is said by --log-format", quiet=False),
    "--zap-stacktrace-level": _Unheeded(
        str, "the log has a stack where something unexpected has failed"
    ),
    "--zap-time-encoding": _Unheeded(str, "times in the log are as ISO 8601 has them"),
}  # fmt: skip


def add_reference_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags, in a group of their own. None of them has a default."""
    group = parser.add_argument_group(
        "flags of the Go EPP",
        "Accepted so that its Deployment can be switched over; docs/command-line.md has them all.",
    )

    def add(*flags: str, **options: Any) -> None:
        group.add_argument(*flags, default=argparse.SUPPRESS, **options)

    add("--grpc-health-port", type=port, metavar="PORT", help="as --health-port")
    add("--refresh-metrics-interval", type=seconds, metavar="SECONDS",
        help=f"as --metrics-scrape-interval, {SHORTEST_INTERVAL_S:g} where it is less")  # fmt: skip
    add("--grpc-max-recv-msg-size", type=_size, metavar="SIZE",
        help="as --max-body-bytes, if it is more than the default of that")  # fmt: skip
    add_switch(group, "--disable-endpoint-subset-filter",
        help="pay no heed to the gateway's hint of which endpoints may be picked")  # fmt: skip
    add("-v", "--v", type=_verbosity, metavar="N",
        help=f"as --log-level: debug from {_DEBUG_VERBOSITY} on, else info")  # fmt: skip
    add("--zap-encoder", choices=("console", "json"), help="as --log-format")
    add("--zap-log-level", type=_zap_level, metavar="LEVEL", help="as --log-level")
    for flag in METRIC_NAMES:
        add(flag, metavar="NAME", help="deprecated: no other value than its default")
    for flag, unheeded in _UNHEEDED.items():
        help_text = f"changes nothing: {unheeded.reason.partition(';')[0]}"
        if unheeded.parse is switch:
            add_switch(group, flag, help=help_text)
        else:
            add(flag, type=unheeded.parse, metavar="VALUE", help=help_text)


def heed_reference_flags(args: argparse.Namespace) -> list[str]:
    """Put what the flags that were given mean into ``args``; return notes for the log.

    Options of our own that were given win. Raises UsageError for a metric's name that is not the
    default.
    """
    given = vars(args)
    _forget_empty(given)
    _check_metric_names(given)
    notes = [
        f"{flag} changes nothing: {unheeded.reason}"
        for flag, unheeded in _UNHEEDED.items()
        if key_of(flag) in given and given[key_of(flag)] != unheeded.quiet
    ]
    if "grpc_health_port" in given:
        args.health_port = args.grpc_health_port
    if "refresh_metrics_interval" in given:
        notes += _heed_interval(args)
    given.setdefault("log_level", _level(given))
    given.setdefault("log_format", "json" if given.get("zap_encoder") == "json" else "text")
    most_bytes = max(given.get("grpc_max_recv_msg_size", 0), ExchangeLimits().max_body_bytes)
    given.setdefault("max_body_bytes", most_bytes)
    return notes


def accept_empty(parser: argparse.ArgumentParser) -> None:
    """Let the flags that are empty by default in the Go EPP be given as such, as templates of
    manifests do: ``--kubeconfig=`` says nothing."""
    for flag in _EMPTY_BY_DEFAULT:
        action = parser._option_string_actions[flag]
        action.type = _unless_empty(action)


def _unless_empty(action: argparse.Action) -> Callable[[str], Any]:
    parse: Callable[[str], Any] = action.type or str  # type: ignore[assignment]
    empty: object = [] if isinstance(action, argparse._ExtendAction) else None
    if action.default != argparse.SUPPRESS:
        empty = action.default
    return lambda text: parse(text) if text else empty


def _forget_empty(given: dict[str, Any]) -> None:
    for flag in _EMPTY_BY_DEFAULT:
        value = given.get(key_of(flag))
        if isinstance(value, list):
            value = given[key_of(flag)] = [each for each in value if each is not None]
        if value is None or value == []:
            given.pop(key_of(flag), None)


def accept_one_dash(parser: argparse.ArgumentParser) -> None:
    """Let the parser take all its options with one dash as well, as Go does, and not show it."""
    actions = parser._option_string_actions
    actions.update({flag[1:]: action for flag, action in actions.items() if flag[:2] == "--"})


def _check_metric_names(given: dict[str, Any]) -> None:
    for flag, name in METRIC_NAMES.items():
        found = given.get(key_of(flag), name)
        if found != name:
            raise UsageError(
                f"{flag}: found {found!r}; expected its default, {name!r}: other names are for the"
                " configuration's core-metrics-extractor"
            )


def _heed_interval(args: argparse.Namespace) -> list[str]:
    if "metrics_scrape_interval" in args:
        return ["--refresh-metrics-interval changes nothing beside --metrics-scrape-interval"]
    wanted_s: float = args.refresh_metrics_interval
    args.metrics_scrape_interval = max(wanted_s, SHORTEST_INTERVAL_S)
    if wanted_s < SHORTEST_INTERVAL_S:
        return [f"--refresh-metrics-interval: {wanted_s:g} s is raised to {SHORTEST_INTERVAL_S:g}"]
    return []


def _level(given: dict[str, Any]) -> str:
    if "zap_log_level" in given:
        return str(given["zap_log_level"])
    return "debug" if given.get("v", 0) >= _DEBUG_VERBOSITY else "info"
