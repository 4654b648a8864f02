"""Prometheus metrics, under the names that the field's dashboards know (``llm_d_epp_…``).

Events are counted as they happen: the core calls the recorder of each pool. States (queue
sizes, requests in flight) are read from the core when Prometheus asks and cost the request path
nothing. Every label set is bounded.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from epp import __version__
from epp.core.request import Outcome
from epp.core.router import DEFAULT_FAIRNESS_ID, Router
from epp.observability.cluster import ClusterMetrics, ClusterState
from epp.observability.endpoints import EndpointState
from epp.observability.families import gauge
from epp.observability.flow import FlowState
from epp.observability.pool_recorder import PoolRecorder, PoolRecorders
from epp.observability.requests import RequestMetrics
from epp.observability.rewrites import RewriteMetrics
from epp.observability.scheduling import SchedulingState
from epp.observability.scrapes import Scraped, ScrapeMetrics, ScrapeState
from epp.observability.text import text_pieces

__all__ = ["Metrics"]

# Creation times double the page and no dashboard reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_HANDSHAKE_REFUSALS: Final = (
    "alpn", "plaintext", "version", "no-certificate", "bad-certificate", "by-peer", "other",
)  # fmt: skip


class Metrics:
    """The EPP's metrics, of all its pools.

    ``transport_limits`` are the names for :meth:`limit_met`. Pools are told apart by their names,
    so they are to be of one namespace.
    """

    def __init__(self, transport_limits: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._requests = RequestMetrics()
        self.registry.register(self._requests)
        self._rewrites = RewriteMetrics()
        self.registry.register(self._rewrites)
        self._define_refusals()
        self._recorders = PoolRecorders(
            lambda: PoolRecorder(self._requests, self._rewrites, self._refuse_early)
        )
        self.registry.register(self._recorders)
        self._followed: list[_Followed] = []
        self._scrapes: ScrapeMetrics | None = None
        self._reloads = self._counter(
            "resources_reload_total", "Reloads of the resources, by result.", ("result",)
        )
        for result in ("applied", "rejected"):
            self._reloads.labels(result)
        self._config_reloads = self._counter(
            "config_reload_total", "Changes of the configuration file, by result.", ("result",)
        )
        for result in ("applied", "rejected"):
            self._config_reloads.labels(result)
        self._config_applied = Gauge(
            "llm_d_epp_config_applied_timestamp_seconds",
            "When the configuration that is used was read.",
            registry=self.registry,
        )
        self._config_applied.set_to_current_time()
        self._plugin_failures = self._counter(
            "scheduling_plugin_failures_total",
            "Times that a scheduling plugin failed, and the least used endpoint was picked.",
            (),
        )
        self._unresolved = self._counter(
            "endpoint_resolve_errors_total", "Failed look-ups of an endpoint's DNS name.", ()
        )
        self._define_tls_metrics()
        self._limits_met = self._counter(
            "extproc_limits_met_total",
            "Streams and connections refused or ended for what the peer did, by reason.",
            ("limit",),
        )
        for limit in transport_limits:
            self._limits_met.labels(limit)
        info = Gauge(
            "llm_d_epp_info", "The version that runs.", ("version",), registry=self.registry
        )
        info.labels(__version__).set(1)

    def recorder(self, pool_name: str = "") -> PoolRecorder:
        """Return what counts the requests of a pool; of none, by default: those that are answered
        before it is known which pool they are for."""
        return self._recorders.of(pool_name)

    def watch(self, open_streams: Callable[[], int], now: Callable[[], float]) -> None:
        """Export the state of the pools that are followed, and how many streams are open; to be
        called once. ``now`` is the time of the routers' clock."""
        self._scrapes = ScrapeMetrics(self._scraped, now)
        self.registry.register(_Streams(open_streams))
        self.registry.register(EndpointState(self._routers))
        self.registry.register(FlowState(self._routers, now))
        self.registry.register(SchedulingState(self._routers))
        self.registry.register(self._scrapes)

    def watch_cluster(self, read: Callable[[], ClusterState], now: Callable[[], float]) -> None:
        """Export what is told of the cluster that the resources come from; to be called once."""
        self.registry.register(ClusterMetrics(read, now))

    def follow_pool(self, router: Router, scraper: ScrapeState | None) -> None:
        """Export the state of a pool from now on, and what its scraper counts, if it has one. May
        be said again, with another scraper."""
        self._followed = [each for each in self._followed if each.router is not router]
        self._followed.append(_Followed(router, scraper))

    def forget_pool(self, key: str) -> None:
        """Export the state of the pool with this ``namespace/name`` no more. What was counted stays
        for some time, see :class:`~epp.observability.pool_recorder.PoolRecorders`."""
        kept = []
        for each in self._followed:
            spec = each.router.spec
            if spec is None or spec.key != key:
                kept.append(each)
                continue
            self._recorders.forget(spec.name)
            if each.scraper is not None and self._scrapes is not None:
                self._scrapes.forget(each.scraper)
        self._followed = kept

    def resources_applied(self, router: Router) -> None:
        """Count a reload that was applied, and make the series of its priorities begin at zero."""
        self._reloads.labels("applied").inc()
        if router.spec is not None:
            recorder = self._recorders.of(router.spec.name)
            for band in router.flow.bands():
                recorder.expect(band.priority, DEFAULT_FAIRNESS_ID)

    def resources_rejected(self) -> None:
        """Count a reload that did not validate; the state before it stays."""
        self._reloads.labels("rejected").inc()

    def configuration_applied(self) -> None:
        """Count a change of the configuration that was applied."""
        self._config_reloads.labels("applied").inc()
        self._config_applied.set_to_current_time()

    def configuration_rejected(self) -> None:
        """Count a change of the configuration that is no good; the one before it stays."""
        self._config_reloads.labels("rejected").inc()

    def plugin_failed(self) -> None:
        """Count a pick that was made without the profile, since a plugin had failed."""
        self._plugin_failures.inc()

    def name_unresolved(self) -> None:
        """Count a failed look-up of an endpoint's DNS name."""
        self._unresolved.inc()

    def tls_reloaded(self, applied: bool) -> None:
        """Count a change of the certificate's files: applied, or rejected and the last one kept."""
        self._tls_reloads.labels("applied" if applied else "rejected").inc()

    def limit_met(self, limit: str, count: int) -> None:
        """Count how often peers of the ext_proc port met a limit of the transport."""
        self._limits_met.labels(limit).inc(count)

    def handshake_refused(self, reason: str) -> None:
        """Count a connection to the ext_proc port whose TLS handshake failed."""
        self._handshakes_refused.labels(reason).inc()

    def pieces(self) -> Iterator[bytes]:
        """Yield the page in the text format, in pieces between which other work may be done."""
        return text_pieces(self.registry.collect())

    def render(self) -> bytes:
        """Return the page as a whole."""
        return b"".join(self.pieces())

    def _refuse_early(self, reason: str) -> None:
        self._refused_early.labels(reason).inc()

    def _routers(self) -> Iterator[Router]:
        return (each.router for each in self._followed)

    def _scraped(self) -> Iterator[Scraped]:
        for each in self._followed:
            if each.scraper is not None:
                yield each.router, each.scraper

    # Definitions

    def _define_refusals(self) -> None:
        self._refused_early = self._counter(
            "request_refused_early_total", "Requests refused before they were queued.", ("reason",)
        )
        for reason in (
            "too-large",
            Outcome.REJECTED_NO_ENDPOINTS.value,
            Outcome.SHUTTING_DOWN.value,
            Outcome.MODEL_NOT_FOUND.value,
            Outcome.POOL_NOT_FOUND.value,
        ):
            self._refused_early.labels(reason)

    def _define_tls_metrics(self) -> None:
        self._tls_reloads = self._counter(
            "tls_reload_total", "Changes of the TLS certificate, by result.", ("result",)
        )
        for result in ("applied", "rejected"):
            self._tls_reloads.labels(result)
        self._handshakes_refused = self._counter(
            "extproc_handshakes_refused_total",
            "Connections whose TLS handshake failed.",
            ("reason",),
        )
        for reason in _HANDSHAKE_REFUSALS:
            self._handshakes_refused.labels(reason)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"llm_d_epp_{name}", text, labels, registry=self.registry)


class _Followed(NamedTuple):
    router: Router
    scraper: ScrapeState | None


class _Streams(Collector):
    """Reads how many streams are open when Prometheus asks."""

    def __init__(self, open_streams: Callable[[], int]) -> None:
        self._open_streams = open_streams

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the family."""
        yield gauge("extproc_streams_inflight", "Open streams.", {(): self._open_streams()})

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: no other collector has this name."""
        return []
