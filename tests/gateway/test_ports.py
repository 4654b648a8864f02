import socket

import pytest

from epp.errors import UsageError
from epp.gateway.ports import claim_ports, free_ports


def test_free_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_is_named_with_its_flag(address: str) -> None:
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} .*in use.*--metrics-port"):
            claim_ports([("--port", 0), ("--metrics-port", port)])


def test_a_port_wanted_twice_is_refused() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UsageError, match="--grpc-port"):
        claim_ports([("--port", port), ("--grpc-port", port)])


def test_a_port_of_another_envoy_is_taken() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(UsageError, match="--port"):
            claim_ports([("--port", listener.getsockname()[1])])
