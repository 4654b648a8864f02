"""Go's names of cipher suites."""

import ssl

import pytest

from epp.config.cipher_suites import _OPENSSL_NAMES, choose_suites
from epp.errors import UsageError

RSA = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"


def test_every_name_is_known_to_openssl() -> None:
    for name in _OPENSSL_NAMES.values():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(name)
        old = [each["name"] for each in context.get_ciphers() if each["protocol"] == "TLSv1.2"]
        assert old == [name]


def test_names_are_translated_and_the_rest_is_told() -> None:
    choice = choose_suites([RSA, "TLS_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA", RSA])
    assert choice.names == ("ECDHE-RSA-AES128-GCM-SHA256",)
    assert choice.barred == ("TLS_RSA_WITH_AES_128_CBC_SHA",)
    assert not choice.is_tls13_only


def test_nothing_said_is_nothing_chosen() -> None:
    choice = choose_suites([])
    assert choice.names == choice.barred == ()
    assert not choice.is_tls13_only


def test_suites_of_tls_1_3_alone_leave_out_tls_1_2() -> None:
    choice = choose_suites(["TLS_AES_128_GCM_SHA256", "TLS_RSA_WITH_RC4_128_SHA"])
    assert choice.names == ()
    assert choice.is_tls13_only


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            ["ECDHE-RSA-AES128-GCM-SHA256"],
            "found 'ECDHE-RSA-AES128-GCM-SHA256'; expected Go's name",
        ),
        (["TLS_RSA_WITH_AES_128_CBC_SHA"], "found only suites that HTTP/2 must not use"),
    ],
)
def test_what_cannot_be_used_is_refused(names: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        choose_suites(names)
