"""What is said in an ext_proc conversation, phase by phase, over a real gRPC connection."""

import grpc
import pytest

from epp.core.headers import CONTROL_HEADERS
from epp.core.replies import BodyMode
from epp.core.request import Outcome

from ..core.support import destination
from .conftest import MAX_BODY_BYTES, Served
from .ext_proc_peer import (
    DESTINATION,
    DUPLEX,
    Message,
    body,
    destination_of,
    headers,
    hint,
    response_headers,
    trailers,
    until,
)

# The conversation


async def test_a_whole_conversation(ext_proc: Served) -> None:
    """Duty: one stream per HTTP request; the destination in header and metadata, the same value."""
    stream, where = await ext_proc.dispatched()
    assert where in (destination(1), destination(2))
    assert ext_proc.harness.router.pool.total_in_flight == 1
    await stream.send(response_headers(end=False))
    reply = await stream.reply()
    assert reply.WhichOneof("response") == "response_headers"
    assert ext_proc.harness.router.pool.total_in_flight == 1
    await stream.half_close()
    assert await stream.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


async def test_response_trailers_end_the_response(ext_proc: Served) -> None:
    """Duty: trailers, too, are a phase, with which a response without a body phase ends."""
    stream, _ = await ext_proc.dispatched()
    await stream.send(response_headers(end=False))
    await stream.reply()
    assert ext_proc.harness.router.pool.total_in_flight == 1
    message = Message()
    message.response_trailers.SetInParent()
    await stream.send(message)
    assert (await stream.reply()).WhichOneof("response") == "response_trailers"
    assert ext_proc.harness.router.pool.total_in_flight == 0
    await stream.half_close()
    assert await stream.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


async def test_control_headers_are_removed_before_the_destination_is_set(
    ext_proc: Served,
) -> None:
    """Trap: a client must not be able to name its destination, whatever else it sends."""
    stream = ext_proc.proxy.stream()
    evil = [(name, b"127.0.0.1:1") for name in CONTROL_HEADERS]
    await stream.send(headers(*evil, end=True))
    reply = await stream.reply()
    assert destination_of(reply) in (destination(1), destination(2))
    removed = set(reply.request_headers.response.header_mutation.remove_headers)
    assert set(CONTROL_HEADERS) - removed <= {DESTINATION.encode()}
    (option,) = reply.request_headers.response.header_mutation.set_headers
    assert option.append_action == option.OVERWRITE_IF_EXISTS_OR_ADD
    stream.call.cancel()


@pytest.mark.parametrize("mode", [BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL])
async def test_in_buffered_modes_the_destination_comes_with_the_body(
    ext_proc: Served, mode: BodyMode
) -> None:
    stream = ext_proc.proxy.stream()
    await stream.send(headers(request_mode=mode))
    reply = await stream.reply()
    assert reply.WhichOneof("response") == "request_headers"
    assert not reply.HasField("dynamic_metadata")
    await stream.send(body(b"x" * 100_000))
    reply = await stream.reply()
    assert destination_of(reply, "request_body") in (destination(1), destination(2))
    assert not reply.request_body.response.HasField("body_mutation")
    stream.call.cancel()


@pytest.mark.parametrize("mode", [BodyMode.NONE, BodyMode.STREAMED])
async def test_in_other_modes_the_headers_carry_it_at_once(
    ext_proc: Served, mode: BodyMode
) -> None:
    stream = ext_proc.proxy.stream()
    await stream.send(headers(request_mode=mode))
    assert destination_of(await stream.reply()) in (destination(1), destination(2))
    stream.call.cancel()


@pytest.mark.parametrize("number", [4, 5, 77])
async def test_a_mode_that_nobody_knows_is_taken_for_streaming(
    ext_proc: Served, number: int
) -> None:
    """Duty: what the proxy announced is adapted to, never refused."""
    stream = ext_proc.proxy.stream()
    message = headers(end=True)
    message.protocol_config.ClearField("response_body_mode")
    # An enum's number is a varint: protocol_config (11) with request_body_mode (1).
    message.ClearField("protocol_config")
    await stream.send(message.SerializeToString() + bytes((0x5A, 2, 8, number)))
    assert (await stream.reply()).WhichOneof("response") == "request_headers"
    stream.call.cancel()


# Bodies


@pytest.mark.parametrize("size_bytes", [1, 62_000, 62_001, 1_000_000])
@pytest.mark.parametrize("phase", ["request_body", "response_body"])
async def test_every_piece_is_sent_back_and_none_is_too_large(
    ext_proc: Served, phase: str, size_bytes: int
) -> None:
    """Trap: in duplex mode every chunk must be sent back, with at most 62,000 bytes per reply."""
    stream = ext_proc.proxy.stream()
    data = bytes(number % 251 for number in range(size_bytes))
    pieces = [data[start : start + 65_000] for start in range(0, size_bytes, 65_000)]
    await stream.send(headers(response_mode=DUPLEX))
    if phase == "response_body":
        await stream.send(body(b"hello"))
        await stream.reply()
        assert await stream.body("request_body") == b"hello"
        await stream.send(response_headers(end=False))
        await stream.reply()
    for number, piece in enumerate(pieces, start=1):
        message = Message()
        half = getattr(message, phase)
        half.body, half.end_of_stream = piece, number == len(pieces)
        await stream.send(message)
    if phase == "request_body":
        destination_of(await stream.reply())
    assert await stream.body(phase) == data
    stream.call.cancel()


async def test_the_last_piece_may_come_twice(ext_proc: Served) -> None:
    """Trap: large bodies can bring the last chunk twice; everything after the first is ignored."""
    stream = ext_proc.proxy.stream()
    await stream.send(headers(response_mode=DUPLEX))
    for data, end in ((b"one", False), (b"two", True), (b"two", True), (b"", True)):
        await stream.send(body(data, end=end))
    destination_of(await stream.reply())
    assert await stream.body("request_body") == b"onetwo"
    await stream.send(body(b"two"))
    await stream.send(response_headers(end=False))
    assert (await stream.reply()).WhichOneof("response") == "response_headers"
    for _ in range(2):
        message = Message()
        message.response_body.body, message.response_body.end_of_stream = b"answer", True
        await stream.send(message)
    assert await stream.body("response_body") == b"answer"
    await stream.half_close()
    assert await stream.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


async def test_trailers_end_a_body_that_has_no_end(ext_proc: Served) -> None:
    """Trap: a request with trailers has no end_of_stream on its last body chunk."""
    stream = ext_proc.proxy.stream()
    await stream.send(headers())
    await stream.send(body(b"one", end=False))
    await stream.send(body(b"two", end=False))
    await stream.send(trailers())
    destination_of(await stream.reply())
    streamed = (await stream.reply()).request_body.response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"onetwo", False)
    assert (await stream.reply()).WhichOneof("response") == "request_trailers"
    stream.call.cancel()


@pytest.mark.parametrize("mode", [BodyMode.BUFFERED, DUPLEX])
async def test_twenty_megabytes_in_one_message(ext_proc: Served, mode: BodyMode) -> None:
    stream = ext_proc.proxy.stream()
    data = b"0123456789abcdef" * 1_250_000
    await stream.send(headers(request_mode=mode))
    if mode is BodyMode.BUFFERED:
        await stream.reply()
    await stream.send(body(data))
    reply = await stream.reply()
    if mode is BodyMode.BUFFERED:
        destination_of(reply, "request_body")
    else:
        destination_of(reply)
        assert await stream.body("request_body") == data, "the bytes differ"
    stream.call.cancel()


async def test_a_message_above_the_limit_ends_its_stream_alone(ext_proc: Served) -> None:
    other, _ = await ext_proc.dispatched()
    stream = ext_proc.proxy.stream()
    await stream.send(headers())
    await stream.send(body(bytes(MAX_BODY_BYTES + (2 << 20))))
    assert await stream.ended() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await other.send(response_headers())
    assert (await other.reply()).WhichOneof("response") == "response_headers"
    other.call.cancel()
    await ext_proc.rests()


# Headers, hints, who served


async def test_header_values_come_in_either_field_and_repeated(ext_proc: Served) -> None:
    """Trap: ``raw_value`` or ``value``; several values of one name are several entries."""
    objective = "x-llm-d-inference-objective"
    for field in ("value", "raw_value"):
        stream = ext_proc.proxy.stream()
        message = headers()
        for value in (b"urgent", b"not this one"):
            option = message.request_headers.headers.headers.add(key=objective.encode())
            setattr(option, field, value)
        await stream.send(message)
        await stream.send(body(b"x"))
        destination_of(await stream.reply())
        request, outcome, _ = ext_proc.harness.recorder.waits[-1]
        assert (request.flow.priority, outcome) == (10, Outcome.DISPATCHED)
        stream.call.cancel()
        await ext_proc.rests()


@pytest.mark.parametrize("has_body", [True, False])
@pytest.mark.parametrize("as_text", [True, False])
async def test_the_subset_hint_decides(ext_proc: Served, as_text: bool, has_body: bool) -> None:
    """Duty: pick only from the hint, by address and port."""
    for number in (1, 2, 2, 1):
        stream = ext_proc.proxy.stream()
        message = headers(end=not has_body)
        wanted = hint(destination(number), "10.0.0.9:1", as_text=as_text)
        message.metadata_context.filter_metadata["envoy.lb.subset_hint"].CopyFrom(wanted)
        await stream.send(message)
        if has_body:
            await stream.send(body(b"x"))
        assert destination_of(await stream.reply()) == destination(number)
        stream.call.cancel()
        await until(lambda: ext_proc.server.open_streams == 0)


@pytest.mark.parametrize("destinations", [(), ("10.0.0.1:8001",), ("10.0.0.1",), ("",)])
async def test_a_hint_that_names_no_endpoint_is_a_503_and_no_error_of_grpc(
    ext_proc: Served, destinations: tuple[str, ...]
) -> None:
    """Duty: present but empty, or none eligible: 503; never a gRPC error for it."""
    for end in (True, False):
        stream = ext_proc.proxy.stream()
        message = headers(end=end)
        message.metadata_context.filter_metadata["envoy.lb.subset_hint"].CopyFrom(
            hint(*destinations)
        )
        await stream.send(message)
        if not end:
            await stream.send(body(b"x"))
        assert (await stream.reply()).immediate_response.status.code == 503
        assert await stream.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


@pytest.mark.parametrize("by", ["metadata", "attribute"])
async def test_the_lease_follows_who_served(ext_proc: Served, by: str) -> None:
    """Duty: what the gateway says of who really served, else Envoy's attribute."""
    stream, where = await ext_proc.dispatched()
    other = destination(2) if where == destination(1) else destination(1)
    message = response_headers(end=False)
    if by == "metadata":
        message.metadata_context.filter_metadata["envoy.lb"][f"{DESTINATION}-served"] = other
        message.attributes["envoy.filters.http.ext_proc"]["upstream.address"] = where
    else:
        message.attributes["envoy.filters.http.ext_proc"]["upstream.address"] = other
    await stream.send(message)
    await stream.reply()
    in_flight = {e.destination: running for e, running, _ in ext_proc.harness.router.pool}
    assert in_flight == {where: 0, other: 1}
    stream.call.cancel()
    await ext_proc.rests()
