"""``epp envoy-config``: the bootstrap of a gateway, for an Envoy of one's own."""

import argparse
from typing import TYPE_CHECKING

from epp.errors import UsageError

if TYPE_CHECKING:
    from epp.gateway.options import GatewayOptions

__all__ = ["add_parser"]

_EXT_PROC = "127.0.0.1:9002"

_HEADER = """\
# Envoy's bootstrap for a gateway with an endpoint picker, written by `epp envoy-config`.
#
# Change what you like, but keep this, on which the endpoint picker (EPP) relies:
#
# * ext_proc filter: request and response headers and trailers SEND, with request_body_mode
#   FULL_DUPLEX_STREAMED. The EPP holds a request back for as long as it has to wait for a server;
#   in the other body modes message_timeout ends that, so keep it above the EPP's --request-ttl.
# * response_trailer_mode SEND, also without response bodies: the end of that stream is how the EPP
#   learns that a request has ended.
# * metadata_options and response_attributes: subset hints go to the EPP, and so does the address
#   that served after all.
# * early_header_mutation: without it, clients could name their destination while the EPP is away.
# * cluster inference_pool: override_host, which goes to the endpoints that the EPP names, but only
#   to those in the EDS file. `epp serve --eds-file` writes that file; it must exist when Envoy
#   starts, and its directory must be the watched one.
# * retry_on: connect failures move on to the EPP's next endpoint. Never add 5xx or reset, with
#   which a request could run twice.
# * circuit_breakers: each waiting request is a stream to the EPP; Envoy's default is 1,024.
# * timeout 0s and stream_idle_timeout 0s: a request may wait, and an answer may take, long.
# * inference_pool's idle_timeout below the model servers' keep-alive timeout (Uvicorn: 5 s).
# * max_concurrent_streams of cluster ext_proc (--connection-streams), where the EPP has several
#   workers: the kernel spreads connections over them, so there must be several.
# * panic threshold 0 and the health check of cluster ext_proc, with failure_mode_allow: Envoy can
#   pass a request with a body by the EPP only if it knew before that the EPP is away. With several
#   replicas (--ext-proc given again) the health check says which of them leads; at a threshold of 1
#   the others are asked while none does; outlier_detection finds out sooner that one is gone; and
#   with update_merge_window 0s all of that counts at once.
#
# Run it with: envoy -c THIS-FILE
"""


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the ``envoy-config`` command."""
    parser = subcommands.add_parser(
        "envoy-config",
        help="print an Envoy configuration for a gateway of your own",
        description="Print the Envoy bootstrap that `epp up` uses, with addresses of your own.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--listen", default="0.0.0.0:8080", metavar="ADDRESS:PORT", help="where clients connect")
    add(
        "--ext-proc",
        action="append",
        default=argparse.SUPPRESS,
        metavar="HOST:PORT",
        help=f"where the EPP is; given again for each further replica (default: {_EXT_PROC})",
    )
    add(
        "--eds-file",
        default="/var/run/epp/eds.json",
        metavar="FILE",
        help="absolute path of the endpoints file, as Envoy sees it",
    )
    add("--admin-port", default="9901", metavar="PORT", help="Envoy's admin page, on loopback only")
    add(
        "--response-body",
        choices=("none", "duplex"),
        default="none",
        help="whether responses pass through the EPP: it then knows their tokens, at a cost",
    )
    add(
        "--fail-open",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="when the EPP is away, let Envoy choose a server instead of refusing",
    )
    add(
        "--connection-streams",
        metavar="N",
        help="most requests on one connection to the EPP; with `epp serve --workers`, so that each"
        " worker gets some",
    )
    add("--format", choices=("yaml", "json"), default="yaml", help="JSON has no comments")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from epp.gateway.extra import require_extra

    require_extra()
    options = _options(args)
    from epp.gateway.bootstrap import bootstrap, to_json, to_yaml

    message = bootstrap(options)
    print(to_json(message) if args.format == "json" else _HEADER + to_yaml(message), end="")
    return 0


def _options(args: argparse.Namespace) -> "GatewayOptions":
    from pathlib import PurePosixPath

    from epp.gateway.options import GatewayOptions

    if not PurePosixPath(args.eds_file).is_absolute():
        raise UsageError(f"--eds-file: expected an absolute path, got {args.eds_file!r}")
    listen_address, listen_port = _host_and_port("--listen", args.listen)
    if not _is_ip(listen_address):
        raise UsageError(f"--listen: expected an IP address, got {listen_address!r}")
    first, *replicas = (
        _host_and_port("--ext-proc", text) for text in getattr(args, "ext_proc", [_EXT_PROC])
    )
    return GatewayOptions(
        eds_path=args.eds_file,
        listen_address=listen_address,
        listen_port=listen_port,
        ext_proc_address=first[0],
        ext_proc_port=first[1],
        ext_proc_replicas=tuple(replicas),
        admin_port=_port("--admin-port", args.admin_port),
        ext_proc_connection_streams=_streams(args.connection_streams),
        fail_open=args.fail_open,
        response_body_mode="NONE" if args.response_body == "none" else "FULL_DUPLEX_STREAMED",
    )


def _host_and_port(flag: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    in_brackets = host.startswith("[") and host.endswith("]")
    if in_brackets:
        host = host[1:-1]
    if not colon or not host or (":" in host) != in_brackets or not {"[", "]"}.isdisjoint(host):
        raise UsageError(f"{flag}: expected host:port, an IPv6 address in brackets, got {text!r}")
    return host, _port(flag, port)


def _port(flag: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) < 65_536:
        return int(text)
    raise UsageError(f"{flag}: expected a port from 1 to 65535, got {text!r}")


def _streams(text: str | None) -> int | None:
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"--connection-streams: expected a number of at least 1, got {text!r}")


def _is_ip(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
