"""TLS, and who may read the metrics, as the command line says."""

import argparse
from pathlib import Path

import pytest

from epp.config.security_arguments import (
    SecurityOptions,
    add_security_arguments,
    security_options,
)
from epp.errors import UsageError


def found(*arguments: str, cluster: bool = False, **environment: str) -> SecurityOptions:
    parser = argparse.ArgumentParser()
    add_security_arguments(parser)
    args = parser.parse_args(arguments)
    return security_options(args, is_in_cluster=cluster, environment=environment)


@pytest.mark.parametrize(
    ("arguments", "cluster", "kind"),
    [
        ("", False, "plaintext"),
        ("", True, "self-signed"),
        ("--secure-serving", False, "self-signed"),
        ("--secure-serving=false", True, "plaintext"),
        ("--cert-path=d", False, "files"),
        ("--cert-path=d", True, "files"),
        ("--secure-serving=true --cert-path=d", False, "files"),
        ("--secure-serving=false --cert-path=d", True, "plaintext"),
    ],
)
def test_how_ext_proc_is_served(arguments: str, cluster: bool, kind: str) -> None:
    options = found(*arguments.split(), cluster=cluster)
    assert (options.cert_path is not None) == (kind == "files")
    assert (options.self_signed is not None) == (kind == "self-signed")
    is_in_vain = "--cert-path=d" in arguments and kind == "plaintext"
    note = "--cert-path changes nothing with --secure-serving=false"
    assert options.notes == ((note,) if is_in_vain else ())


def test_a_certificate_of_our_own_names_this_pod_and_its_secret_is_told_to_nobody() -> None:
    first = found(cluster=True, POD_NAME="epp-x", POD_IP="10.0.0.9").self_signed
    second = found(cluster=True).self_signed
    assert first is not None
    assert second is not None
    assert {"localhost", "127.0.0.1", "::1", "epp-x", "10.0.0.9"} <= set(first.hosts)
    assert len(first.secret) == 32
    assert first.secret != second.secret
    assert repr(first.secret) not in repr(first)


def test_cipher_suites() -> None:
    suites = "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_RSA_WITH_RC4_128_SHA"
    options = found("--cert-path=d", suites)
    assert options.tls_cipher_suites == ("ECDHE-RSA-AES256-GCM-SHA384",)
    assert options.tls_min_version == "VersionTLS12"
    left_out = "--tls-cipher-suites: HTTP/2 must not use TLS_RSA_WITH_RC4_128_SHA, left out"
    assert options.notes == (left_out,)
    only_new = found("--cert-path=d", "--tls-cipher-suites=TLS_AES_128_GCM_SHA256")
    assert only_new.tls_min_version == "VersionTLS13"


def test_cipher_suites_for_rsa_keys_alone_do_not_shut_out_the_certificate_of_our_own() -> None:
    """Gateways may speak TLS 1.2 only, and the Go EPP makes an RSA key."""
    rsa = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    made = found("--secure-serving", f"--tls-cipher-suites={rsa}")
    assert made.tls_cipher_suites == (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    )
    both = f"{rsa},TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    assert found("--secure-serving", f"--tls-cipher-suites={both}").tls_cipher_suites == (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    )
    assert found("--secure-serving").tls_cipher_suites == ()


def test_who_may_read_the_metrics() -> None:
    assert not found().metrics_auth
    assert found(cluster=True).metrics_auth
    assert not found("--metrics-endpoint-auth=false", cluster=True).metrics_auth
    options = found("--metrics-cert-dir=d", "--metrics-client-ca-file=f")
    assert (options.metrics_cert_dir, options.metrics_client_ca_file) == (Path("d"), Path("f"))
    assert found("--metrics-cert-dir=d", cluster=True).metrics_cert_dir == Path("d")


@pytest.mark.parametrize(
    ("arguments", "cluster", "complaint"),
    [
        ("--metrics-endpoint-auth", False, "--metrics-endpoint-auth asks the API server of a"),
        ("--metrics-client-ca-file=f", True, "--metrics-client-ca-file needs --metrics-cert-dir"),
        ("--metrics-cert-dir=d", False, "--metrics-cert-dir needs --metrics-endpoint-auth or --m"),
        ("--metrics-cert-dir=d --metrics-endpoint-auth=false", True, "--metrics-cert-dir needs"),
    ],
)
def test_what_does_not_go_together(arguments: str, cluster: bool, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        found(*arguments.split(), cluster=cluster)
