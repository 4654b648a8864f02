"""The transport and its TLS, made as the options say."""

from collections.abc import Callable
from typing import Final

from epp.clock import monotonic_s
from epp.config.options import ServeOptions
from epp.core.exchange import Exchange
from epp.core.replies import ProxyStream
from epp.errors import UsageError
from epp.proxy.grpc_server import GrpcServer
from epp.proxy.health import Health
from epp.proxy.http2.server import Http2Server
from epp.proxy.key_pairs import FilePair, KeyPair
from epp.proxy.tls import Refusal, ServerTls, TlsUse
from epp.proxy.transport import SharedPort, Transport

__all__ = ["make_metrics_tls", "make_tls", "make_transport"]

_DEFAULT_VERSION: Final = ServeOptions(manifests=()).tls_min_version


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
    pair = _key_pair(options)
    if pair is None:
        _check_plaintext(options)
        return None
    if options.transport == "grpcio":
        _check_grpcio(options)

    def refused(refusal: Refusal) -> None:
        on_refused(refusal.value)

    return ServerTls(
        pair,
        client_ca_file=options.client_ca_file,
        min_version=options.tls_min_version,
        cipher_suites=options.tls_cipher_suites,
        on_reload=on_reload,
        on_refused=refused,
    )


def make_metrics_tls(
    options: ServeOptions, *, on_reload: Callable[[bool], None] = lambda _applied: None
) -> ServerTls | None:
    """Return TLS for the metrics, not loaded; None for plaintext."""
    if options.metrics_cert_dir is None:
        return None
    return ServerTls(
        FilePair(options.metrics_cert_dir, "--metrics-cert-dir"),
        client_ca_file=options.metrics_client_ca_file,
        min_version=options.tls_min_version,
        cipher_suites=options.tls_cipher_suites,
        use=TlsUse(is_http2=False, title=" for metrics", ca_option="--metrics-client-ca-file"),
        on_reload=on_reload,
    )


def _key_pair(options: ServeOptions) -> KeyPair | None:
    if options.cert_path is not None:
        return FilePair(options.cert_path)
    if options.self_signed is not None:
        from epp.proxy.self_signed import SelfSignedPair  # what it needs takes long to import

        return SelfSignedPair(options.self_signed)
    return None


def _check_plaintext(options: ServeOptions) -> None:
    is_for_metrics = options.metrics_cert_dir is not None
    for name, is_given in (
        ("--client-ca-file", options.client_ca_file is not None),
        ("--tls-min-version", options.tls_min_version != _DEFAULT_VERSION and not is_for_metrics),
        ("--tls-cipher-suites", bool(options.tls_cipher_suites) and not is_for_metrics),
    ):
        if is_given:
            raise UsageError(
                f"{name} is for TLS: expected --cert-path or --secure-serving beside it"
            )


def _check_grpcio(options: ServeOptions) -> None:
    if options.tls_min_version != _DEFAULT_VERSION:
        found = f"--tls-min-version {options.tls_min_version}"
    elif options.tls_cipher_suites:
        found = "--tls-cipher-suites"
    else:
        return
    raise UsageError(f"{found}: grpcio cannot be told so; expected --transport http2")
