"""A certificate that the EPP makes for itself, where nobody has given it one.

It keeps eavesdroppers out, and proves nothing of who the EPP is. What a process presents follows
from the secret of its options and the date alone, so all processes of one EPP present the same,
also those that are started later, and none of it is ever written to a disk.
"""

import hmac
import ipaddress
import os
import ssl
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from epp.config.options import SelfSigned

__all__ = ["SelfSignedPair"]

_TERM_S: Final = 182 * 86_400
"""How long a certificate is presented, about half a year. It is valid for a day before and for as
long after."""

_EARLIER: Final = timedelta(days=1)
# The order of the curve P-256 (FIPS 186-5): private keys are from 1 to one less.
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_MAX_DNS_NAME: Final = 253


class SelfSignedPair:
    """The certificate of the term that it is; ``now`` is the time in seconds since 1970."""

    def __init__(self, options: SelfSigned, now: Callable[[], float] = time.time) -> None:
        self._secret = options.secret
        self._names = x509.SubjectAlternativeName(list(_general_names(options.hosts)))
        self._now = now

    def __str__(self) -> str:
        return "self-signed"

    def look(self) -> object:
        """See KeyPair."""
        return self._term()

    def read(self) -> tuple[bytes, bytes]:
        """See KeyPair."""
        term = self._term()
        key = ec.derive_private_key(
            1 + self._number("key", term) % (_P256_ORDER - 1), ec.SECP256R1()
        )
        begins = datetime.fromtimestamp(term * _TERM_S, UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "epp")])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1 + (self._number("serial", term) >> 354))  # 158 of 512 bits
            .not_valid_before(begins - _EARLIER)
            .not_valid_after(begins + timedelta(seconds=2 * _TERM_S))
            .add_extension(self._names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
        )
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def load_into(self, context: ssl.SSLContext) -> None:
        """See KeyPair."""
        certificates, key = self.read()
        # Python's ssl takes files only. A pipe is one that is in memory, and for us alone.
        certificate_fd, key_fd = _pipe_with(certificates), _pipe_with(key)
        try:
            context.load_cert_chain(f"/dev/fd/{certificate_fd}", f"/dev/fd/{key_fd}")
        finally:
            os.close(certificate_fd)
            os.close(key_fd)

    def _term(self) -> int:
        return int(self._now() // _TERM_S)

    def _number(self, purpose: str, term: int) -> int:
        """Return a number of 512 bits that only those can know who know the secret."""
        digest = hmac.digest(self._secret, f"{purpose} {term}".encode(), "sha512")
        return int.from_bytes(digest, "big")


def _pipe_with(content: bytes) -> int:
    """Return the end of a pipe from which the content can be read: less than a page, so it fits."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, content)
    os.close(write_fd)
    return read_fd


def _general_names(hosts: Iterable[str]) -> Iterable[x509.GeneralName]:
    for host in hosts:
        try:
            yield x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            if host.isascii() and len(host) <= _MAX_DNS_NAME:
                yield x509.DNSName(host)
