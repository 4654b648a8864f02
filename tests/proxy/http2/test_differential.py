"""Differential fuzzing against the server side of the `h2` package.

What both sides reject ends a comparison, for nobody says what follows. The known differences are
the functions below: in each this server does what RFC 9113 says, and h2 something else.
"""

from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.http2.differential import START, Action, Ours, Script, Theirs, actions
from tests.proxy.http2.support import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PUSH_PROMISE,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    parse,
)

_ALTSVC = 0xA


def h2_is_more_lenient(frames: list[Frame], declares_content: bool) -> bool:
    """h2 lets pass what has to be rejected.

    * RST_STREAM on an idle stream (section 5.1).
    * A declared content-length on a stream without any DATA (section 8.1.1).
    * HEADERS or PUSH_PROMISE where they are wrong, until their field block is complete.
    """
    first, last = frames[0], frames[-1]
    ends_without_data = first.kind == HEADERS and bool(first.flags & END_STREAM)
    return (
        last.kind == RST_STREAM
        or (last.kind in (HEADERS, PUSH_PROMISE) and not last.flags & END_HEADERS)
        or (declares_content and ends_without_data)
    )


def h2_is_stricter(frames: list[Frame]) -> bool:
    """h2 rejects what a server ignores.

    * ALTSVC from a client (RFC 7838, section 4).
    * The reserved bit of a window update (section 6.9).
    """
    last = frames[-1]
    return last.kind == _ALTSVC or (last.kind == WINDOW_UPDATE and last.payload[0] & 0x80 != 0)


@given(st.lists(actions, max_size=20))
def test_what_h2_accepts_is_accepted_and_what_it_rejects_is_rejected(script: list[Action]) -> None:
    ours, theirs = Ours(), Theirs()
    assert ours.feed(START) == theirs.feed(START) == ([], False)
    made = Script(ours.peer)
    declares_content = False
    for action in script:
        if action[0] in ("server-end", "server-reset"):
            stream_id = int(str(action[1]))
            if ours.is_open(stream_id):
                for server in (ours, theirs):
                    (server.end if action[0] == "server-end" else server.reset)(stream_id)
            continue
        declares_content |= "length" in action
        piece = made.frames(action)
        frames = parse(piece)
        outcome, was_rejected = ours.feed(piece)
        expected, was_expected_to_be = theirs.feed(piece)
        if was_rejected:
            assert was_expected_to_be or h2_is_more_lenient(frames, declares_content)
            return
        if was_expected_to_be:
            assert h2_is_stricter(frames)
            return
        assert outcome == expected
        if frames[-1].kind == GOAWAY or not ours.is_comparable:
            return  # h2 takes GOAWAY for the end of the connection
