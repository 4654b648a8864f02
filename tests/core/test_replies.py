"""Bodies are cut so that the proxy takes every piece."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.replies import MAX_BODY_REPLY_BYTES, BodyMode, Phase, body_replies


@pytest.mark.parametrize(
    ("size_bytes", "pieces"),
    [
        (0, [0]),
        (1, [1]),
        (62_000, [62_000]),
        (62_001, [62_000, 1]),
        (124_000, [62_000, 62_000]),
        (130_000, [62_000, 62_000, 6_000]),
    ],
)
def test_pieces(size_bytes: int, pieces: list[int]) -> None:
    assert MAX_BODY_REPLY_BYTES == 62_000
    replies = body_replies(Phase.REQUEST, b"x" * size_bytes, end_of_stream=False)
    assert [len(reply.body) for reply in replies] == pieces


@given(
    size_bytes=st.integers(min_value=0, max_value=300_000),
    phase=st.sampled_from(Phase),
    end_of_stream=st.booleans(),
)
def test_the_bytes_are_the_same_and_only_the_last_piece_ends(
    size_bytes: int, phase: Phase, end_of_stream: bool
) -> None:
    body = (b"0123456789" * (size_bytes // 10 + 1))[:size_bytes]
    replies = body_replies(phase, body, end_of_stream=end_of_stream)
    assert b"".join(reply.body for reply in replies) == body
    assert all(reply.phase is phase for reply in replies)
    assert [reply.end_of_stream for reply in replies] == [False] * (len(replies) - 1) + [
        end_of_stream
    ]


def test_body_modes_have_the_numbers_of_ext_proc() -> None:
    assert {mode.name: mode.value for mode in BodyMode} == {
        "NONE": 0,
        "STREAMED": 1,
        "BUFFERED": 2,
        "BUFFERED_PARTIAL": 3,
        "FULL_DUPLEX_STREAMED": 4,
        "GRPC": 5,
    }
