"""The life of an exchange as a table: every legal step stands here and nowhere else.

Rule 1: whoever ends the wait or the response moves the state first and acts afterwards, so that
whatever is called back finds the exchange where it says it is. Rule 2: what the table does not name
is a mistake in this program and raises; what a proxy or client may do wrong is caught before, in
the exchange.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = [
    "ADMITTED",
    "ANSWERED",
    "BODY_AWAITED",
    "COMPLETE",
    "DISPATCHED",
    "EVICTED",
    "NEW",
    "OVER",
    "PASSED",
    "RECEIVING",
    "REFUSED",
    "RESPONDING",
    "RESPONSE_BEGAN",
    "RESPONSE_ENDED",
    "STREAM_CLOSED",
    "TRANSITIONS",
    "WAITING",
    "Event",
    "State",
]


class State(enum.Enum):
    """Where an exchange stands."""

    NEW = "nothing has come yet"
    RECEIVING = "the request's body is being received"
    WAITING = "the request waits for the gate's decision"
    ROUTED = "the request goes to an endpoint"
    RESPONDING = "the response has begun"
    COMPLETE = "the response has ended"
    ANSWERED = "the EPP has answered the client itself"
    CLOSED = "the proxy's stream is over"

    __hash__ = object.__hash__  # Enum's own is a function in Python


class Event(enum.Enum):
    """What can happen to an exchange."""

    BODY_AWAITED = "the body must be seen before the request can be judged"
    ADMITTED = "the gate was asked for its decision"
    PASSED = "the gate let the request pass, which is no inference"
    DISPATCHED = "the gate dispatched the request"
    REFUSED = "the EPP answers the client itself"
    EVICTED = "the gate ends the request, which it had dispatched"
    RESPONSE_BEGAN = "the proxy told of a response"
    RESPONSE_ENDED = "the response has ended"
    CLOSED = "the proxy's stream has closed"

    __hash__ = object.__hash__


TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = MappingProxyType(
    {
        State.NEW: {
            Event.BODY_AWAITED: State.RECEIVING,
            Event.ADMITTED: State.WAITING,
            Event.REFUSED: State.ANSWERED,
            Event.RESPONSE_BEGAN: State.RESPONDING,
            Event.CLOSED: State.CLOSED,
        },
        State.RECEIVING: {
            Event.ADMITTED: State.WAITING,
            Event.REFUSED: State.ANSWERED,
            Event.RESPONSE_BEGAN: State.RESPONDING,
            Event.CLOSED: State.CLOSED,
        },
        State.WAITING: {
            Event.DISPATCHED: State.ROUTED,
            Event.PASSED: State.ROUTED,
            Event.REFUSED: State.ANSWERED,
            Event.RESPONSE_BEGAN: State.RESPONDING,
            Event.CLOSED: State.CLOSED,
        },
        State.ROUTED: {
            Event.EVICTED: State.ANSWERED,
            Event.RESPONSE_BEGAN: State.RESPONDING,
            Event.CLOSED: State.CLOSED,
        },
        State.RESPONDING: {
            Event.EVICTED: State.ANSWERED,
            Event.RESPONSE_ENDED: State.COMPLETE,
            Event.CLOSED: State.CLOSED,
        },
        State.COMPLETE: {Event.CLOSED: State.CLOSED},
        State.ANSWERED: {Event.CLOSED: State.CLOSED},
        State.CLOSED: {},
    }
)

# The same, for those who step through them with every message: reading a member off its
# enumeration takes longer than most steps, on Python 3.11.
NEW: Final = State.NEW
RECEIVING: Final = State.RECEIVING
WAITING: Final = State.WAITING
RESPONDING: Final = State.RESPONDING
COMPLETE: Final = State.COMPLETE
ANSWERED: Final = State.ANSWERED
OVER: Final = (State.ANSWERED, State.COMPLETE)

BODY_AWAITED: Final = Event.BODY_AWAITED
ADMITTED: Final = Event.ADMITTED
PASSED: Final = Event.PASSED
DISPATCHED: Final = Event.DISPATCHED
REFUSED: Final = Event.REFUSED
EVICTED: Final = Event.EVICTED
RESPONSE_BEGAN: Final = Event.RESPONSE_BEGAN
RESPONSE_ENDED: Final = Event.RESPONSE_ENDED
STREAM_CLOSED: Final = Event.CLOSED
