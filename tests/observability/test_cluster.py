"""What is told of the cluster."""

from epp.discovery.kubernetes.api.statistics import (
    RESTART_REASONS,
    RequestStatistics,
    WatchStatistics,
)
from epp.observability.cluster import ClusterState
from epp.observability.metrics import Metrics

from .test_metrics import Page


def _page(state: ClusterState) -> Page:
    metrics = Metrics()
    metrics.watch_cluster(lambda: state, lambda: 100.0)
    return Page(metrics)


def test_each_watch_is_told_of_by_its_kind_and_cluster() -> None:
    pods = WatchStatistics(kind="Pod", objects=5, events=7, relists=1, last_contact_s=98.0)
    pods.restarts["expired"] += 2
    never = WatchStatistics(kind="Lease")
    far = WatchStatistics(kind="Pod", objects=3, last_contact_s=40.0, cluster="far")
    page = _page(ClusterState(watches=(pods, never, far)))
    own = {"kind": "Pod", "cluster": ""}
    assert page.value("kubernetes_objects", **own) == 5
    assert page.value("kubernetes_objects", cluster="far") == 3
    assert page.value("kubernetes_events_total", **own) == 7
    assert page.value("kubernetes_relists_total", **own) == 1
    assert page.value("kubernetes_watch_restarts_total", reason="expired", **own) == 2
    assert page.value("kubernetes_last_contact_age_seconds", **own) == 2
    assert page.value("kubernetes_last_contact_age_seconds", cluster="far") == 60
    ages = page.label_sets("kubernetes_last_contact_age_seconds")
    assert "Lease" not in {each["kind"] for each in ages}
    for reason in RESTART_REASONS:
        assert page.value("kubernetes_watch_restarts_total", reason=reason, kind="Lease") == 0


def test_watches_of_one_kind_are_added_up_and_as_old_as_the_oldest() -> None:
    watches = tuple(
        WatchStatistics(kind="Pod", objects=number, events=1, last_contact_s=100.0 - number)
        for number in (3, 5, 1)
    )
    page = _page(ClusterState(watches=watches))
    assert page.value("kubernetes_objects") == 9
    assert len(page.label_sets("kubernetes_events_total")) == 1
    assert page.value("kubernetes_last_contact_age_seconds") == 5


def test_requests_are_counted_by_verb_and_code() -> None:
    own, far = RequestStatistics(), RequestStatistics(cluster="far")
    own.answered("list", 200)
    own.answered("list", 200)
    own.answered("watch", 410)
    own.unreachable("watch")
    far.answered("list", 200)
    page = _page(ClusterState(requests=(own, far)))
    assert page.value("kubernetes_requests_total", cluster="", verb="list", code="200") == 2
    assert page.value("kubernetes_requests_total", verb="watch", code="410") == 1
    assert page.value("kubernetes_requests_total", verb="watch", code="unreachable") == 1
    assert page.value("kubernetes_requests_total", cluster="far") == 1


def test_who_leads_and_what_is_written() -> None:
    state = ClusterState(
        is_leader=True,
        leader_transitions=3,
        status_writes={"applied": 4, "failed": 0},
        election_requests={"ok": 5},
        label_requests={"ok": 6},
        events={"ok": 7},
    )
    page = _page(state)
    assert page.value("leader_election_requests_total", result="ok") == 5
    assert page.value("leader_label_requests_total", result="ok") == 6
    assert page.value("kubernetes_events_written_total", result="ok") == 7
    assert page.value("leader") == 1
    assert page.value("leader_transitions_total") == 3
    assert page.value("status_writes_total", result="applied") == 4
    assert page.value("status_writes_total", result="failed") == 0
    assert _page(ClusterState(is_leader=False)).value("leader") == 0


def test_without_an_election_nothing_is_said_of_a_leader() -> None:
    page = _page(ClusterState())
    assert page.label_sets("leader") == []
    assert page.label_sets("leader_transitions_total") == []
