"""ext_proc messages: bytes of the wire to calls of an exchange, replies of an exchange to bytes.

It knows the encoding and nothing else. Replies that do not depend on the request are encoded once.
"""

from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from epp.core.exchange import Exchange, ProxyProtocolError
from epp.core.headers import CONTROL_HEADERS, DESTINATION, Headers
from epp.core.parsing.orca import LOAD_REPORT_HEADER
from epp.core.replies import (
    BodyContinue,
    BodyMode,
    BodyReply,
    ExtendTimeout,
    Header,
    HeadersReply,
    ImmediateReply,
    Phase,
    Reply,
    TrailersReply,
)
from epp.proxy.body_messages import body_message, read_body
from epp.proxy.pool_name import pool_name
from epp.proxy.wire import core_pb2, ext_proc_pb2

__all__ = ["encode", "feed"]

_LB_NAMESPACE: Final = "envoy.lb"
_SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"
_DESTINATION_KEY: Final = "x-gateway-destination-endpoint"
_SUBSET_KEY: Final = "x-gateway-destination-endpoint-subset"
_SERVED_KEY: Final = "x-gateway-destination-endpoint-served"
_ATTRIBUTES: Final = "envoy.filters.http.ext_proc"
_UPSTREAM_ADDRESS: Final = "upstream.address"

_STATUS: Final = b":status"
_CONTENT_ENCODING: Final = b"content-encoding"
_RESPONSE_HEADERS: Final = frozenset((_STATUS, _CONTENT_ENCODING, LOAD_REPORT_HEADER))

_MODES: Final = {int(mode): mode for mode in BodyMode}
_OVERWRITE: Final = core_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


# Bytes to calls


def feed(exchange: Exchange, message_bytes: bytes, now: float) -> None:
    """Tell the exchange what one message says.

    Raises ProxyProtocolError for bytes that are no ext_proc message and for one out of order.
    Messages of a stream in observability mode are for information only and get no replies.
    """
    piece = read_body(message_bytes)
    if piece is not None:
        phase, data, end_of_stream = piece
        if phase is Phase.RESPONSE:
            exchange.response_body(data, end_of_stream, now)
        else:
            exchange.request_body(data, end_of_stream, now)
        return
    try:
        message = ext_proc_pb2.ProcessingRequest.FromString(message_bytes)
    except DecodeError as error:
        raise ProxyProtocolError("not a ProcessingRequest message") from error
    if message.observability_mode:
        return
    if message.HasField("protocol_config"):
        config = message.protocol_config
        exchange.protocol(_mode(config.request_body_mode), _mode(config.response_body_mode))
    kind = message.WhichOneof("request")
    if kind == "response_body":
        body = message.response_body
        exchange.response_body(body.body, body.end_of_stream, now)
    elif kind == "request_body":
        body = message.request_body
        exchange.request_body(body.body, body.end_of_stream, now)
    elif kind == "request_headers":
        opening = message.request_headers
        headers = _headers(opening.headers)
        subset, ends = _subset(message), opening.end_of_stream
        exchange.request_headers(headers, subset, ends, now, pool_name(message))
    elif kind == "response_headers":
        opening = message.response_headers
        found = _wanted(opening.headers)
        status = found.get(_STATUS, b"")
        exchange.response_headers(
            int(status) if status.isdigit() else 0,
            _served_by(message),
            opening.end_of_stream,
            now,
            content_encoding=found.get(_CONTENT_ENCODING, b""),
            load_report=found.get(LOAD_REPORT_HEADER, b""),
        )
    elif kind == "response_trailers":
        exchange.response_trailers(now)
    elif kind == "request_trailers":
        exchange.request_trailers(now)


def _mode(number: int) -> BodyMode:
    # A mode of the future is most likely a kind of streaming; and it must not be refused.
    return _MODES.get(number, BodyMode.FULL_DUPLEX_STREAMED)


def _headers(header_map: core_pb2.HeaderMap) -> Headers:
    return Headers(
        [(header.key, header.raw_value or header.value) for header in header_map.headers]
    )


def _wanted(header_map: core_pb2.HeaderMap) -> dict[bytes, bytes]:
    """Return the first values of those of a response's headers that matter."""
    found: dict[bytes, bytes] = {}
    for header in header_map.headers:
        key = header.key
        if key in _RESPONSE_HEADERS and key not in found:
            found[key] = header.raw_value or header.value
    return found


def _subset(message: ext_proc_pb2.ProcessingRequest) -> frozenset[str] | None:
    """Return the gateway's hint; an empty one where it is there and names nothing that is
    usable."""
    value = _metadata_value(message, _SUBSET_NAMESPACE, _SUBSET_KEY)
    if value is None:
        return None
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return frozenset(item.string_value for item in value.list_value.values if item.string_value)
    if kind == "string_value":
        named = (part.strip() for part in value.string_value.split(","))
        return frozenset(part for part in named if part)
    return frozenset()


def _served_by(message: ext_proc_pb2.ProcessingRequest) -> str | None:
    """Return the ``ip:port`` that served: what the gateway says, else what Envoy's attribute
    says."""
    value = _metadata_value(message, _LB_NAMESPACE, _SERVED_KEY)
    if value is not None and value.string_value:
        return value.string_value
    attributes = message.attributes
    if _ATTRIBUTES in attributes:
        fields = attributes[_ATTRIBUTES].fields
        if _UPSTREAM_ADDRESS in fields:
            return fields[_UPSTREAM_ADDRESS].string_value or None
    return None


def _metadata_value(
    message: ext_proc_pb2.ProcessingRequest, namespace: str, key: str
) -> Value | None:
    # Only look: indexing a protobuf map inserts what is missing.
    metadata = message.metadata_context.filter_metadata
    if namespace not in metadata:
        return None
    fields = metadata[namespace].fields
    return fields.get(key)


# Replies to bytes


def encode(reply: Reply) -> bytes:
    """Return the ProcessingResponse of a reply."""
    if isinstance(reply, BodyReply):
        return body_message(reply.phase, reply.body, end_of_stream=reply.end_of_stream)
    if isinstance(reply, HeadersReply):
        if reply.phase is Phase.REQUEST:
            return _request_headers(reply.destination, reply.set_headers, reply.remove_headers)
        return _response_headers(reply.set_headers, reply.remove_headers)
    if isinstance(reply, BodyContinue):
        if reply.body is None:
            return _body_continue(reply.phase, reply.destination)
        return _body_replaced(reply, reply.body)
    if isinstance(reply, TrailersReply):
        return _trailers(reply.phase, reply.destination)
    if isinstance(reply, ImmediateReply):
        return _immediate(reply)
    return _extend_timeout(reply)


@lru_cache(maxsize=4096)
def _request_headers(
    destination: str | None, set_headers: tuple[Header, ...], removed: tuple[bytes, ...]
) -> bytes:
    message = ext_proc_pb2.ProcessingResponse()
    mutation = message.request_headers.response.header_mutation
    # Envoy removes before it sets, so the destination that a client sent is gone and ours stays.
    mutation.remove_headers.extend(
        name for name in CONTROL_HEADERS if destination is None or name != DESTINATION
    )
    mutation.remove_headers.extend(removed)
    _set_headers(mutation, set_headers)
    _name_destination(message, mutation, destination)
    return message.SerializeToString()


@lru_cache(maxsize=4096)
def _body_continue(phase: Phase, destination: str | None) -> bytes:
    message = ext_proc_pb2.ProcessingResponse()
    half = message.request_body if phase is Phase.REQUEST else message.response_body
    half.SetInParent()
    if destination is not None:
        _name_destination(message, half.response.header_mutation, destination)
    return message.SerializeToString()


def _body_replaced(reply: BodyContinue, body: bytes) -> bytes:
    message = ext_proc_pb2.ProcessingResponse()
    half = message.request_body if reply.phase is Phase.REQUEST else message.response_body
    half.response.body_mutation.body = body
    mutation = half.response.header_mutation
    mutation.remove_headers.extend(reply.remove_headers)
    _set_headers(mutation, reply.set_headers)
    _name_destination(message, mutation, reply.destination)
    return message.SerializeToString()


@lru_cache(maxsize=4096)
def _trailers(phase: Phase, destination: str | None) -> bytes:
    message = ext_proc_pb2.ProcessingResponse()
    half = message.request_trailers if phase is Phase.REQUEST else message.response_trailers
    half.SetInParent()
    if destination is not None:
        # The headers have gone by without it: only the metadata can still name it.
        _destination_metadata(message.dynamic_metadata, destination)
    return message.SerializeToString()


@lru_cache(maxsize=1024)
def _response_headers(set_headers: tuple[Header, ...], removed: tuple[bytes, ...]) -> bytes:
    message = ext_proc_pb2.ProcessingResponse()
    message.response_headers.SetInParent()
    if set_headers or removed:
        mutation = message.response_headers.response.header_mutation
        mutation.remove_headers.extend(removed)
        _set_headers(mutation, set_headers)
    return message.SerializeToString()


def _immediate(reply: ImmediateReply) -> bytes:
    message = ext_proc_pb2.ProcessingResponse()
    immediate = message.immediate_response
    immediate.status.code = reply.status
    immediate.body = reply.body
    immediate.details = "epp"
    _set_headers(immediate.headers, reply.headers)
    return message.SerializeToString()


def _extend_timeout(reply: ExtendTimeout) -> bytes:
    message = ext_proc_pb2.ProcessingResponse()
    message.override_message_timeout.FromMilliseconds(max(1, round(reply.timeout_s * 1000)))
    return message.SerializeToString()


def _name_destination(
    message: ext_proc_pb2.ProcessingResponse,
    mutation: ext_proc_pb2.HeaderMutation,
    destination: str | None,
) -> None:
    """Name the destination in both places that the protocol demands, with one and the same
    value."""
    if destination is not None:
        _set_headers(mutation, ((DESTINATION, destination.encode()),))
        _destination_metadata(message.dynamic_metadata, destination)


def _destination_metadata(metadata: Struct, destination: str) -> None:
    metadata.get_or_create_struct(_LB_NAMESPACE)[_DESTINATION_KEY] = destination


def _set_headers(mutation: ext_proc_pb2.HeaderMutation, headers: tuple[Header, ...]) -> None:
    for name, value in headers:
        option = mutation.set_headers.add()
        option.header.key = name
        option.header.raw_value = value
        option.append_action = _OVERWRITE
