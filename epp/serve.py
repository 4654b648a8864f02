"""``epp serve``: run the endpoint picker."""

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args

from msgspec.structs import replace

from epp.config.arguments import (
    add_flow_arguments,
    add_scrape_arguments,
    picker_config,
    port,
    positive,
    seconds,
)
from epp.config.cluster_arguments import (
    add_cluster_arguments,
    add_pool_arguments,
    cluster_options,
)
from epp.config.options import ServeOptions, TransportName
from epp.config.reference_flags import (
    accept_empty,
    accept_one_dash,
    add_reference_flags,
    heed_reference_flags,
)
from epp.config.security_arguments import (
    SecurityOptions,
    add_security_arguments,
    security_options,
)
from epp.core.claims import ClaimsOptions
from epp.core.exchange import ExchangeLimits
from epp.discovery.cluster import ClusterOptions
from epp.observability.logs import LogFormat, set_up_logging

if TYPE_CHECKING:
    from epp.config.picker_config import PickerConfig
    from epp.service import Service

__all__ = ["add_parser"]

logger = logging.getLogger(__name__)

_HANDOVER_S = 5.0
_T = TypeVar("_T")

_Main: TypeAlias = Coroutine[Any, Any, None]


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subcommands.add_parser(
        "serve",
        usage="epp serve (--manifests DIR | --pool-name NAME | --endpoint-selector SELECTOR |"
        " …) [option …]",
        help="run the endpoint picker beside a gateway of your own",
        description="Run the endpoint picker: an ext_proc server for Envoy or any gateway that"
        " speaks ext_proc, with its pools, objectives and endpoints from a Kubernetes cluster or"
        " from a directory of manifests. Times are in seconds (30) or as Go writes them (1m30s).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_resource_arguments(parser.add_argument_group("resources"))
    add_cluster_arguments(parser)
    _add_listen_arguments(parser.add_argument_group("listening"))
    add_security_arguments(parser)
    add_flow_arguments(parser).add_argument(
        "--max-body-bytes", type=positive, default=argparse.SUPPRESS, metavar="BYTES",
        help="largest request body; a larger one is answered 413"
        f" (default: {ExchangeLimits().max_body_bytes})",
    )  # fmt: skip
    add_scrape_arguments(parser)
    _add_process_arguments(parser.add_argument_group("process"))
    add_reference_flags(parser)
    accept_empty(parser)
    accept_one_dash(parser)
    parser.set_defaults(run=_run)


def _add_process_arguments(group: "argparse._ArgumentGroup") -> None:
    defaults = ServeOptions(manifests=())

    def add(flag: str, **options: Any) -> None:
        group.add_argument(flag, **{"default": argparse.SUPPRESS, **options})

    add("--handover-timeout", type=seconds, metavar="SECONDS",
        help="after SIGTERM, be not ready but go on as before for so long, in which gateways notice"
        f" (default: {_HANDOVER_S:g} in a cluster, else 0)")  # fmt: skip
    add("--drain-timeout", type=seconds, default=defaults.drain_timeout_s, metavar="SECONDS",
        help="after SIGTERM, go on dispatching queued requests for so long")  # fmt: skip
    add("--shutdown-grace", type=seconds, default=defaults.shutdown_grace_s, metavar="SECONDS",
        help="then, give running requests so long to end")  # fmt: skip
    add("--workers", type=positive, default=defaults.workers, metavar="N",
        help="processes that serve ext_proc; with more than one, another one decides for all"
        )  # fmt: skip
    add("--connection-streams", type=positive, default=defaults.connection_streams, metavar="N",
        help="with several workers, the most streams that the gateway is to open on one of its"
        " connections, which are what is spread over the workers")  # fmt: skip
    add("--core-gap-timeout", type=seconds, default=defaults.core_gap_timeout_s, metavar="SECONDS",
        help="with several workers, let requests wait so long where nobody decides, then pick the"
        " least loaded endpoint")  # fmt: skip
    add("--log-level", choices=("debug", "info", "warning", "error"), help="(default: info)")
    add("--log-format", choices=get_args(LogFormat),
        help="lines of text, or a JSON object on each line (default: text)")  # fmt: skip


def _add_resource_arguments(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--manifests",
        type=Path,
        action="append",
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="directory of YAML manifests: InferencePool, InferenceObjective, endpoints;"
        " watched for changes; may be given more than once",
    )
    add_pool_arguments(group)
    group.add_argument(
        "--eds-file", type=Path, metavar="FILE", default=argparse.SUPPRESS,
        help="keep this file of endpoints for Envoy's EDS",
    )  # fmt: skip


def _add_listen_arguments(group: "argparse._ArgumentGroup") -> None:
    defaults = ServeOptions(manifests=())
    group.add_argument("--host", default=defaults.host, help="address to listen on")
    group.add_argument(
        "--grpc-port", type=port, default=defaults.grpc_port, help="ext_proc and gRPC health"
    )
    group.add_argument(
        "--health-port", type=port, default=defaults.health_port, help="gRPC health alone"
    )
    group.add_argument(
        "--metrics-port",
        type=port,
        default=defaults.metrics_port,
        help="HTTP: /metrics, /healthz, /readyz",
    )
    group.add_argument(
        "--transport",
        choices=get_args(TransportName),
        default=defaults.transport,
        help="what speaks HTTP/2 with the gateway: our own, or grpcio's asyncio server",
    )


def _run(args: argparse.Namespace) -> int:
    from epp.memory import keep_freed_memory
    from epp.service import Service

    notes = heed_reference_flags(args)
    cluster = cluster_options(args)
    security = security_options(args, is_in_cluster=cluster is not None)
    picker = picker_config(args)
    options = _options(args, picker, cluster, security)
    notes += [*security.notes, *picker.notes]
    keep_freed_memory()
    if options.workers == 1:
        set_up_logging(args.log_level, form=args.log_format)
        _log_notes(notes)
        _run_loop(_serve(lambda: Service(options)))
        return 0

    from epp.workers.launch import CoreSeat, launch

    def core(options: ServeOptions, seat: CoreSeat, tell_ready: Callable[[], None]) -> _Main:
        return _serve(lambda: Service(options, seat), tell_ready)

    def run(process: str, main: _Main) -> None:
        set_up_logging(args.log_level, process, args.log_format)
        _run_loop(main)

    set_up_logging(args.log_level, "parent", args.log_format)
    _log_notes(notes)
    return launch(options, core, run)


def _log_notes(notes: Iterable[str]) -> None:
    for note in notes:
        logger.warning("configuration: %s", note)


def _run_loop(main: _Main) -> None:
    from epp.memory import settle_garbage_collection

    settle_garbage_collection()
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _options(
    args: argparse.Namespace,
    picker: "PickerConfig",
    cluster: ClusterOptions | None,
    security: SecurityOptions,
) -> ServeOptions:
    given = vars(args)
    config_file: Path | None = given.get("config_file")

    def reread() -> ServeOptions:
        return _options(args, picker_config(args), cluster, security)

    return ServeOptions(
        manifests=tuple(given.get("manifests", ())),
        cluster=cluster,
        pool_names=tuple(dict.fromkeys(given.get("pool_name", ()))),
        pool_selector=given.get("pool_selector", ""),
        pool_namespace=given.get("pool_namespace"),
        host=args.host,
        grpc_port=args.grpc_port,
        health_port=args.health_port,
        metrics_port=args.metrics_port,
        transport=args.transport,
        **security.fields(),
        eds_file=given.get("eds_file"),
        saturation=picker.saturation or ServeOptions(manifests=()).saturation,
        flow=picker.flow,
        claims=_claims_options(args, picker),
        exchange=_exchange_limits(args, picker),
        scrape=picker.scrape,
        handover_s=_handover_s(args),
        drain_timeout_s=args.drain_timeout,
        shutdown_grace_s=args.shutdown_grace,
        workers=args.workers,
        connection_streams=args.connection_streams,
        core_gap_timeout_s=args.core_gap_timeout,
        new_scheduler=picker.new_scheduler,
        config_file=config_file,
        reread=None if config_file is None else reread,
    )


def _claims_options(args: argparse.Namespace, picker: "PickerConfig") -> ClaimsOptions:
    heeds_subset = not vars(args).get("disable_endpoint_subset_filter", False)
    return replace(picker.claims, heeds_subset=heeds_subset)


def _exchange_limits(args: argparse.Namespace, picker: "PickerConfig") -> ExchangeLimits:
    limits = ExchangeLimits(max_body_bytes=args.max_body_bytes)
    return limits if picker.reads_bodies else replace(limits, max_inspected_bytes=0)


def _handover_s(args: argparse.Namespace) -> float:
    default = 0.0 if hasattr(args, "manifests") else _HANDOVER_S
    return float(getattr(args, "handover_timeout", default))


async def _serve(
    make_service: "Callable[[], Service]", tell_ready: Callable[[], None] = lambda: None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    async with AsyncExitStack() as exits:
        service = await _unless_stopped(exits.enter_async_context(make_service()), stop)
        if service is None:
            return
        loop.add_signal_handler(signal.SIGHUP, service.reload)
        tell_ready()
        await stop.wait()
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C does not wait


async def _unless_stopped(work: Coroutine[Any, Any, _T], stop: asyncio.Event) -> _T | None:
    """Return what comes of some work; None, and no more of it, where there is a stop before.

    An EPP that starts may wait for an API server that does not come.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait((working,))
        return None
    return working.result()
