import pytest

from epp.discovery.hosts import canonical_host, canonical_ip, is_ip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8:0:0::00a", "2001:db8::a"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[10.0.0.1]", None),
        ("010.0.0.1", None),
        ("0.0.0.0", None),
        ("::", None),
        ("224.0.0.1", None),
        ("ff02::1", None),
        ("fe80::1%eth0", None),
        ("10.0.0", None),
        ("", None),
    ],
)
def test_ip_addresses(text: str, expected: str | None) -> None:
    assert canonical_ip(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vllm", "vllm"),
        ("VLLM.Example.com", "vllm.example.com"),
        ("vllm.example.com.", "vllm.example.com."),
        ("3scale.example", "3scale.example"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("a" * 63, "a" * 63),
        ("a" * 64, None),
        (".".join(["a" * 63] * 4), None),
        ("vllm_0", None),
        ("-vllm", None),
        ("vllm-", None),
        ("a..b", None),
        (".", None),
        ("", None),
        ("10.0.0.256", None),
        ("10.0.0.256.", None),
        ("127.1", None),
        ("vllm:8000", None),
        ("http://vllm", None),
        ("vllm/v1", None),
        ("vllm example", None),
        ("vllm\n", None),
        ("vllm.exämple", None),
    ],
)
def test_hosts(text: str, expected: str | None) -> None:
    assert canonical_host(text) == expected


def test_a_name_is_no_ip() -> None:
    assert is_ip("10.0.0.1")
    assert is_ip("2001:db8::1")
    assert not is_ip("vllm.example.com")
