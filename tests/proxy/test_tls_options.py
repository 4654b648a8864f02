"""TLS as ``epp serve`` is told of it: wrong files and options, metrics, the log."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from prometheus_client.parser import text_string_to_metric_families

from epp.cli import main
from epp.config import ServeOptions
from epp.errors import UsageError
from epp.observability.metrics import Metrics
from epp.proxy.key_pairs import FilePair
from epp.proxy.tls import Refusal, ServerTls
from epp.proxy.transports import make_metrics_tls, make_tls
from epp.service import Service

from .tls_peers import Files, Pair, client_context, hear


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# ---- what is wrong from the start ----

GOOD = Pair()
SUITE = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"


def encrypted(pem: bytes, form: serialization.PrivateFormat) -> bytes:
    key = serialization.load_pem_private_key(pem, None)
    lock = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(serialization.Encoding.PEM, form, lock)


@pytest.mark.parametrize(
    ("certificate", "key", "complaint"),
    [
        (GOOD.certificate, Pair().key, "tls.key: not the key of the certificate in .*tls.crt"),
        (
            GOOD.certificate,
            Pair(key_type=trustme.KeyType.RSA).key,
            "tls.key: not the key of the certificate in .*tls.crt",
        ),
        (b"", GOOD.key, "tls.crt: expected certificates in the PEM format"),
        (b"hello", GOOD.key, "tls.crt: expected certificates in the PEM format"),
        (GOOD.certificate[:200], GOOD.key, "tls.crt: expected certificates in the PEM format"),
        (GOOD.key, GOOD.key, "tls.crt: expected certificates in the PEM format"),
        (GOOD.certificate, b"", "tls.key: expected a private key in the PEM format"),
        (GOOD.certificate, GOOD.certificate, "tls.key: expected a private key in the PEM format"),
        (
            GOOD.certificate,
            encrypted(GOOD.key, serialization.PrivateFormat.PKCS8),
            "tls.key: the key is encrypted",
        ),
        (
            GOOD.certificate,
            encrypted(GOOD.key, serialization.PrivateFormat.TraditionalOpenSSL),
            "tls.key: the key is encrypted",
        ),
    ],
)
def test_what_is_no_pair_is_one_clear_error(
    files: Files, certificate: bytes, key: bytes, complaint: str
) -> None:
    files.hold(certificate, key)
    with pytest.raises(UsageError, match=complaint) as raised:
        ServerTls(FilePair(files.directory)).load()
    assert "\n" not in str(raised.value)


def test_what_is_no_authority_is_one_clear_error(files: Files) -> None:
    files.hold(GOOD.certificate, GOOD.key, b"hello")
    with pytest.raises(UsageError, match=r"ca\.crt: expected certificates in the PEM format"):
        ServerTls(FilePair(files.directory), client_ca_file=files.ca).load()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--cert-path", "{0}"], "cannot read {0}/tls.crt (--cert-path): No such file"),
        (
            ["--cert-path", "{0}/good", "--client-ca-file", "{0}/ca"],
            "cannot read {0}/ca (--client-ca-file): No such file",
        ),
        (["--client-ca-file", "{0}/ca"], "--client-ca-file is for TLS: expected --cert-path"),
        (["--tls-min-version", "VersionTLS13"], "--tls-min-version is for TLS: expected --cert-"),
        (
            ["--cert-path", "{0}/good", "--transport=grpcio", "--tls-min-version=VersionTLS13"],
            "--tls-min-version VersionTLS13: grpcio cannot be told so; expected --transport http2",
        ),
        (
            ["--cert-path", "{0}/good", "--transport=grpcio", f"--tls-cipher-suites={SUITE}"],
            "--tls-cipher-suites: grpcio cannot be told so; expected --transport http2",
        ),
        ([f"--tls-cipher-suites={SUITE}"], "--tls-cipher-suites is for TLS: expected --cert-path"),
        (
            ["--metrics-cert-dir", "{0}", "--metrics-client-ca-file", "{0}/ca"],
            "cannot read {0}/tls.crt (--metrics-cert-dir): No such file",
        ),
        (
            ["--metrics-cert-dir", "{0}/good", "--metrics-client-ca-file", "{0}/ca"],
            "cannot read {0}/ca (--metrics-client-ca-file): No such file",
        ),
    ],
)
def test_a_wrong_option_exits_with_2_and_says_why(
    tmp_path: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    Files(good).hold_pair(GOOD)
    arguments = [text.format(tmp_path) for text in arguments]
    assert main(["serve", "--manifests", str(tmp_path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epp: ")
    assert complaint.format(tmp_path) in line


def test_what_is_said_of_tls_gets_to_the_servers(tmp_path: Path) -> None:
    Files(tmp_path).hold_pair(GOOD)
    options = ServeOptions(
        manifests=(),
        cert_path=tmp_path,
        metrics_cert_dir=tmp_path,
        tls_min_version="VersionTLS13",
        tls_cipher_suites=("ECDHE-ECDSA-AES128-GCM-SHA256",),
    )
    for tls in (make_tls(options), make_metrics_tls(options)):
        assert tls is not None
        tls.load()
        context = tls.context.last
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        old = [each["name"] for each in context.get_ciphers() if each["protocol"] == "TLSv1.2"]
        assert old == ["ECDHE-ECDSA-AES128-GCM-SHA256"]


def test_metrics_of_an_epp_in_plaintext_may_have_a_version_of_their_own(tmp_path: Path) -> None:
    options = ServeOptions(manifests=(), metrics_cert_dir=tmp_path, tls_min_version="VersionTLS13")
    assert make_tls(options) is None
    assert make_metrics_tls(options) is not None


def test_no_key_gets_into_a_log(files: Files) -> None:
    files.hold_pair(GOOD)
    tls = ServerTls(FilePair(files.directory))
    tls.load()
    assert tls.files is not None
    assert tls.files.key == GOOD.key
    assert "PRIVATE" not in repr(tls.files)


# ---- the service ----

POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p}
spec:
  selector: {matchLabels: {app: a}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
"""


def service(tmp_path: Path, **more: object) -> Service:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "pool.yaml").write_text(POOL)
    ports = {"host": "127.0.0.1", "grpc_port": 0, "health_port": 0, "metrics_port": 0}
    return Service(ServeOptions(manifests=(manifests,), **ports, **more))  # type: ignore[arg-type]


def counters(metrics: Metrics, name: str, label: str) -> dict[str, float]:
    return {
        sample.labels[label]: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == f"llm_d_epp_{name}"
    }


def test_every_series_is_there_from_the_start() -> None:
    metrics = Metrics()
    reasons = {refusal.value: 0.0 for refusal in Refusal}
    assert counters(metrics, "extproc_handshakes_refused_total", "reason") == reasons
    results = {"applied": 0.0, "rejected": 0.0}
    assert counters(metrics, "tls_reload_total", "result") == results


async def test_the_service_counts_who_was_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    Files(secret).hold_pair(GOOD)
    async with service(tmp_path, cert_path=secret, transport="http2") as running:
        context = client_context(alpn=())
        assert await asyncio.to_thread(hear, running.ext_proc.port, context) == b""
        counted = counters(running.metrics, "extproc_handshakes_refused_total", "reason")
        assert counted["alpn"] == 1
        assert sum(counted.values()) == 1


async def test_the_service_says_once_that_it_speaks_plaintext(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with service(tmp_path):
        pass
    assert len([text for text in caplog.messages if "plaintext" in text]) == 1
