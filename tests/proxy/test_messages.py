"""Replies as bytes, and what messages tell an exchange."""

from epp.core.headers import CONTROL_HEADERS
from epp.core.replies import BodyContinue, HeadersReply, Phase, Reply
from epp.proxy.messages import encode, feed
from epp.proxy.wire import ext_proc_pb2


def test_the_headers_that_a_reply_names_are_removed_besides_the_control_headers() -> None:
    names = (b"x-tenant", b"authorization")
    reply = HeadersReply(Phase.REQUEST, None, remove_headers=names)
    message = ext_proc_pb2.ProcessingResponse.FromString(encode(reply))
    removed = message.request_headers.response.header_mutation.remove_headers
    assert sorted(removed) == sorted((*CONTROL_HEADERS, *names))


def _encoded(reply: Reply) -> ext_proc_pb2.ProcessingResponse:
    return ext_proc_pb2.ProcessingResponse.FromString(encode(reply))


def _set_headers(mutation: ext_proc_pb2.HeaderMutation) -> list[tuple[bytes, bytes]]:
    return [(option.header.key, option.header.raw_value) for option in mutation.set_headers]


def test_headers_are_set_and_removed_in_both_phases() -> None:
    added, removed = ((b"accept-encoding", b"identity"),), (b"content-length",)
    message = _encoded(HeadersReply(Phase.REQUEST, "10.0.0.1:80,10.0.0.2:80", added, removed))
    mutation = message.request_headers.response.header_mutation
    assert _set_headers(mutation) == [
        *added,
        (b"x-gateway-destination-endpoint", b"10.0.0.1:80,10.0.0.2:80"),
    ]
    assert removed[0] in mutation.remove_headers
    named = message.dynamic_metadata["envoy.lb"]
    assert named["x-gateway-destination-endpoint"] == "10.0.0.1:80,10.0.0.2:80"
    for headers in ((added, removed), (added, ()), ((), removed)):
        mutation = _encoded(
            HeadersReply(Phase.RESPONSE, None, *headers)
        ).response_headers.response.header_mutation
        assert (tuple(_set_headers(mutation)), tuple(mutation.remove_headers)) == headers


def test_a_body_is_replaced_with_its_headers_and_its_destination() -> None:
    added, removed = ((b"content-length", b"3"),), (b"content-encoding",)
    reply = BodyContinue(Phase.REQUEST, "10.0.0.1:80", b"new", added, removed)
    message = _encoded(reply)
    response = message.request_body.response
    assert response.body_mutation.body == b"new"
    assert tuple(response.header_mutation.remove_headers) == removed
    assert _set_headers(response.header_mutation) == [
        *added,
        (b"x-gateway-destination-endpoint", b"10.0.0.1:80"),
    ]
    message = _encoded(BodyContinue(Phase.RESPONSE, None, b""))
    assert message.response_body.response.body_mutation.WhichOneof("mutation") == "body"
    assert not message.HasField("dynamic_metadata")
    message = _encoded(BodyContinue(Phase.RESPONSE))
    assert message.WhichOneof("response") == "response_body"
    assert not message.response_body.HasField("response")


def test_of_a_responses_headers_the_first_values_of_those_that_matter_are_told() -> None:
    told: list[tuple[object, ...]] = []

    class Listener:
        def response_headers(
            self, status: int, served_by: object, end: bool, now: float, **more: bytes
        ) -> None:
            told.append((status, more["content_encoding"], more["load_report"]))

    def tell(*pairs: tuple[bytes, bytes]) -> None:
        message = ext_proc_pb2.ProcessingRequest()
        message.response_headers.SetInParent()
        for name, value in pairs:
            header = message.response_headers.headers.headers.add()
            header.key, header.raw_value = name, value
        feed(Listener(), message.SerializeToString(), 0.0)  # type: ignore[arg-type]

    tell((b":status", b"200"), (b"content-encoding", b"gzip"), (b"content-encoding", b"br"))
    tell((b"endpoint-load-metrics", b"TEXT a=1"), (b":status", b"what"), (b"x-other", b"1"))
    tell()
    assert told == [(200, b"gzip", b""), (0, b"", b"TEXT a=1"), (0, b"", b"")]
