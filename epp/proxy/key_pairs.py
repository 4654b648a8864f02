"""Where a TLS server's certificate and key come from: files here, ``self_signed.py`` else."""

import os
import ssl
from pathlib import Path
from typing import Final, Protocol

from epp.errors import UsageError

__all__ = ["FilePair", "KeyPair", "load_authorities", "read_pem", "stand_of"]

_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class KeyPair(Protocol):
    """A certificate with its chain, and its key, which may become others at any time."""

    def look(self) -> object:
        """Return something that is equal as long as nothing has changed."""

    def read(self) -> tuple[bytes, bytes]:
        """Return certificates and key (PEM). Raises UsageError."""

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let the context serve with the pair. Raises UsageError if it is none."""


class FilePair:
    """``tls.crt`` and ``tls.key`` in a directory, which ``option`` has named."""

    def __init__(self, directory: Path, option: str = "--cert-path") -> None:
        self._certificate_file = directory / "tls.crt"
        self._key_file = directory / "tls.key"
        self._option = option

    def __str__(self) -> str:
        return str(self._certificate_file)

    def look(self) -> object:
        """See KeyPair."""
        return stand_of(self._certificate_file), stand_of(self._key_file)

    def read(self) -> tuple[bytes, bytes]:
        """See KeyPair."""
        certificates = read_pem(self._certificate_file, self._option)
        key = read_pem(self._key_file, self._option)
        if b"ENCRYPTED" in key:  # OpenSSL would ask at the terminal
            raise UsageError(f"{self._key_file}: the key is encrypted; expected one without")
        return certificates, key

    def load_into(self, context: ssl.SSLContext) -> None:
        """See KeyPair."""
        load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self._certificate_file)
        try:
            context.load_cert_chain(self._certificate_file, self._key_file)
        except (ssl.SSLError, OSError) as error:
            reason: str | None = getattr(error, "reason", None)
            if reason in _MISMATCHES:
                text = f"{self._key_file}: not the key of the certificate in {self}"
            elif reason:
                text = f"{self}: {reason.lower().replace('_', ' ')}"
            else:
                text = f"{self._key_file}: expected a private key in the PEM format"
            raise UsageError(text) from error


def stand_of(path: Path) -> object:
    """Return something that is equal as long as the file is the same."""
    try:
        # Through symlinks: what the `..data` of a mounted Secret points at is what counts.
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def read_pem(path: Path, option: str) -> bytes:
    """Return what a file holds. Raises UsageError that names ``option``, which asked for it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path} ({option}): {error.strerror or error}") from error


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Let the context trust the certificates in a file. Raises UsageError if it has none."""
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"{path}: expected certificates in the PEM format") from error
