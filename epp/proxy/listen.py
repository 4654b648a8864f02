"""Binding a grpcio server to an address, with an error that a person can act on."""

import grpc

from epp.core.resources import join_host_port
from epp.errors import UsageError

__all__ = ["bind"]


def bind(
    server: grpc.aio.Server,
    host: str,
    port: int,
    purpose: str,
    credentials: grpc.ServerCredentials | None = None,
) -> int:
    """Add a port, plaintext unless there are ``credentials``, and return its number.

    ``purpose`` names the option for the error, a UsageError.
    """
    address = join_host_port(host, port)
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise UsageError(
            f"cannot listen on {address} for {purpose}: the port is taken or the address is not one"
            " of this machine"
        ) from error
