"""HTTP headers as the core sees them, and the names that mean something to it."""

from typing import Final

__all__ = [
    "CONTROL_HEADERS",
    "DESTINATION",
    "DROPPED_REASON",
    "FAIRNESS_ID",
    "OBJECTIVE",
    "QUEUE_WAIT",
    "SESSION_ID",
    "SLO_TTFT",
    "WAIT_LIMIT",
    "Headers",
]

DESTINATION: Final = b"x-gateway-destination-endpoint"
DROPPED_REASON: Final = b"x-llm-d-request-dropped-reason"
QUEUE_WAIT: Final = b"x-queue-wait-ms"
SESSION_ID: Final = b"x-session-id"
WAIT_LIMIT: Final = b"x-gateway-request-ttl-ms"

# The present name first, then its alias; the first one that is there counts.
OBJECTIVE: Final = (b"x-llm-d-inference-objective", b"x-gateway-inference-objective")
FAIRNESS_ID: Final = (b"x-llm-d-inference-fairness-id", b"x-gateway-inference-fairness-id")
SLO_TTFT: Final = (b"x-llm-d-slo-ttft-ms", b"x-slo-ttft-ms")

# What steers the picker is between the client, or the gateway, and the picker: model servers never
# see it, and a client cannot name its destination.
CONTROL_HEADERS: Final = (
    DESTINATION,
    b"x-gateway-destination-endpoint-subset",
    b"x-gateway-destination-endpoint-served",
    DROPPED_REASON,
    WAIT_LIMIT,
    *OBJECTIVE,
    *FAIRNESS_ID,
    b"x-llm-d-model-name-rewrite",
    b"x-gateway-model-name-rewrite",
    *SLO_TTFT,
    b"x-llm-d-slo-tpot-ms",
    b"x-slo-tpot-ms",
)


class Headers:
    """The headers of one message: names in lower case, values as the bytes that came.

    Made of ``(name, value)`` pairs in order; several values of one name are all kept.
    """

    __slots__ = ("_first", "_pairs")

    def __init__(self, pairs: list[tuple[bytes, bytes]]):
        self._pairs = pairs
        self._first: dict[bytes, bytes] | None = None

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a name, None where there is none."""
        first = self._first
        if first is None:
            first = self._first = dict(reversed(self._pairs))
        return first.get(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """Return every value of a name, in order."""
        return [value for key, value in self._pairs if key == name]

    def first_of(self, names: tuple[bytes, ...]) -> bytes:
        """Return the first value of the first of these names that has one, empty where none has."""
        for name in names:
            value = self.get(name)
            if value:
                return value
        return b""
