"""Cipher suites of TLS: Go's names, which the options take, and OpenSSL's.

Sources: the constants of Go's ``crypto/tls``; OpenSSL's manual, ``openssl-ciphers``; RFC 9113,
section 9.2.2 and appendix A, for those that HTTP/2 may use.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from epp.errors import UsageError

__all__ = ["SuiteChoice", "choose_suites", "with_ecdsa"]

_FLAG: Final = "--tls-cipher-suites"
_OPENSSL_NAMES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
# They are always on where TLS 1.3 is spoken, as in Go.
_TLS13_NAMES: Final = frozenset(
    ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
)
# Go knows them, but HTTP/2 must not use them.
_BARRED: Final = frozenset(
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA256",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_RSA_WITH_AES_256_CBC_SHA",
        "TLS_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_RSA_WITH_RC4_128_SHA",
    )
)


class SuiteChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The suites of TLS 1.2 by OpenSSL's names, and the names that were ``barred``: HTTP/2 must not
    use them. ``is_tls13_only`` is where all suites that were named are those of TLS 1.3."""

    names: tuple[str, ...]
    barred: tuple[str, ...]
    is_tls13_only: bool


def choose_suites(names: Iterable[str]) -> SuiteChoice:
    """Return what Go's names stand for. Raises UsageError for one that Go does not know, and where
    none is left."""
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in _OPENSSL_NAMES and name not in _TLS13_NAMES and name not in _BARRED:
            raise UsageError(
                f"{_FLAG}: found {name!r}; expected Go's name of a cipher suite, such as"
                f" {next(iter(_OPENSSL_NAMES))}"
            )
    barred = tuple(name for name in wanted if name in _BARRED)
    if wanted and len(barred) == len(wanted):
        raise UsageError(
            f"{_FLAG}: found only suites that HTTP/2 must not use (RFC 9113, section 9.2.2);"
            f" expected one like {next(iter(_OPENSSL_NAMES))}"
        )
    chosen = tuple(dict.fromkeys(_OPENSSL_NAMES[name] for name in wanted if name in _OPENSSL_NAMES))
    return SuiteChoice(names=chosen, barred=barred, is_tls13_only=bool(wanted) and not chosen)


def with_ecdsa(names: Iterable[str]) -> tuple[str, ...]:
    """Return the suites, by OpenSSL's names, and where none of them is for ECDSA keys, those that
    are and do the same otherwise."""
    given = tuple(names)
    if any("-ECDSA-" in name for name in given):
        return given
    return given + tuple(name.replace("-RSA-", "-ECDSA-") for name in given)
