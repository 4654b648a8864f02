"""All of the talk with the cluster: its resources, who leads, what is written to it."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from epp.clock import monotonic_s
from epp.discovery.cluster import ClusterOptions
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.election.leader import LeaderElector
from epp.discovery.kubernetes.election.leader_label import LeaderLabel
from epp.discovery.kubernetes.imports.export_writer import ExportWriter
from epp.discovery.kubernetes.imports.source import ImportSource
from epp.discovery.kubernetes.objects import InferenceObjective
from epp.discovery.kubernetes.review import Denial, MetricsReview
from epp.discovery.kubernetes.source import KubernetesSource
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.writing.acceptance import KnownPools
from epp.discovery.kubernetes.writing.events import EventWriter
from epp.discovery.kubernetes.writing.reports import PoolReports
from epp.discovery.kubernetes.writing.status import StatusWriter
from epp.discovery.source import ResourceListener
from epp.observability.cluster import ClusterState
from epp.observability.metrics import Metrics

__all__ = ["Cluster"]

logger = logging.getLogger(__name__)

_HAND_OVER_S: Final = 2.0
"""How long an API server may take to hear that this one leads no more."""


class Cluster:
    """A cluster as the source of resources (:class:`epp.discovery.source.ResourceSource`).

    ``on_standing`` is called when this process has become the leader, or is so no more. Whatever
    becomes of the API server, what was known stays and is served.
    """

    def __init__(
        self, options: ClusterOptions, metrics: Metrics, on_standing: Callable[[], None]
    ) -> None:
        self._options = options
        self._connection = ClusterConnection(options.kubeconfig, options.context)
        self._members = {
            name: ClusterConnection(options.kubeconfig, name) for name in options.member_contexts
        }
        self._on_standing = on_standing
        self._elector = self._make_elector() if options.leader_election else None
        self._label = None if self._elector is None else self._make_label(self._elector)
        self._status = StatusWriter(
            self._connection,
            may_write=lambda: self._may_write,
            rng=random.Random(),
            clock=monotonic_s,
        )
        self._events = EventWriter(
            self._connection,
            identity=options.identity,
            may_write=lambda: self._may_write,
            rng=random.Random(),
            clock=monotonic_s,
        )
        self._exports: ExportWriter | None = None
        self._reports: PoolReports | None = None
        self._source = self._make_source()
        self._review = MetricsReview(self._connection, monotonic_s)
        metrics.watch_cluster(self._state, monotonic_s)

    @property
    def is_leader(self) -> bool:
        """Whether gateways are to send requests here, as far as the other EPPs are concerned."""
        return self._elector is None or self._elector.is_leader

    @property
    def _may_write(self) -> bool:
        return self._elector is None or self._elector.may_write

    async def open(self) -> None:
        """Find out how to reach the API server; raises UsageError. To be called first."""
        for connection in (self._connection, *self._members.values()):
            await connection.open()
        logger.info(
            "API server %s namespace=%s", self._connection.server, self._options.pool_namespace
        )

    # epp.discovery.source.ResourceSource

    async def load(self, listener: ResourceListener) -> None:
        """Hand over what there is now, as soon as the API server has told it."""
        await self._source.load(listener)

    async def run(self, listener: ResourceListener) -> None:
        """Hand over what becomes of it, until cancelled."""
        await self._source.run(listener)

    # Beside the resources

    def configuration_rejected(self, problem: str) -> None:
        """Tell those who look at the pools that a new configuration is no good, and why."""
        if self._reports is not None:
            self._reports.configuration_rejected(problem)

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what else is to run until it is cancelled, by its name."""
        work: dict[str, Coroutine[Any, Any, None]] = {
            "write status": self._status.run(),
            "write events": self._events.run(),
        }
        if self._reports is not None:
            work["report on pools"] = self._reports.run()
        if self._elector is not None:
            work["take part in the election"] = self._elector.run()
        if self._label is not None:
            work["label the leader"] = self._label.run()
        if self._exports is not None:
            work["export pools"] = self._exports.run()
        return work

    async def hand_over(self) -> None:
        """Let another one lead, at once. The label stays until that one bears it."""
        if self._elector is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HAND_OVER_S):
                    await self._elector.release()

    async def close(self) -> None:
        """Ask nothing more. The work has ended."""
        if self._label is not None:
            await self._label.end()
        await self._source.close()
        await self._review.close()
        for connection in (self._connection, *self._members.values()):
            await connection.close()

    async def authorize(self, token: str) -> Denial | None:
        """Return why whoever has this token may not read the metrics, None where they may."""
        return await self._review(token)

    # What changes

    def _follow_pools(self, pools: KnownPools) -> None:
        self._status.follow_pools(pools)
        if self._reports is not None:
            self._reports.follow_pools(pools)

    def _follow_objectives(self, group: str, changes: Changes[InferenceObjective]) -> None:
        self._status.follow_objectives(group, changes)
        if self._reports is not None:
            self._reports.follow_objectives(group, changes)

    def _follow_standing(self, _is_leader: bool) -> None:
        if self._label is not None:
            self._label.changed()
        self._on_standing()

    # What is made

    def _make_source(self) -> KubernetesSource | ImportSource:
        if self._options.pool_kind == "InferencePool":
            return self._make_own_source()
        return self._make_import_source()

    def _make_import_source(self) -> ImportSource:
        options = self._options
        source = ImportSource(
            self._connection,
            self._members,
            options,
            on_pools=self._follow_pools,
            on_objectives=self._follow_objectives,
        )
        if options.act_as_exporting_controller:
            self._exports = ExportWriter(
                source.members,
                options.pool_namespace,
                may_write=lambda: self._may_write,
                rng=random.Random(),
                clock=monotonic_s,
            )
            source.on_members = self._exports.changed
        self._reports = PoolReports(
            self._events,
            pools=source.pools,
            api_version=source.api_version,
            kind=options.pool_kind,
        )
        return source

    def _make_own_source(self) -> KubernetesSource:
        options = self._options
        source = KubernetesSource(
            self._connection,
            options,
            on_pools=self._follow_pools,
            on_objectives=self._follow_objectives,
        )
        if not options.endpoint_selector:  # else there is no object to tell it of
            self._reports = PoolReports(
                self._events, pools=source.pools, api_version=source.api_version
            )
        return source

    def _make_elector(self) -> LeaderElector:
        options = self._options
        elector = LeaderElector(
            self._connection,
            namespace=options.pool_namespace,
            name=options.lease_name,
            identity=options.identity,
            lease_duration_s=options.lease_duration_s,
            renew_interval_s=options.renew_interval_s,
            rng=random.Random(),
            clock=monotonic_s,
        )
        elector.on_change = self._follow_standing
        return elector

    def _make_label(self, elector: LeaderElector) -> LeaderLabel | None:
        if self._options.leader_label is None:
            return None
        return LeaderLabel(
            self._connection,
            self._options.leader_label,
            lease_name=self._options.lease_name,
            is_leader=lambda: elector.is_leader,
            may_write=lambda: elector.may_write,
            rng=random.Random(),
        )

    def _state(self) -> ClusterState:
        elector = self._elector
        source = self._source.statistics()
        return ClusterState(
            watches=source.watches,
            problems=source.problems,
            excluded_endpoints=source.excluded_endpoints,
            requests=tuple(each.statistics for each in (self._connection, *self._members.values())),
            is_leader=None if elector is None else elector.is_leader,
            leader_transitions=0 if elector is None else elector.transitions,
            status_writes=(
                self._status.writes
                if self._exports is None
                else self._status.writes + self._exports.writes
            ),
            election_requests={} if elector is None else elector.results,
            label_requests={} if self._label is None else self._label.results,
            events=self._events.results,
        )
