"""The options of the command line for TLS, and for who may read the metrics."""

import argparse
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from epp.config.arguments import add_switch, name_list
from epp.config.cipher_suites import choose_suites, with_ecdsa
from epp.config.options import SelfSigned, ServeOptions, TlsVersion
from epp.errors import UsageError

__all__ = ["SecurityOptions", "add_security_arguments", "security_options"]

_DEFAULTS: Final = ServeOptions(manifests=())
_SECRET_BYTES: Final = 32
# Addresses that nobody has (RFC 5737, RFC 3849): nothing is sent to them.
_NOBODY: Final = (
    (socket.AF_INET, "192.0.2.1"),
    (socket.AF_INET6, "2001:db8::1"),
)


class SecurityOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of ServeOptions for TLS and the metrics; ``notes`` are for the log."""

    cert_path: Path | None
    self_signed: SelfSigned | None
    client_ca_file: Path | None
    tls_min_version: TlsVersion
    tls_cipher_suites: tuple[str, ...]
    metrics_auth: bool
    metrics_cert_dir: Path | None
    metrics_client_ca_file: Path | None
    notes: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """Return them by name, without the notes."""
        fields = msgspec.structs.asdict(self)
        del fields["notes"]
        return fields


def add_security_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options. Those that are off by default, or by circumstances, have no default."""
    tls = parser.add_argument_group("TLS of ext_proc")
    metrics = parser.add_argument_group("who may read the metrics")

    def add(group: "argparse._ArgumentGroup", flag: str, **options: Any) -> None:
        group.add_argument(flag, **{"default": argparse.SUPPRESS, **options})

    add_switch(tls, "--secure-serving",
        help="serve ext_proc with TLS (default: true with a cluster or --cert-path, else false)"
        )  # fmt: skip
    add(tls, "--cert-path", type=Path, metavar="DIR",
        help="directory of tls.crt and tls.key, which are watched for changes (default: a"
        " certificate that is made at the start and that nobody has signed)")  # fmt: skip
    add(tls, "--client-ca-file", type=Path, metavar="FILE",
        help="take only clients whose certificate is signed by an authority in this file"
        )  # fmt: skip
    add(tls, "--tls-min-version", choices=get_args(TlsVersion), default=_DEFAULTS.tls_min_version,
        help="oldest version of TLS that is spoken, by metrics as well")  # fmt: skip
    add(tls, "--tls-cipher-suites", type=name_list, action="extend", metavar="NAME[,NAME…]",
        help="suites of TLS 1.2 by Go's names, as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 (default:"
        " all that HTTP/2 may use)")  # fmt: skip
    add_switch(metrics, "--metrics-endpoint-auth",
        help="ask the API server whether a reader's token may get /metrics (default: true with a"
        " cluster, else false)")  # fmt: skip
    add(metrics, "--metrics-cert-dir", type=Path, metavar="DIR",
        help="serve metrics with TLS: directory of tls.crt and tls.key, which are watched"
        )  # fmt: skip
    add(metrics, "--metrics-client-ca-file", type=Path, metavar="FILE",
        help="take only readers whose certificate is signed by an authority in this file"
        )  # fmt: skip


def security_options(
    args: argparse.Namespace,
    *,
    is_in_cluster: bool,
    environment: Mapping[str, str] = os.environ,
) -> SecurityOptions:
    """Return what the options say. Raises UsageError where they do not go together."""
    given = vars(args)
    cert_path: Path | None = given.get("cert_path")
    is_secure = given.get("secure_serving", is_in_cluster or cert_path is not None)
    suites = choose_suites(given.get("tls_cipher_suites", ()))
    notes = [f"--tls-cipher-suites: HTTP/2 must not use {name}, left out" for name in suites.barred]
    if cert_path is not None and not is_secure:
        notes.append("--cert-path changes nothing with --secure-serving=false")
        cert_path = None
    self_signed, suite_names = None, suites.names
    if is_secure and cert_path is None:
        # What is made here has an ECDSA key, the certificate that the Go EPP makes an RSA key.
        suite_names = with_ecdsa(suite_names)
        secret = secrets.token_bytes(_SECRET_BYTES)
        self_signed = SelfSigned(secret=secret, hosts=_own_hosts(environment))
    metrics_auth = given.get("metrics_endpoint_auth", is_in_cluster)
    _check_metrics(given, metrics_auth=metrics_auth, is_in_cluster=is_in_cluster)
    return SecurityOptions(
        cert_path=cert_path,
        self_signed=self_signed,
        client_ca_file=given.get("client_ca_file"),
        tls_min_version="VersionTLS13" if suites.is_tls13_only else given["tls_min_version"],
        tls_cipher_suites=suite_names,
        metrics_auth=metrics_auth,
        metrics_cert_dir=given.get("metrics_cert_dir"),
        metrics_client_ca_file=given.get("metrics_client_ca_file"),
        notes=tuple(notes),
    )


def _check_metrics(given: Mapping[str, Any], *, metrics_auth: bool, is_in_cluster: bool) -> None:
    if metrics_auth and not is_in_cluster:
        raise UsageError(
            "--metrics-endpoint-auth asks the API server of a cluster: found it beside --manifests"
        )
    if "metrics_client_ca_file" in given and "metrics_cert_dir" not in given:
        raise UsageError("--metrics-client-ca-file needs --metrics-cert-dir beside it")
    if "metrics_cert_dir" in given and not metrics_auth and "metrics_client_ca_file" not in given:
        raise UsageError(
            "--metrics-cert-dir needs --metrics-endpoint-auth or --metrics-client-ca-file beside"
            " it: TLS alone says nothing of who may read"
        )


def _own_hosts(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return by what names and addresses this machine, or pod, is likely to be called."""
    hosts = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    hosts += [environment[name] for name in ("POD_NAME", "POD_IP") if environment.get(name)]
    for family, nobody in _NOBODY:
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((nobody, 9))
            hosts.append(probe.getsockname()[0])
    return tuple(dict.fromkeys(host for host in hosts if host))
