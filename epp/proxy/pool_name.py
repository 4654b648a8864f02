"""The pool that the gateway names for a request, where its configuration does so.

There are two places for the name, of which the first counts: dynamic metadata, which other filters
set or which the cluster brings along, and the metadata of the route, which Envoy hands over as the
attribute ``xds.route_metadata``. Neither can be reached by a client. Headers are not looked at.
"""

from functools import lru_cache
from typing import Final

from google.protobuf import text_format

from epp.proxy.wire import core_pb2, ext_proc_pb2

__all__ = ["pool_name"]

_NAMESPACE: Final = "envoy.lb"
_KEY: Final = "x-gateway-inference-pool"
_ATTRIBUTES: Final = "envoy.filters.http.ext_proc"
_ROUTE_METADATA: Final = "xds.route_metadata"


def pool_name(message: ext_proc_pb2.ProcessingRequest) -> str:
    """Return the name of the pool, as the gateway writes it; empty where it names none."""
    if message.HasField("metadata_context"):
        name = _in_metadata(message.metadata_context)
        if name:
            return name
    attributes = message.attributes
    if _ATTRIBUTES in attributes:  # only look: indexing a protobuf map inserts what is missing
        fields = attributes[_ATTRIBUTES].fields
        if _ROUTE_METADATA in fields:
            return _in_route(fields[_ROUTE_METADATA].string_value)
    return ""


@lru_cache(maxsize=1024)
def _in_route(text: str) -> str:
    """Return the name in a route's metadata, in protobuf's text format: all that Envoy has to hand
    over what is no plain value. There are as many texts as routes."""
    metadata = core_pb2.Metadata()
    try:
        text_format.Parse(text, metadata, allow_unknown_field=True)
    except text_format.ParseError:
        return ""
    return _in_metadata(metadata)


def _in_metadata(metadata: core_pb2.Metadata) -> str:
    namespaces = metadata.filter_metadata
    if _NAMESPACE not in namespaces:
        return ""
    value = namespaces[_NAMESPACE].fields.get(_KEY)
    return "" if value is None else value.string_value
