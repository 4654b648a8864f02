"""The transport and its TLS, made as the options say."""

from collections.abc import Callable

from epp.clock import monotonic_s
from epp.config.options import ServeOptions
from epp.core.exchange import Exchange
from epp.core.replies import ProxyStream
from epp.errors import UsageError
from epp.proxy.grpc_server import GrpcServer
from epp.proxy.health import Health
from epp.proxy.http2.server import Http2Server
from epp.proxy.tls import Refusal, ServerTls
from epp.proxy.transport import SharedPort, Transport

__all__ = ["make_tls", "make_transport"]


def make_transport(
    options: ServeOptions,
    new_exchange: Callable[[ProxyStream], Exchange],
    health: Health,
    shared_port: SharedPort | None = None,
    on_limit: Callable[[str, int], None] = lambda _limit, _count: None,
) -> Transport:
    """Return the transport of the options, not started; ``new_exchange`` is called for each stream,
    ``on_limit`` with the limits that peers meet, as far as the transport tells them.
    """
    max_body_bytes = options.exchange.max_body_bytes
    if options.transport == "grpcio":
        return GrpcServer(
            new_exchange,
            health=health,
            now=monotonic_s,
            max_body_bytes=max_body_bytes,
            shared_port=shared_port,
        )
    return Http2Server(
        new_exchange,
        health=health,
        max_body_bytes=max_body_bytes,
        shared_port=shared_port,
        on_limit=on_limit,
    )


def make_tls(
    options: ServeOptions,
    *,
    on_reload: Callable[[bool], None] = lambda _applied: None,
    on_refused: Callable[[str], None] = lambda _reason: None,
) -> ServerTls | None:
    """Return TLS as the options say, not loaded; None for plaintext. Raises UsageError.

    ``on_reload`` and ``on_refused`` are those of ServerTls, the latter with the refusal's value.
    """
    is_default_version = options.tls_min_version == ServeOptions(manifests=()).tls_min_version
    if options.cert_path is None:
        for name, is_given in (
            ("--client-ca-file", options.client_ca_file is not None),
            ("--tls-min-version", not is_default_version),
        ):
            if is_given:
                raise UsageError(f"{name} is for TLS: expected --cert-path beside it")
        return None
    if options.transport == "grpcio" and not is_default_version:
        raise UsageError(
            f"--tls-min-version {options.tls_min_version}: grpcio cannot be told so;"
            " expected --transport http2"
        )

    def refused(refusal: Refusal) -> None:
        on_refused(refusal.value)

    return ServerTls(
        options.cert_path,
        client_ca_file=options.client_ca_file,
        min_version=options.tls_min_version,
        on_reload=on_reload,
        on_refused=refused,
    )
