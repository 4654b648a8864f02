"""What is told of the cluster that the resources come from: the watches, the leader's election, the
status that is written."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

import msgspec
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.discovery.kubernetes.api.statistics import RequestStatistics, WatchStatistics
from epp.observability.families import counter, gauge

__all__ = ["ClusterMetrics", "ClusterState"]

_WATCH: Final = ("kind", "cluster")
_Key = TypeVar("_Key", bound=tuple[str, ...])


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of this moment.

    ``is_leader`` is None where there is no election, ``leader_transitions`` how often the leader
    was seen to be another one. ``status_writes`` counts by what came of them, in a few words; so do
    ``election_requests``, ``label_requests``, those for the label of the leader's pod, and
    ``events``. ``problems`` are numbers of objects that are no good now, by kind,
    ``excluded_endpoints`` those that pools have too many of.
    """

    watches: tuple[WatchStatistics, ...] = ()
    requests: tuple[RequestStatistics, ...] = ()
    is_leader: bool | None = None
    leader_transitions: int = 0
    status_writes: Mapping[str, int] = {}
    election_requests: Mapping[str, int] = {}
    label_requests: Mapping[str, int] = {}
    events: Mapping[str, int] = {}
    problems: Mapping[str, int] = {}
    excluded_endpoints: int = 0


class ClusterMetrics(Collector):
    """Reads the numbers when Prometheus asks; ``now`` is the time of their clock."""

    def __init__(self, read: Callable[[], ClusterState], now: Callable[[], float]) -> None:
        self._read = read
        self._now = now

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector has these names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        state = self._read()
        yield from _watches(state.watches, self._now())
        requests: dict[tuple[str, str, str], int] = {}
        for each in state.requests:
            _add(requests, {(each.cluster, *key): count for key, count in each.counts.items()})
        yield counter(
            "kubernetes_requests_total",
            "Requests to the API server, by the status of the answer; unreachable: there was none.",
            requests,
            ("cluster", "verb", "code"),
        )
        yield gauge(
            "kubernetes_objects_rejected",
            "Objects that are no good: what they were when they were stays.",
            {(kind,): count for kind, count in state.problems.items()},
            ("kind",),
        )
        yield gauge(
            "kubernetes_endpoints_excluded",
            "Endpoints that are left out, because their pools have too many.",
            {(): state.excluded_endpoints},
        )
        if state.is_leader is not None:
            yield gauge("leader", "1 where this is the leader.", {(): float(state.is_leader)})
            yield counter(
                "leader_transitions_total",
                "How often another one became the leader.",
                {(): state.leader_transitions},
            )
        yield from _results(state)


def _results(state: ClusterState) -> Iterator[Metric]:
    for name, help_text, counts in (
        ("status_writes_total", "Writes of the status of objects, by result.", state.status_writes),
        ("kubernetes_events_written_total", "Events on pools, by result.", state.events),
        (
            "leader_election_requests_total",
            "Reads and writes of the Lease, by result.",
            state.election_requests,
        ),
        (
            "leader_label_requests_total",
            "Requests for the label of the leader's pod, by result.",
            state.label_requests,
        ),
    ):
        by_result = {(result,): count for result, count in counts.items()}
        yield counter(name, help_text, by_result, ("result",))


def _watches(watches: tuple[WatchStatistics, ...], now: float) -> Iterator[Metric]:
    objects: dict[tuple[str, str], int] = {}
    events: dict[tuple[str, str], int] = {}
    relists: dict[tuple[str, str], int] = {}
    restarts: dict[tuple[str, str, str], int] = {}
    ages_s: dict[tuple[str, str], float] = {}
    for each in watches:
        key = (each.kind, each.cluster)
        _add(objects, {key: each.objects})
        _add(events, {key: each.events})
        _add(relists, {key: each.relists})
        _add(restarts, {(*key, reason): count for reason, count in each.restarts.items()})
        if each.last_contact_s is not None:
            ages_s[key] = max(ages_s.get(key, 0.0), now - each.last_contact_s)
    yield gauge("kubernetes_objects", "Objects that are known.", objects, _WATCH)
    yield counter("kubernetes_events_total", "Events of watches.", events, _WATCH)
    yield counter(
        "kubernetes_relists_total", "Lists that were read in full after the first.", relists, _WATCH
    )
    yield counter(
        "kubernetes_watch_restarts_total",
        "Watches that were begun anew, by why.",
        restarts,
        (*_WATCH, "reason"),
    )
    yield gauge(
        "kubernetes_last_contact_age_seconds",
        "Since the API server was last heard of about these objects; what is known is as old.",
        ages_s,
        _WATCH,
    )


def _add(totals: dict[_Key, int], counts: Mapping[_Key, int]) -> None:
    for key, count in counts.items():
        totals[key] = totals.get(key, 0) + count
