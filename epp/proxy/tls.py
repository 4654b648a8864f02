"""TLS for the ext_proc port and the metrics: a certificate and key that may change at any time.

Every pair that is accepted makes an SSL context of its own, and each new connection takes the last
one. Contexts are never changed in place: connections that run keep theirs, and no session that was
agreed under an old one, perhaps with an authority that has since been withdrawn, can be resumed.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import msgspec

from epp.clock import monotonic_s
from epp.config.options import TlsVersion
from epp.errors import UsageError
from epp.proxy.key_pairs import KeyPair, load_authorities, read_pem, stand_of

__all__ = ["PemFiles", "Refusal", "ServerTls", "TlsUse"]

logger = logging.getLogger(__name__)

_VERSIONS: Final = {
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}
# Of TLS 1.2's cipher suites, HTTP/2 wants ephemeral keys and AEAD only (RFC 9113, section 9.2.2).
_TLS12_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_HANDSHAKE_TIMEOUT_S: Final = 10.0
# How long a connection that is being closed may wait for the peer's "close notify".
_SHUTDOWN_TIMEOUT_S: Final = 5.0
_ATTEMPTS: Final = 5
_TELL_EVERY_S: Final = 10.0


class Refusal(Enum):
    """Why a peer was refused before it could say anything in HTTP/2."""

    ALPN = "alpn"
    PLAINTEXT = "plaintext"
    VERSION = "version"
    NO_CERTIFICATE = "no-certificate"
    BAD_CERTIFICATE = "bad-certificate"
    BY_PEER = "by-peer"
    OTHER = "other"


_REFUSALS: Final = {
    "HTTP_REQUEST": (Refusal.PLAINTEXT, "the peer does not speak TLS, but this port does"),
    "WRONG_VERSION_NUMBER": (Refusal.PLAINTEXT, "the peer does not speak TLS, but this port does"),
    "UNSUPPORTED_PROTOCOL": (
        Refusal.VERSION,
        "the peer speaks only versions of TLS below --tls-min-version",
    ),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        Refusal.NO_CERTIFICATE,
        "the peer has no client certificate, which is demanded",
    ),
}


class TlsUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a port is for: HTTP/2, which peers must offer by ALPN, or HTTP/1.1. ``title`` names it
    in the log, ``ca_option`` is the option that says who vouches for clients."""

    is_http2: bool = True
    title: str = ""
    ca_option: str = "--client-ca-file"


class PemFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What the files hold: the certificate with its chain, its key, who vouches for clients."""

    certificates: bytes
    key: bytes
    client_authorities: bytes | None

    def __repr__(self) -> str:
        return "PemFiles(...)"  # whatever prints it, the key gets into no log


_EXT_PROC: Final = TlsUse()


class ServerTls:
    """The server's side of TLS, with the certificate and key of ``pair``.

    With ``client_ca_file`` every client must show a certificate that an authority in this file has
    signed. ``cipher_suites`` are those of TLS 1.2, by OpenSSL's names. :meth:`load` must have
    returned before a server starts with it, :meth:`run` then follows the pair. ``on_reload`` is
    called with whether a change was applied, ``on_refused`` with each peer whose handshake failed
    (not with grpcio, which does not tell).
    """

    def __init__(
        self,
        pair: KeyPair,
        *,
        client_ca_file: Path | None = None,
        min_version: TlsVersion = "VersionTLS12",
        cipher_suites: Sequence[str] = (),
        use: TlsUse = _EXT_PROC,
        poll_interval_s: float = 1.0,
        on_reload: Callable[[bool], None] = lambda _applied: None,
        on_refused: Callable[[Refusal], None] = lambda _refusal: None,
    ) -> None:
        self._pair = pair
        self._client_ca_file = client_ca_file
        self._min_version = _VERSIONS[min_version]
        self._ciphers = ":".join(cipher_suites) or _TLS12_CIPHERS
        self._use = use
        self._poll_interval_s = poll_interval_s
        self._on_reload = on_reload
        self._on_refused = on_refused
        self.context = _LastContext(ssl.PROTOCOL_TLS_SERVER)
        self._signature: object = None
        self._tell_again_s: dict[Refusal, float] = {}
        self.files: PemFiles | None = None

    @property
    def requires_client_certificate(self) -> bool:
        """Whether clients must show one."""
        return self._client_ca_file is not None

    @property
    def listen_arguments(self) -> dict[str, Any]:
        """What makes ``loop.create_server`` serve TLS."""
        return {
            "ssl": self.context,
            "ssl_handshake_timeout": _HANDSHAKE_TIMEOUT_S,
            "ssl_shutdown_timeout": _SHUTDOWN_TIMEOUT_S,
        }

    def load(self) -> None:
        """Read the pair and let new handshakes use it.

        Raises UsageError, and changes nothing, if it is not a certificate and its key.
        """
        for _ in range(_ATTEMPTS):
            signature = self._look()
            try:
                files = self._read()
                context = self._new_context()
            except UsageError:
                if self._look() == signature:
                    raise
            else:
                if self._look() == signature:
                    self._signature = signature
                    if files != self.files:
                        self.files = files
                        self.context.last = context
                    return
        raise UsageError(f"{self._pair}: the files change faster than they can be read")

    async def run(self) -> None:
        """Watch the pair until cancelled."""
        seen = self._signature
        while True:
            await asyncio.sleep(self._poll_interval_s)
            before, seen = seen, self._look()
            # A change is read once it has stood still for a while: the two files are seldom
            # replaced in one go.
            if seen == before and seen != self._signature:
                self._reload(seen)

    def _reload(self, signature: object) -> None:
        before = self.files
        try:
            self.load()
        except UsageError as error:
            self._signature = signature  # told once
            logger.warning("TLS certificate rejected, the one in use stays: %s", error)
            self._on_reload(False)
            return
        if self.files is not before:
            logger.info("TLS certificate applied: %s", self._pair)
            self._on_reload(True)

    def _look(self) -> object:
        """Return something that is equal as long as nothing has changed."""
        return self._pair.look(), self._client_ca_file and stand_of(self._client_ca_file)

    def _read(self) -> PemFiles:
        certificates, key = self._pair.read()
        authorities = None
        if self._client_ca_file is not None:
            authorities = read_pem(self._client_ca_file, self._use.ca_option)
        return PemFiles(certificates=certificates, key=key, client_authorities=authorities)

    def _new_context(self) -> "_Context":
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.refused = self._refused
        context.is_http2 = self._use.is_http2
        context.minimum_version = self._min_version
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_ciphers(self._ciphers)
        context.set_alpn_protocols(["h2" if self._use.is_http2 else "http/1.1"])
        self._pair.load_into(context)
        if self._client_ca_file is not None:
            load_authorities(context, self._client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _refused(self, refusal: Refusal, text: str) -> None:
        self._on_refused(refusal)
        now = monotonic_s()
        if now >= self._tell_again_s.get(refusal, now):
            self._tell_again_s[refusal] = now + _TELL_EVERY_S
            logger.warning("TLS connection refused%s: %s", self._use.title, text)


class _Context(ssl.SSLContext):
    """The context of one certificate."""

    refused: Callable[[Refusal, str], None]
    is_http2: bool


class _LastContext(ssl.SSLContext):
    """Stands for the last context where asyncio wants one for the life of a listening socket."""

    last: ssl.SSLContext

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any
    ) -> ssl.SSLObject:
        """Begin a connection: with the last context."""
        connection = self.last.wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(connection, _Connection)
        connection.outgoing = outgoing
        return connection


class _Connection(ssl.SSLObject):
    """A connection that tells when its handshake has failed, and that is refused where it is to
    speak h2 and does not."""

    outgoing: ssl.MemoryBIO
    _error: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Go on with the handshake; see SSLObject."""
        if self._error is not None:
            raise self._error
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._refuse(error, *_explain(error))
        if cast("_Context", self.context).is_http2 and self.selected_alpn_protocol() != "h2":
            with suppress(ssl.SSLError):
                self.unwrap()  # says goodbye; the answer is not awaited
            text = "the peer does not offer h2 (HTTP/2) by ALPN"
            self._refuse(ssl.SSLError(text), Refusal.ALPN, text)

    def _refuse(self, error: ssl.SSLError, refusal: Refusal, text: str) -> NoReturn:
        context = self.context
        assert isinstance(context, _Context)
        context.refused(refusal, text)
        if not self.outgoing.pending:
            raise error
        # The error would make asyncio close the connection without sending the alert that tells
        # the peer why. So it is raised when the peer says something more, or never, if the peer
        # closes the connection or the time for the handshake is up before.
        self._error = error
        raise ssl.SSLWantReadError


_Context.sslobject_class = _Connection


def _explain(error: ssl.SSLError) -> tuple[Refusal, str]:
    reason = error.reason or "UNKNOWN"
    words = reason.lower().replace("_", " ")
    if reason in _REFUSALS:
        return _REFUSALS[reason]
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refusal.BAD_CERTIFICATE, f"the peer's client certificate: {error.verify_message}"
    if "ALERT" in reason:
        return Refusal.BY_PEER, f"the peer itself does not go on: {words}"
    return Refusal.OTHER, words
