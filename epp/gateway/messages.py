"""Small builders for the shapes that recur all over Envoy's configuration."""

import betterproto2
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.google import protobuf

__all__ = ["extension", "pack", "socket_address"]


def pack(message: betterproto2.Message) -> protobuf.Any:
    """Return ``message`` with its type, as fields for extensions hold it (``@type`` in JSON)."""
    return protobuf.Any.pack(message)


def extension(name: str, config: betterproto2.Message) -> core.TypedExtensionConfig:
    """Return the reference to an extension of Envoy with its configuration."""
    return core.TypedExtensionConfig(name=name, typed_config=pack(config))


def socket_address(address: str, port: int) -> core.Address:
    """Return a TCP address; ``address`` is an IP literal, IPv6 without brackets."""
    return core.Address(socket_address=core.SocketAddress(address=address, port_value=port))
