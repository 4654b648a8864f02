"""What can be chosen about the gateway's Envoy; everything else is fixed in the bootstrap."""

from typing import Literal

import msgspec

__all__ = ["BodyMode", "GatewayOptions", "TrailerMode"]

BodyMode = Literal["NONE", "BUFFERED", "BUFFERED_PARTIAL", "STREAMED", "FULL_DUPLEX_STREAMED"]
TrailerMode = Literal["SEND", "SKIP"]


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The choices behind one Envoy bootstrap.

    Addresses are IP literals, as Envoy demands; only the EPP's may be a DNS name. ``eds_path`` is
    the absolute path of the file with the pool's endpoints, which must exist when Envoy starts.
    ``admin_port`` 0 lets the kernel choose, ``None`` leaves Envoy without its admin page.
    """

    eds_path: str
    listen_address: str = "127.0.0.1"
    listen_port: int = 8080
    ext_proc_address: str = "127.0.0.1"
    ext_proc_port: int = 9002
    admin_port: int | None = 9901

    ext_proc_replicas: tuple[tuple[str, int], ...] = ()
    """Address and port of every further replica of the EPP. Envoy asks those that are ready."""

    ext_proc_connection_streams: int | None = None
    """Most requests on one connection to the EPP, so that several workers get some; ``None``:
    as many as the EPP allows, of which a new connection learns only after its first requests."""

    fail_open: bool = True
    """When the EPP cannot be asked: let the fallback policy choose, instead of refusing."""

    request_body_mode: BodyMode = "FULL_DUPLEX_STREAMED"
    response_body_mode: BodyMode = "NONE"
    request_trailer_mode: TrailerMode = "SEND"
    response_trailer_mode: TrailerMode = "SEND"

    ext_proc_enabled: bool = True
    """False leaves the filter out: the same gateway without an EPP, for comparison."""

    message_timeout_s: float = 1000.0
    """How long Envoy waits for a reply in the modes where it counts; above any queue's TTL."""

    max_message_timeout_s: float | None = None
    """Up to where the EPP may extend the timeout of one message; ``None``: not at all."""

    ext_proc_health_check: bool | None = None
    """Whether Envoy asks the EPP's gRPC health service; ``None``: only for ``fail_open``, and where
    there are replicas, of which only the leader is ready.

    With full-duplex bodies, Envoy gives a request up, fail-open or not, once it has sent the EPP a
    part of the body, and it sends that before it knows that nobody is there. So fail-open works
    for requests with bodies from the moment on at which a health check has failed.
    """

    strip_destination: bool = True
    """Remove a client's own destination headers before any filter sees them."""

    buffer_limit_bytes: int | None = None
    """Envoy's buffer per connection (1 MiB if ``None``): the largest body of BUFFERED modes."""

    static_subset_hint: tuple[str, ...] | None = None
    """``ip:port`` list that every request carries as the endpoint-picker protocol's subset hint."""

    subset_hint_header: str | None = None
    """A request header that becomes the subset hint: a ``google.protobuf.Value`` in Base64."""
