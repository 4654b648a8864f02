"""``epp up``: the whole gateway on this machine, with one command."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epp.gateway.local import UpOptions

__all__ = ["add_parser"]

_DESCRIPTION = """\
Run a whole inference gateway on this machine, on loopback only: simulated model servers, the
endpoint picker, and Envoy in front of them. It prints how to send requests of different priority,
and runs until Ctrl-C or until one of its parts fails.
"""
_EPILOG = """\
With --manifests, the pool and its objectives are those in DIR. If DIR has endpoints too, they are
the model servers, and none are simulated. Every port can be 0, which takes a free one.
"""
_PORTS = (
    ("--port", 8080, "the gateway: send requests here"),
    ("--metrics-port", 9090, "the EPP's /metrics, /healthz and /readyz"),
    ("--grpc-port", 9002, "the EPP's ext_proc service"),
    ("--health-port", 9003, "the EPP's gRPC health service"),
    ("--admin-port", 9901, "Envoy's admin page"),
)
_MAX_SERVERS = 100


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the ``up`` command."""
    parser = subcommands.add_parser(
        "up",
        help="run a gateway with everything it needs on this machine",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add(
        "--servers",
        type=_servers,
        default=3,
        metavar="N",
        help="simulated model servers (default: %(default)s)",
    )
    add(
        "--slots",
        type=_positive,
        metavar="N",
        help="requests that a server runs at once and that the EPP sends it at most (default: 4 for"
        " simulated servers, the default of `epp serve` for others)",
    )
    add(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="an EndpointPickerConfig for the EPP (docs/configuration.md); a saturation detector"
        " there says how many requests it sends a server, in place of --slots",
    )
    add("--manifests", type=Path, metavar="DIR", help="directory of manifests of your own")
    add("--pool-name", metavar="NAME", help="the pool to serve, if DIR has several")
    add("--pool-namespace", metavar="NAMESPACE", help="the namespace of that pool")
    add("--envoy", metavar="PATH", help="an Envoy binary of your own (default: the packaged one)")
    add(
        "--envoy-concurrency",
        type=_positive,
        default=1,
        metavar="N",
        help="Envoy's worker threads (default: %(default)s)",
    )
    add(
        "--response-body",
        choices=("none", "duplex"),
        default="none",
        help="whether responses pass through the EPP, which then knows their tokens, at a cost"
        " (default: %(default)s)",
    )
    add(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="keep logs, manifests and Envoy's files here (default: a temporary directory)",
    )
    add("--json", action="store_true", help="print one line of JSON when ready, nothing else")
    ports = parser.add_argument_group("ports")
    for flag, default, text in _PORTS:
        ports.add_argument(
            flag, type=_port, default=default, metavar="PORT", help=f"{text} (default: {default})"
        )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import asyncio

    from epp.gateway.extra import require_extra

    require_extra()
    from epp.gateway.local import LocalGateway
    from epp.gateway.state import StateDirectory

    options = _options(args)
    state = StateDirectory(args.state_dir)

    async def run() -> bool:
        return await LocalGateway(options, state).run()

    keep = False
    try:
        stopped_by_user = asyncio.run(run())
        # What failed can be looked up there.
        keep = not stopped_by_user
    finally:
        if not keep:
            state.remove()
    return 0 if stopped_by_user else 1


def _options(args: argparse.Namespace) -> "UpOptions":
    from epp.config.picker_config import PickerConfig, read_picker_config
    from epp.gateway.envoy_binary import find_envoy
    from epp.gateway.local import UpOptions
    from epp.gateway.ports import claim_ports

    # Here, too, so that what is wrong with it is told before anything is started.
    config = read_picker_config(args.config_file) if args.config_file else PickerConfig()
    envoy = find_envoy(args.envoy)
    wanted = [(flag, getattr(args, flag[2:].replace("-", "_"))) for flag, _, _ in _PORTS]
    port, metrics, grpc, health, admin, *servers = claim_ports(
        [*wanted, *([("--servers", 0)] * args.servers)]
    )
    return UpOptions(
        port=port,
        metrics_port=metrics,
        grpc_port=grpc,
        health_port=health,
        admin_port=admin,
        server_ports=tuple(servers),
        slots=args.slots,
        config_file=args.config_file,
        names_detector=config.saturation is not None,
        manifests=args.manifests,
        pool_name=args.pool_name,
        pool_namespace=args.pool_namespace,
        envoy=envoy,
        envoy_concurrency=args.envoy_concurrency,
        response_body_mode="NONE" if args.response_body == "none" else "FULL_DUPLEX_STREAMED",
        as_json=args.json,
    )


def _port(text: str) -> int:
    return _number(text, 0, 65_535)


def _servers(text: str) -> int:
    return _number(text, 1, _MAX_SERVERS)


def _positive(text: str) -> int:
    return _number(text, 1, 10_000)


def _number(text: str, lowest: int, highest: int) -> int:
    if text.isascii() and text.isdecimal() and lowest <= int(text) <= highest:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"expected a whole number from {lowest} to {highest}, got {text!r}"
    )
