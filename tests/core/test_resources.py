"""Endpoints are known by ``ip:port``."""

import pytest

from epp.core.resources import Endpoint, join_host_port, split_host_port


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("10.0.0.1", 8000, "10.0.0.1:8000"),
        ("fd00::1", 80, "[fd00::1]:80"),
        ("::1", 65535, "[::1]:65535"),
    ],
)
def test_destination(address: str, port: int, expected: str) -> None:
    assert join_host_port(address, port) == expected
    assert split_host_port(expected) == (address, port)
    assert Endpoint(name="a", address=address, port=port).destination == expected


@pytest.mark.parametrize("destination", ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:http"])
def test_what_has_no_port_is_not_split(destination: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        split_host_port(destination)
