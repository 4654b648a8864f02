"""``epp serve``: run the endpoint picker."""

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from msgspec.structs import replace

from epp.config.arguments import (
    add_flow_arguments,
    add_scrape_arguments,
    picker_config,
    positive,
    seconds,
    whole_number,
)
from epp.config.options import ServeOptions, TlsVersion, TransportName
from epp.core.exchange import ExchangeLimits

if TYPE_CHECKING:
    from epp.config.picker_config import PickerConfig
    from epp.service import Service

__all__ = ["add_parser"]

logger = logging.getLogger(__name__)

_Main: TypeAlias = Coroutine[Any, Any, None]


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subcommands.add_parser(
        "serve",
        help="run the endpoint picker beside a gateway of your own",
        description="Run the endpoint picker: an ext_proc server for Envoy or any gateway that"
        " speaks ext_proc, with its pool, objectives and endpoints from a directory of manifests.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_resource_arguments(parser.add_argument_group("resources"))
    _add_listen_arguments(parser.add_argument_group("listening"))
    add_flow_arguments(parser).add_argument(
        "--max-body-bytes", type=positive, default=ExchangeLimits().max_body_bytes, metavar="BYTES",
        help="largest request body; a larger one is answered 413",
    )  # fmt: skip
    add_scrape_arguments(parser)
    process = parser.add_argument_group("process")
    defaults = ServeOptions(manifests=())
    process.add_argument(
        "--drain-timeout",
        type=seconds,
        default=defaults.drain_timeout_s,
        metavar="SECONDS",
        help="after SIGTERM, go on dispatching queued requests for so long",
    )
    process.add_argument(
        "--shutdown-grace",
        type=seconds,
        default=defaults.shutdown_grace_s,
        metavar="SECONDS",
        help="then, give running requests so long to end",
    )
    process.add_argument(
        "--workers",
        type=positive,
        default=defaults.workers,
        metavar="N",
        help="processes that serve ext_proc; with more than one, another one decides for all",
    )
    process.add_argument(
        "--connection-streams",
        type=positive,
        default=defaults.connection_streams,
        metavar="N",
        help="with several workers, the most streams that the gateway is to open on one of its"
        " connections, which are what is spread over the workers",
    )
    process.add_argument(
        "--core-gap-timeout",
        type=seconds,
        default=defaults.core_gap_timeout_s,
        metavar="SECONDS",
        help="with several workers, let requests wait so long where nobody decides, then pick the"
        " least loaded endpoint",
    )
    process.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )
    parser.set_defaults(run=_run)


def _add_resource_arguments(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--manifests",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="directory of YAML manifests: InferencePool, InferenceObjective, endpoints;"
        " watched for changes; may be given more than once",
    )
    group.add_argument(
        "--pool-name", metavar="NAME", help="the pool to serve, if there are several"
    )
    group.add_argument("--pool-namespace", metavar="NAMESPACE", help="the namespace of that pool")
    group.add_argument(
        "--eds-file", type=Path, metavar="FILE", help="keep this file of endpoints for Envoy's EDS"
    )


def _add_listen_arguments(group: "argparse._ArgumentGroup") -> None:
    defaults = ServeOptions(manifests=())
    group.add_argument("--host", default=defaults.host, help="address to listen on")
    group.add_argument(
        "--grpc-port", type=_port, default=defaults.grpc_port, help="ext_proc and gRPC health"
    )
    group.add_argument(
        "--health-port", type=_port, default=defaults.health_port, help="gRPC health alone"
    )
    group.add_argument(
        "--metrics-port",
        type=_port,
        default=defaults.metrics_port,
        help="HTTP: /metrics, /healthz, /readyz",
    )
    group.add_argument(
        "--transport",
        choices=get_args(TransportName),
        default=defaults.transport,
        help="what speaks HTTP/2 with the gateway: our own, or grpcio's asyncio server",
    )
    group.add_argument(
        "--cert-path", type=Path, metavar="DIR",
        help="serve ext_proc with TLS: directory of tls.crt and tls.key, which are watched for"
        " changes; plaintext without it",
    )  # fmt: skip
    group.add_argument(
        "--client-ca-file", type=Path, metavar="FILE",
        help="take only clients whose certificate is signed by an authority in this file",
    )  # fmt: skip
    group.add_argument(
        "--tls-min-version",
        choices=get_args(TlsVersion),
        default=defaults.tls_min_version,
        help="oldest version of TLS that is spoken",
    )


def _run(args: argparse.Namespace) -> int:
    from epp.memory import keep_freed_memory
    from epp.observability.logs import set_up_logging
    from epp.service import Service

    picker = picker_config(args)
    options = _options(args, picker)
    keep_freed_memory()
    if options.workers == 1:
        set_up_logging(args.log_level)
        _log_notes(picker.notes)
        _run_loop(_serve(lambda: Service(options)))
        return 0

    from epp.workers.launch import CoreSeat, launch

    def core(options: ServeOptions, seat: CoreSeat, tell_ready: Callable[[], None]) -> _Main:
        return _serve(lambda: Service(options, seat), tell_ready)

    def run(process: str, main: _Main) -> None:
        set_up_logging(args.log_level, process)
        _run_loop(main)

    set_up_logging(args.log_level, "parent")
    _log_notes(picker.notes)
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


def _options(args: argparse.Namespace, picker: "PickerConfig") -> ServeOptions:
    config_file: Path | None = getattr(args, "config_file", None)
    return ServeOptions(
        manifests=tuple(args.manifests),
        pool_name=args.pool_name,
        pool_namespace=args.pool_namespace,
        host=args.host,
        grpc_port=args.grpc_port,
        health_port=args.health_port,
        metrics_port=args.metrics_port,
        transport=args.transport,
        cert_path=args.cert_path,
        client_ca_file=args.client_ca_file,
        tls_min_version=args.tls_min_version,
        eds_file=args.eds_file,
        saturation=picker.saturation or ServeOptions(manifests=()).saturation,
        flow=picker.flow,
        claims=picker.claims,
        exchange=_exchange_limits(args, picker),
        scrape=picker.scrape,
        drain_timeout_s=args.drain_timeout,
        shutdown_grace_s=args.shutdown_grace,
        workers=args.workers,
        connection_streams=args.connection_streams,
        core_gap_timeout_s=args.core_gap_timeout,
        new_scheduler=picker.new_scheduler,
        config_file=config_file,
        reread=None if config_file is None else lambda: _options(args, picker_config(args)),
    )


def _exchange_limits(args: argparse.Namespace, picker: "PickerConfig") -> ExchangeLimits:
    limits = ExchangeLimits(max_body_bytes=args.max_body_bytes)
    return limits if picker.reads_bodies else replace(limits, max_inspected_bytes=0)


async def _serve(
    make_service: "Callable[[], Service]", tell_ready: Callable[[], None] = lambda: None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.set)
    async with make_service() as service:
        loop.add_signal_handler(signal.SIGHUP, service.reload)
        tell_ready()
        await stop.wait()
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C does not wait


def _port(text: str) -> int:
    return whole_number(text, 0, 65_535, "a port")
