"""What is seen of a response: its first byte, its size, its tokens."""

from itertools import pairwise

import pytest

from epp.core.gate import Ending, Route
from epp.core.response import Response

_ROUTE = Route("10.0.0.1:8000")
_EVENT = b'data: {"choices":[{"text":"word"}]}\n\n'
_USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":90,'
    b'"prompt_tokens_details":{"cached_tokens":5}}}\n\n'
)


def _ending(response: Response) -> Ending:
    return response.ending("complete", 9.0)


def test_nothing_was_seen() -> None:
    assert _ending(Response(_ROUTE, 1.0, 10.0)) == Ending(
        status=0, cause="complete", duration_s=9.0, response_bytes=None
    )


def test_where_no_body_is_seen_the_headers_are_the_first_byte() -> None:
    response = Response(_ROUTE, 1.2345, 10.0)
    assert response.headers(200, None, False, 12.5) == ((b"x-queue-wait-ms", b"1234"),)
    assert _ending(response) == Ending(
        status=200, cause="complete", duration_s=9.0, response_bytes=None, first_byte_s=2.5
    )


def test_where_a_body_is_seen_its_first_byte_counts() -> None:
    response = Response(_ROUTE, 0.0, 10.0)
    response.headers(200, None, True, 12.0)
    assert _ending(response).first_byte_s is None
    response.body(b"", 13.0)
    assert (_ending(response).first_byte_s, _ending(response).response_bytes) == (None, 0)
    response.body(b"{", 14.0)
    response.body(b"}", 15.0)
    ending = _ending(response)
    assert (ending.first_byte_s, ending.response_bytes) == (4.0, 2)
    assert (ending.prompt_tokens, ending.output_tokens) == (None, None)


def test_a_body_without_headers() -> None:
    response = Response(_ROUTE, 0.0, 10.0)
    response.body(_USAGE, 11.0)
    assert _ending(response) == Ending(
        status=0,
        cause="complete",
        duration_s=9.0,
        response_bytes=len(_USAGE),
        first_byte_s=1.0,
        prompt_tokens=7,
        output_tokens=90,
        cached_tokens=5,
    )


@pytest.mark.parametrize("events", [1, 3, 64, 100])
def test_a_stream_is_told_of_at_most_each_64_events(events: int) -> None:
    response = Response(_ROUTE, 0.0, 10.0)
    told = []
    for _ in range(3_200 // events):
        tokens = response.body(_EVENT * events, 11.0)
        if tokens is not None:
            told.append(tokens)
    total = 3_200 // events * events
    steps = [later - earlier for earlier, later in pairwise([0, *told])]
    held_back = 8_192 // len(_EVENT) + events  # what may have come and not been looked at
    assert all(64 <= step <= 64 + held_back for step in steps)
    assert told[-1] >= total - 64 - held_back
    assert _ending(response).output_tokens == total


def test_what_is_no_stream_is_not_told_of() -> None:
    response = Response(_ROUTE, 0.0, 10.0)
    assert {response.body(b'{"text":"%b"}' % _EVENT, 11.0) for _ in range(500)} == {None}


@pytest.mark.parametrize(
    ("status", "served_by", "is_told"),
    [
        (200, None, True),
        (200, "10.0.0.1:8000", True),
        (404, None, True),
        (200, "10.0.0.2:8000", False),
        (503, None, False),
    ],
)
def test_what_is_told_of_the_endpoint_is_told_where_that_has_served(
    status: int, served_by: str | None, is_told: bool
) -> None:
    route = Route("10.0.0.1:8000,10.0.0.2:8000", "", ((b"x-session-token", b"token"),))
    response = Response(route, 0.0, 10.0)
    added = response.headers(status, served_by, True, 12.0)
    assert ((b"x-session-token", b"token") in added) is is_told
    assert (b"x-queue-wait-ms", b"0") in added
