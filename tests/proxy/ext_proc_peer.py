"""A proxy that speaks ext_proc: streams, and the messages that it sends."""

import asyncio
from collections.abc import Callable, Sequence

import grpc
from google.protobuf.struct_pb2 import Struct

from epp.core.replies import MAX_BODY_REPLY_BYTES, BodyMode
from epp.proxy.health import EXT_PROC_SERVICE
from epp.proxy.wire import ext_proc_pb2

__all__ = [
    "DESTINATION",
    "DUPLEX",
    "PATIENCE_S",
    "Message",
    "Proxy",
    "Reply",
    "Stream",
    "body",
    "destination_of",
    "headers",
    "hint",
    "response_headers",
    "trailers",
    "until",
]

PATIENCE_S = 20.0
DESTINATION = "x-gateway-destination-endpoint"
DUPLEX = BodyMode.FULL_DUPLEX_STREAMED

Message = ext_proc_pb2.ProcessingRequest
Reply = ext_proc_pb2.ProcessingResponse


class Proxy:
    """The proxy's end: one channel, a stream per HTTP request."""

    def __init__(self, port: int, options: Sequence[tuple[str, int]] = ()) -> None:
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[*unlimited, *options]
        )

    def stream(self) -> "Stream":
        return Stream(self.channel.stream_stream(f"/{EXT_PROC_SERVICE}/Process")())


class Stream:
    """One stream; every reply is looked at for what no reply may ever say."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self.call = call

    async def send(self, message: ext_proc_pb2.ProcessingRequest | bytes) -> None:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        async with asyncio.timeout(PATIENCE_S):
            await self.call.write(data)

    async def reply(self) -> ext_proc_pb2.ProcessingResponse:
        async with asyncio.timeout(PATIENCE_S):
            data = await self.call.read()
        assert data is not grpc.aio.EOF, "the stream has ended"
        reply = Reply.FromString(data)
        for half in (reply.request_headers, reply.request_body, reply.response_headers):
            assert not half.response.clear_route_cache
            for option in half.response.header_mutation.set_headers:
                assert option.header.key != b"content-length"
        return reply

    async def body(self, phase: str) -> bytes:
        """Return the pieces of a body joined, up to the one that ends it."""
        pieces = []
        while True:
            piece = getattr(await self.reply(), phase).response.body_mutation.streamed_response
            assert len(piece.body) <= MAX_BODY_REPLY_BYTES
            pieces.append(piece.body)
            if piece.end_of_stream:
                return b"".join(pieces)

    async def half_close(self) -> None:
        await self.call.done_writing()

    async def ended(self) -> grpc.StatusCode:
        """Wait for the end, which must come without another reply; return the status."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                data = await self.call.read()
            except grpc.aio.AioRpcError as error:
                return error.code()
            assert data is grpc.aio.EOF, f"one more reply: {Reply.FromString(data)}"
            return await self.call.code()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - it comes true by what a peer does
            await asyncio.sleep(0.002)


def headers(
    *pairs: tuple[bytes, bytes],
    end: bool = False,
    request_mode: BodyMode = DUPLEX,
    response_mode: BodyMode = BodyMode.NONE,
) -> ext_proc_pb2.ProcessingRequest:
    message = Message()
    for name, value in ((b":path", b"/v1/completions"), *pairs):
        message.request_headers.headers.headers.add(key=name, raw_value=value)
    message.request_headers.end_of_stream = end
    message.protocol_config.request_body_mode = int(request_mode)
    message.protocol_config.response_body_mode = int(response_mode)
    return message


def body(data: bytes, *, end: bool = True) -> ext_proc_pb2.ProcessingRequest:
    message = Message()
    message.request_body.body = data
    message.request_body.end_of_stream = end
    return message


def trailers() -> ext_proc_pb2.ProcessingRequest:
    message = Message()
    message.request_trailers.SetInParent()
    return message


def response_headers(*, status: bytes = b"200", end: bool = True) -> ext_proc_pb2.ProcessingRequest:
    message = Message()
    message.response_headers.headers.headers.add(key=b":status", raw_value=status)
    message.response_headers.end_of_stream = end
    return message


def destination_of(reply: ext_proc_pb2.ProcessingResponse, phase: str = "request_headers") -> str:
    """Return the destination; the header and the metadata must be there and say the same."""
    mutation = getattr(reply, phase).response.header_mutation
    values = {option.header.key: option.header.raw_value for option in mutation.set_headers}
    told = dict(reply.dynamic_metadata["envoy.lb"])
    assert values[DESTINATION.encode()].decode() == told[DESTINATION]
    return str(told[DESTINATION])


def hint(*destinations: str, as_text: bool = False) -> Struct:
    value = Struct()
    if as_text:
        value[f"{DESTINATION}-subset"] = ", ".join(destinations)
    else:
        value.get_or_create_list(f"{DESTINATION}-subset").extend(destinations)
    return value
