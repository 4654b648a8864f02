"""What is counted of the talk with the API server: plain numbers, read when metrics are.

Those who talk count as they go; nobody else writes. All of it is bounded by the code: kinds, the
reasons of restarts and verbs are few and fixed, codes are those of HTTP.
"""

from typing import Final

import msgspec

from epp.discovery.kubernetes.api.errors import (
    ApiError,
    ApiUnreachable,
    ClusterError,
    StreamBroken,
    StreamSilent,
)

__all__ = [
    "RESTART_REASONS",
    "UNREACHABLE",
    "RequestStatistics",
    "WatchStatistics",
    "restart_reason",
]

RESTART_REASONS: Final = ("expired", "dropped", "timeout", "silent", "refused", "unreachable")
"""Why a watch was begun anew: the API server had forgotten the version asked for (410), the
connection broke, the watch ended in order at its time, nothing came for too long (half-open), the
API server answered with an error, or there was no answer at all."""

UNREACHABLE: Final = "unreachable"
"""The code of a request that got no answer."""

_GONE: Final = 410


def restart_reason(error: ClusterError) -> str:
    """Return which of :data:`RESTART_REASONS` an error is."""
    match error:
        case ApiError():
            return "expired" if error.status == _GONE else "refused"
        case StreamSilent():
            return "silent"
        case ApiUnreachable() if not isinstance(error, StreamBroken):
            return "unreachable"
    return "dropped"


class WatchStatistics(msgspec.Struct, kw_only=True):
    """What a reflector tells of its collection.

    ``cluster`` is the kubeconfig context of a member cluster, empty for the cluster that it runs
    for. ``kind`` is the Kubernetes kind in the singular (``Pod``), with its group behind a dot
    where two groups have it (``InferencePool.inference.networking.k8s.io``). ``objects`` are those
    known now, ``unreadable`` those that are there but do not decode, ``events`` those of watches
    that have come (bookmarks not), ``relists`` the lists that were read in full after the first
    one. ``restarts`` counts watches begun anew, by one of :data:`RESTART_REASONS`.
    ``last_contact_s`` is when the API server was last heard of about this collection (a list, an
    event, a bookmark, the headers of a watch), in monotonic seconds; None: never.
    """

    kind: str
    objects: int = 0
    unreadable: int = 0
    events: int = 0
    relists: int = 0
    restarts: dict[str, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(RESTART_REASONS, 0)
    )
    last_contact_s: float | None = None
    cluster: str = ""


class RequestStatistics(msgspec.Struct):
    """What a connection tells of its requests to the API server: :attr:`counts` by verb (``get``,
    ``list``, ``watch``, ``create``, ``replace``, ``patch``, ``apply``, ``delete``) and code, the
    status of the answer or :data:`UNREACHABLE`. :attr:`cluster` is as in :class:`WatchStatistics`.
    """

    counts: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)
    cluster: str = ""

    def answered(self, verb: str, status: int) -> None:
        """Count a request that was answered."""
        self._count(verb, str(status))

    def unreachable(self, verb: str) -> None:
        """Count a request that got no answer."""
        self._count(verb, UNREACHABLE)

    def _count(self, verb: str, code: str) -> None:
        self.counts[verb, code] = self.counts.get((verb, code), 0) + 1
