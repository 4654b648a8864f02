"""Which ports are free, found out before anything is started."""

import socket
from collections.abc import Iterable
from contextlib import ExitStack

from epp.errors import UsageError

__all__ = ["claim_ports", "free_ports"]

_HOST = "127.0.0.1"


def claim_ports(wanted: Iterable[tuple[str, int]]) -> list[int]:
    """Return the port for each wanted ``(flag, port)``; 0 stands for any free one.

    Raises :class:`UsageError`, naming port and flag, where a port of the loopback interface is
    taken or wanted twice. The ports are held only until this returns: whoever is to listen must be
    able to.
    """
    with ExitStack() as held:
        ports = []
        for flag, port in wanted:
            try:
                listener = held.enter_context(_bound(port))
            except OSError as error:
                reason = error.strerror or str(error)
                raise UsageError(
                    f"port {port} cannot be used ({reason}): choose another one with {flag}"
                ) from None
            ports.append(int(listener.getsockname()[1]))
    return ports


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports that nobody uses at this moment."""
    return claim_ports([("", 0)] * count)


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As servers do: a port with only closed connections left is free. Never SO_REUSEPORT, with
        # which two Envoys could share a port, each with a part of the requests, unnoticed.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        # Two bound sockets may share a port with SO_REUSEADDR until one of them listens.
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener
