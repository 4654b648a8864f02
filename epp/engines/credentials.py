"""What is shown to the engines, and demanded of them, when their pages are fetched.

It comes from files, which are read again when they change: tokens and certificates are replaced
while we run. What cannot be read any more, or is half replaced, changes nothing.
"""

import logging
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from epp.config.scrape import ScrapeOptions
from epp.errors import UsageError

__all__ = ["Credentials"]

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_MOST_TOKEN_BYTES: Final = 65_536
_is_token: Final = re.compile(rb"[!-~]+").fullmatch


class Credentials:
    """``headers`` go with every request, ``tls`` is how a connection is secured.

    Raises UsageError for files of the options that cannot be read, or are not what they should be.
    """

    def __init__(self, options: ScrapeOptions, now: float) -> None:
        self._options = options
        self._files = [
            file
            for file in (
                options.bearer_token_file,
                options.ca_file,
                options.client_cert_file,
                options.client_key_file,
            )
            if file is not None
        ]
        self._state = self._look()
        self._looked_s = now
        self.headers: Mapping[str, str]
        self.tls: ssl.SSLContext
        self._read()

    def refresh(self, now: float) -> None:
        """See whether a file has changed; called as often as one likes, it looks once a second."""
        if not self._files or now - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now
        state = self._look()
        if state == self._state:
            return
        self._state = state
        try:
            self._read()
        except UsageError as error:
            logger.warning("credentials for scraping rejected, those in use stay: %s", error)
        else:
            logger.info("credentials for scraping have changed")

    def _read(self) -> None:
        headers, tls = _headers(self._options), _tls(self._options)
        self.headers, self.tls = headers, tls

    def _look(self) -> list[object]:
        """Return something that is equal as long as no file has changed."""
        return [_status(file) for file in self._files]


def _status(file: Path) -> object:
    try:
        # Through symlinks: what the `..data` of a mounted Secret points at is what counts.
        status = os.stat(file)
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _headers(options: ScrapeOptions) -> Mapping[str, str]:
    file = options.bearer_token_file
    if file is None:
        return {}
    try:
        with file.open("rb") as stream:
            token = stream.read(_MOST_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise UsageError(f"cannot read the bearer token {file}: {_reason(error)}") from error
    if len(token) > _MOST_TOKEN_BYTES or not _is_token(token):
        raise UsageError(f"{file}: expected a bearer token: printable characters without blanks")
    return {"Authorization": f"Bearer {token.decode()}"}


def _tls(options: ScrapeOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if options.verifies_certificates:
        _load_authorities(context, options.ca_file)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.client_cert_file is not None:
        _load_pair(context, options.client_cert_file, options.client_key_file)
    return context


def _load_authorities(context: ssl.SSLContext, file: Path | None) -> None:
    if file is None:
        context.load_default_certs()
        return
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError as error:
        raise UsageError(f"{file}: expected certificates in the PEM format") from error
    except OSError as error:
        raise UsageError(f"cannot read the authorities {file}: {_reason(error)}") from error


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        # An encrypted key is not asked a password for at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        raise UsageError(
            f"{certificate}, {key}: expected a client certificate and its key in the PEM format, "
            f"without a password ({error.reason or 'not readable'})"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot read the client certificate {certificate} or its key {key}: {_reason(error)}"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
