"""Replies as bytes."""

from epp.core.headers import CONTROL_HEADERS
from epp.core.replies import HeadersReply, Phase
from epp.proxy.messages import encode
from epp.proxy.wire import ext_proc_pb2


def test_the_headers_that_a_reply_names_are_removed_besides_the_control_headers() -> None:
    names = (b"x-tenant", b"authorization")
    reply = HeadersReply(Phase.REQUEST, None, remove_headers=names)
    message = ext_proc_pb2.ProcessingResponse.FromString(encode(reply))
    removed = message.request_headers.response.header_mutation.remove_headers
    assert sorted(removed) == sorted((*CONTROL_HEADERS, *names))
