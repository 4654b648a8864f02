"""The endpoints of the pool as an EDS file, which Envoy watches.

Envoy only sends requests to hosts that it knows, so this file bounds what a destination header can
reach, and gives the gateway somewhere to go while no EPP answers. It is written by hand rather
than with Envoy's message classes, which cost tens of megabytes that the EPP has no other use for.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from epp.core.resources import Endpoint

__all__ = ["EDS_CLUSTER", "eds_document", "write_eds"]

EDS_CLUSTER = "inference_pool"
"""The name of Envoy's cluster that the file describes."""


def eds_document(endpoints: Iterable[Endpoint]) -> bytes:
    """Return the JSON of the DiscoveryResponse that lists ``endpoints``, each destination once.

    Equal endpoints in equal order give equal bytes: the version is a digest of the content.
    """
    addresses = dict.fromkeys((endpoint.address, endpoint.port) for endpoint in endpoints)
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": EDS_CLUSTER,
        "endpoints": [{"lb_endpoints": [_lb_endpoint(*address) for address in addresses]}],
    }
    version = hashlib.sha256(msgspec.json.encode(assignment)).hexdigest()[:16]
    document = {"version_info": version, "resources": [assignment]}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def write_eds(path: str | os.PathLike[str], endpoints: Iterable[Endpoint]) -> bool:
    """Make the file at ``path`` list ``endpoints``; return whether it had to be written.

    The file is replaced by an atomic rename, which is also the event that Envoy waits for, and left
    alone where it says the same already. Raises :class:`OSError` when the directory cannot be
    written to.
    """
    target = Path(path)
    document = eds_document(endpoints)
    try:
        if target.read_bytes() == document:
            return False
    except FileNotFoundError:
        pass
    # Not tempfile: its files are readable by their owner only, and Envoy may run as someone else.
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    scratch.write_bytes(document)
    scratch.replace(target)
    return True


def _lb_endpoint(address: str, port: int) -> dict[str, object]:
    return {
        "endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}},
    }
