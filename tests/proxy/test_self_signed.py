"""The certificate that the EPP makes for itself."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from epp.config import ServeOptions
from epp.config.options import SelfSigned
from epp.proxy.self_signed import SelfSignedPair
from epp.proxy.tls import ServerTls
from epp.proxy.transports import make_tls

from .tls_peers import PATIENCE_S, Pair, client_context, served, shown

DAY_S = 86_400
TERM_S = 182 * DAY_S
BEGIN_S = 100 * TERM_S  # of a term
OPTIONS = SelfSigned(
    secret=b"s" * 32,
    hosts=("localhost", "127.0.0.1", "::1", "epp-7c9d8bf5b4-x2x9k", "späti", "x" * 300),
)


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def certificate_at(now_s: float, options: SelfSigned = OPTIONS) -> x509.Certificate:
    return x509.load_pem_x509_certificate(SelfSignedPair(options, lambda: now_s).read()[0])


def test_what_is_in_it() -> None:
    certificates, key = SelfSignedPair(OPTIONS, lambda: BEGIN_S).read()
    certificate = x509.load_pem_x509_certificate(certificates)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "epp-7c9d8bf5b4-x2x9k"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP256R1)
    assert certificate.public_key() == private.public_key()
    certificate.verify_directly_issued_by(certificate)


def test_it_is_renewed_long_before_it_expires_and_valid_before_it_is_presented() -> None:
    for now_s in (BEGIN_S, BEGIN_S + 1.5, BEGIN_S + TERM_S - 1):
        found = certificate_at(now_s)
        now = datetime.fromtimestamp(now_s, UTC)
        assert found.not_valid_before_utc <= now - timedelta(days=1)
        assert found.not_valid_after_utc - now > timedelta(days=182)
        assert found.not_valid_after_utc - found.not_valid_before_utc < timedelta(days=366)
    last, first = certificate_at(BEGIN_S + TERM_S - 1), certificate_at(BEGIN_S + TERM_S)
    assert last.public_key() != first.public_key()
    assert last.serial_number != first.serial_number


def _read(secret: bytes, now_s: float) -> tuple[bytes, bytes]:
    return SelfSignedPair(SelfSigned(secret=secret, hosts=OPTIONS.hosts), lambda: now_s).read()


def test_processes_with_one_secret_present_the_same_and_others_do_not() -> None:
    here = _read(OPTIONS.secret, BEGIN_S)
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(_read, (OPTIONS.secret, BEGIN_S + 5)) == here
    assert _read(b"t" * 32, BEGIN_S)[1] != here[1]


@pytest.mark.parametrize("kind", ["http2", "grpcio"])
async def test_it_is_served_and_renewed_while_the_server_runs(kind: str) -> None:
    clock = Clock(BEGIN_S)
    pair = SelfSignedPair(OPTIONS, clock)
    async with served(pair, kind) as server:

        async def is_shown(pem: bytes) -> bool:
            seen = await asyncio.to_thread(shown, server.port, client_context())
            return seen == ssl.PEM_cert_to_DER_cert(pem.decode())

        before = pair.read()[0]
        assert await is_shown(before)
        clock.now_s += TERM_S
        assert await asyncio.wait_for(server.reloads.get(), PATIENCE_S)
        assert not await is_shown(before)
        assert await is_shown(pair.read()[0])


async def test_a_client_can_be_given_it_to_trust() -> None:
    pair = SelfSignedPair(OPTIONS)  # by the real time, since clients look at it
    async with served(pair, "http2") as server:
        trusting = client_context()
        trusting.verify_mode = ssl.CERT_REQUIRED
        trusting.load_verify_locations(cadata=pair.read()[0].decode())
        trusting.check_hostname = True
        assert await asyncio.to_thread(shown, server.port, trusting)
        with pytest.raises(ssl.SSLCertVerificationError):
            await server.hears(trusts=Pair())


def test_options_without_files_make_one() -> None:
    tls = make_tls(ServeOptions(manifests=(), self_signed=OPTIONS))
    assert isinstance(tls, ServerTls)
    tls.load()
    assert tls.files is not None
    assert tls.files.certificates == SelfSignedPair(OPTIONS).read()[0]
