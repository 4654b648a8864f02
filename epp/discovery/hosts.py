"""Addresses as users and resolvers write them → the one spelling that the rest of the EPP sees."""

import ipaddress
import re

__all__ = ["canonical_host", "canonical_ip", "is_ip"]

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# RFC 1123 section 2.1; an all-digit last label would be a mistyped IPv4 address, never a name.
_DNS_NAME = re.compile(rf"({_LABEL}\.)*(?![0-9]+\.?$){_LABEL}\.?")
_MAX_DNS_NAME_LENGTH = 253


def canonical_ip(text: str) -> str | None:
    """Return an IP address, IPv6 with or without brackets, in its canonical form.

    None for what is no IP address and for what no server can be reached at: the unspecified and
    multicast addresses, and IPv6 addresses with a zone (they mean something on one machine only,
    and proxies refuse them). An IPv4 address inside an IPv6 one becomes the IPv4 address it is.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        address = address.ipv4_mapped or address
    elif bare is not text:
        return None
    return None if address.is_unspecified or address.is_multicast else str(address)


def is_ip(host: str) -> bool:
    """Tell whether a canonical host is an IP address rather than a DNS name."""
    return canonical_ip(host) is not None


def canonical_host(text: str) -> str | None:
    """Return an IP address or a DNS name (RFC 1123) in canonical form, None for anything else."""
    if (address := canonical_ip(text)) is not None:
        return address
    name = text.lower()
    is_name = len(name.rstrip(".")) <= _MAX_DNS_NAME_LENGTH and _DNS_NAME.fullmatch(name)
    return name if is_name else None
