"""What is said between workers and core, as bytes."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.claims import RequestClaims
from epp.core.gate import Ending, Route
from epp.core.pool import EngineLoad
from epp.core.request import Outcome
from epp.core.resources import EndpointChanges, PoolResources
from epp.workers import messages
from epp.workers.messages import (
    CoreMessage,
    FrameError,
    WorkerMessage,
    encode_frame,
    from_core,
    from_worker,
)

from ..core.support import endpoint, resources

SECONDS = st.floats(min_value=0, max_value=1e9)
COUNTS = st.integers(0, 1 << 40)
NAMES = st.text(max_size=20)
CLAIMS = st.builds(
    RequestClaims,
    id=NAMES,
    objective=NAMES,
    fairness_id=NAMES,
    wait_limit_s=st.none() | SECONDS,
    subset=st.none() | st.frozensets(NAMES, max_size=3),
    model=NAMES,
    body_bytes=COUNTS,
    pool=NAMES,
    authority=NAMES,
)
ENDINGS = st.builds(
    Ending, status=COUNTS, cause=NAMES, duration_s=SECONDS, response_bytes=st.none() | COUNTS
)
LOADS = st.builds(
    EngineLoad,
    waiting=SECONDS,
    running=SECONDS,
    kv_ratio=SECONDS,
    active_adapters=st.frozensets(NAMES, max_size=3),
    started_s=SECONDS,
    attributes=st.dictionaries(NAMES, SECONDS, max_size=3),
)
ROUTES = st.builds(
    Route,
    destination=NAMES,
    model=NAMES,
    response_headers=st.lists(st.tuples(st.binary(), st.binary()), max_size=2).map(tuple),
)
FIELDS: dict[type[Any], st.SearchStrategy[Any]] = {
    RequestClaims: CLAIMS,
    EngineLoad: LOADS,
    Ending: ENDINGS,
    Route: ROUTES,
    float: SECONDS,
    int: COUNTS,
    dict[str, int]: st.dictionaries(NAMES, COUNTS, max_size=3),
    dict[Outcome, int]: st.dictionaries(st.sampled_from(Outcome), COUNTS),
    EndpointChanges: st.builds(
        EndpointChanges,
        present=st.just((endpoint(1, app="a"),)),
        gone=st.lists(NAMES, max_size=2).map(tuple),
    ),
    PoolResources: st.just(resources([1, 2], {"urgent": 10, "batch": -10})),
}


def any_of(union: Any) -> st.SearchStrategy[Any]:
    def build(kind: type[Any]) -> st.SearchStrategy[Any]:
        hints = kind.__annotations__
        return st.builds(kind, **{k: FIELDS[v] for k, v in hints.items() if v in FIELDS})

    return st.one_of([build(kind) for kind in union.__args__])


@given(st.lists(any_of(WorkerMessage), max_size=8), st.integers(1, 50))
def test_what_a_worker_says_comes_back_from_its_bytes(said: list[Any], size: int) -> None:
    assert cut_and_read(encode_frame(said), size, from_worker()) == said


@given(st.lists(any_of(CoreMessage), max_size=8), st.integers(1, 50))
def test_what_the_core_says_comes_back_from_its_bytes(said: list[Any], size: int) -> None:
    assert cut_and_read(encode_frame(said), size, from_core()) == said


def cut_and_read(data: bytearray, size: int, reader: messages.FrameReader[Any]) -> list[Any]:
    read: list[Any] = []
    for start in range(0, len(data), size):
        read += reader.feed(bytes(data[start : start + size]))
    return read


def test_several_frames_in_one_read_are_one_list() -> None:
    data = encode_frame([messages.Synced()]) + encode_frame([messages.Listening()])
    assert from_worker().feed(bytes(data)) == [messages.Synced(), messages.Listening()]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 3) + b"abc",
        bytes(encode_frame([messages.Welcome()])),  # a worker does not say so
        bytes(encode_frame([messages.Refused(1, Outcome.EXPIRED, 1)])),
    ],
)
def test_what_makes_no_sense_is_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        from_worker().feed(data)


def test_a_request_is_small_on_its_way() -> None:
    claims = RequestClaims(id="x" * 36, objective="interactive", model="llama", body_bytes=400_000)
    assert len(encode_frame([messages.Admit(1_000_000, claims)])) < 120
