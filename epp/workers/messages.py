"""What a worker and the core say to each other over their socket.

All messages of one loop turn travel in one frame: four bytes of length, big-endian, then a msgpack
array of messages, each an array that begins with its tag. Requests are named by numbers that their
worker chooses and never uses twice. Bodies never travel.
"""

import struct
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from epp.core.claims import RequestClaims
from epp.core.gate import Ending, Route
from epp.core.pool import EngineLoad
from epp.core.request import Outcome
from epp.core.resources import EndpointChanges, PoolResources

__all__ = [
    "Admit",
    "Beat",
    "CoreMessage",
    "Dispatched",
    "EndpointsChanged",
    "Evict",
    "Finish",
    "FrameError",
    "FrameReader",
    "Hello",
    "Listening",
    "PassBy",
    "Passed",
    "PoolGone",
    "Progress",
    "Refused",
    "Reported",
    "Reread",
    "Resources",
    "Running",
    "ServedBy",
    "Standing",
    "Stats",
    "Stop",
    "Synced",
    "Waiting",
    "Welcome",
    "Withdraw",
    "WorkerMessage",
    "encode_frame",
    "from_core",
    "from_worker",
]

_LENGTH: Final = struct.Struct(">I")
_MAX_FRAME_BYTES: Final = 256 << 20

M = TypeVar("M")


class FrameError(Exception):
    """The peer has sent what is no frame of messages."""


# What a worker says


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The first message of a worker: its place among the workers, and how often a worker at this
    place has been restarted."""

    worker: int
    restarts: int


class Running(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A request that was dispatched before this core was there, and runs.

    ``since_s`` is when it was dispatched, monotonic: a clock that all processes of a machine share.
    ``model`` is what its model server was asked for in place of the client's model, empty where
    that stayed.
    """

    id: int
    claims: RequestClaims
    destination: str
    since_s: float
    model: str = ""


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A request that arrived before this core was there, and waits."""

    id: int
    claims: RequestClaims
    since_s: float


class Synced(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """All that ran and waited before has been named."""


class Listening(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The worker takes connections."""


class Admit(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """See Gate.admit."""

    id: int
    claims: RequestClaims


class PassBy(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """See Gate.pass_by."""

    id: int
    claims: RequestClaims


class Withdraw(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """See Gate.withdraw. It may cross the answer, and then undoes it."""

    id: int
    waited_s: float


class ServedBy(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """See Gate.served_by."""

    id: int
    destination: str


class Finish(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """See Gate.finish."""

    id: int
    ending: Ending


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """See Gate.progress."""

    id: int
    output_tokens: int


class Reported(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """See Gate.reported."""

    id: int
    load: EngineLoad


class Stats(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """What a worker has counted since its last Stats, and how many streams are open now.

    ``degraded_s`` is time without a core; the ``degraded_…`` count what was decided without one.
    """

    open_streams: int
    refused_early: dict[str, int]
    handshakes_refused: dict[str, int]
    limits_met: dict[str, int]
    degraded_s: float
    degraded_picks: int
    degraded_refusals: dict[Outcome, int]
    rewrites_skipped: dict[str, int] = {}


# What the core says


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """The core is there and awaits what runs and waits. It knows the pools with these keys, each of
    which it will tell of, and no others."""

    pools: tuple[str, ...] = ()


class Dispatched(msgspec.Struct, frozen=True, array_like=True, tag=22, gc=False):
    """See GateWaiter.dispatched."""

    id: int
    route: Route
    waited_s: float


class Passed(msgspec.Struct, frozen=True, array_like=True, tag=23, gc=False):
    """See GateWaiter.passed."""

    id: int
    destination: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=24, gc=False):
    """See GateWaiter.refused."""

    id: int
    outcome: Outcome
    retry_after_s: int


class Resources(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """A pool as the core knows it, for the time in which there may be no core."""

    resources: PoolResources


class EndpointsChanged(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """What has become of some endpoints of the pool with this key."""

    key: str
    changes: EndpointChanges


class PoolGone(msgspec.Struct, frozen=True, array_like=True, tag=32, gc=False):
    """There is no pool with this key any more."""

    key: str


class Standing(msgspec.Struct, frozen=True, array_like=True, tag=26, gc=False):
    """Whether the whole is ready, and whether it takes no new requests any more."""

    is_ready: bool
    is_draining: bool


class Stop(msgspec.Struct, frozen=True, array_like=True, tag=27, gc=False):
    """Take no new streams, give the open ones so many seconds, then end."""

    grace_s: float


class Beat(msgspec.Struct, frozen=True, array_like=True, tag=28, gc=False):
    """The core turns its loop: its answer to Stats."""


class Evict(msgspec.Struct, frozen=True, array_like=True, tag=29, gc=False):
    """See GateWaiter.evicted. It may cross the Finish of a request that has ended by itself."""

    id: int
    retry_after_s: int


class Reread(msgspec.Struct, frozen=True, array_like=True, tag=30, gc=False):
    """The configuration's file has changed, and is good."""


WorkerMessage: TypeAlias = (
    Hello | Running | Waiting | Synced | Listening | Admit | PassBy | Withdraw | ServedBy
    | Reported | Progress | Finish | Stats
)  # fmt: skip
CoreMessage: TypeAlias = (
    Welcome | Dispatched | Passed | Refused | Evict | Resources | EndpointsChanged | PoolGone
    | Standing | Stop | Beat | Reread
)  # fmt: skip

_encoder: Final = msgspec.msgpack.Encoder()


def encode_frame(messages: list[Any]) -> bytearray:
    """Return one frame with these messages."""
    frame = bytearray(_LENGTH.size)
    _encoder.encode_into(messages, frame, _LENGTH.size)
    _LENGTH.pack_into(frame, 0, len(frame) - _LENGTH.size)
    return frame


class FrameReader(Generic[M]):
    """Cuts a stream of bytes into messages."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[list[M]]) -> None:
        self._decoder = decoder
        self._rest = b""

    def feed(self, data: bytes) -> list[M]:
        """Take bytes; return the messages that are complete now. Raises FrameError."""
        if self._rest:
            data = self._rest + data
        messages: list[M] = []
        start = 0
        while len(data) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, start)
            if length > _MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes")
            begin = start + _LENGTH.size
            end = begin + length
            if end > len(data):
                break
            try:
                messages += self._decoder.decode(memoryview(data)[begin:end])
            except msgspec.MsgspecError as error:
                raise FrameError(str(error)) from error
            start = end
        self._rest = data[start:]
        return messages


def from_worker() -> FrameReader[WorkerMessage]:
    """Return a reader of what one worker says."""
    return FrameReader(msgspec.msgpack.Decoder(list[WorkerMessage]))


def from_core() -> FrameReader[CoreMessage]:
    """Return a reader of what the core says."""
    return FrameReader(msgspec.msgpack.Decoder(list[CoreMessage]))
