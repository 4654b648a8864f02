"""Faults on demand: what a test can make the server do wrong.

One request asks for its own fault with the header ``x-modelserver-fault``, whose value is the JSON
of a :class:`Fault`; ``POST /debug/faults`` with the same JSON and ``times`` sets it for the next
requests.
"""

from typing import Annotated

import msgspec

from epp.modelserver.errors import ApiError

__all__ = ["FAULT_HEADER", "Fault", "FaultPlan", "parse_fault"]

FAULT_HEADER = "x-modelserver-fault"


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with a generation request after its body has been read.

    ``delay_s`` holds back everything, then ``hang`` waits until the client goes away, or ``status``
    answers with that error, all without a slot of the engine; ``reset_after_tokens`` resets the
    connection when so many tokens have been sent (or, unless streamed, generated). ``times`` is for
    how many requests a planned fault holds, ``None`` for all.
    """

    delay_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    hang: bool = False
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    reset_after_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] | None = 1


_decoder = msgspec.json.Decoder(Fault)


def parse_fault(data: bytes | str) -> Fault:
    """Read a fault from JSON; raises :class:`ApiError` (400) that names the field at fault."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ApiError(400, f"Not a fault: {error}", param=FAULT_HEADER) from None


class FaultPlan:
    """The fault that the next requests get, if any."""

    def __init__(self) -> None:
        self._fault: Fault | None = None
        self._remaining: int | None = None

    def set(self, fault: Fault | None) -> None:
        """Plan this fault instead of the one before, or none."""
        self._fault = fault
        self._remaining = fault.times if fault else None

    def take(self) -> Fault | None:
        """Return the fault of one more request."""
        fault = self._fault
        if fault is not None and self._remaining is not None:
            self._remaining -= 1
            if not self._remaining:
                self._fault = None
        return fault
