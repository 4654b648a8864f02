"""What the service asks of a transport, whichever it is."""

from typing import Protocol

from epp.proxy.tls import ServerTls

__all__ = ["Transport"]


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
