"""What the service asks of a transport, whichever it is."""

from typing import Protocol

import msgspec

from epp.proxy.tls import ServerTls

__all__ = ["SharedPort", "Transport"]


class SharedPort(msgspec.Struct, frozen=True, kw_only=True):
    """Several processes listen on one port; the kernel gives each connection to one of them.

    ``connection_streams`` is how many streams a proxy is asked to open on one connection at most,
    so that it opens several, which the kernel can spread.
    """

    connection_streams: int


class Transport(Protocol):
    """Serves ext_proc and gRPC health on one address; drives one exchange per stream."""

    port: int
    """The bound port, once :meth:`start` has returned."""

    open_streams: int
    """Streams that are open now."""

    async def start(self, host: str, port: int, tls: ServerTls | None = None) -> None:
        """Listen, with TLS if it is given (and loaded); port 0 takes any that is free.

        Raises UsageError if the address cannot be had.
        """

    async def stop(self, grace_s: float) -> None:
        """Take no new streams, give the open ones ``grace_s`` seconds, then end them."""
