"""Prometheus metrics, under the names that the field's dashboards know (``llm_d_epp_…``).

Events are counted as they happen: the core calls :class:`Metrics` as its recorder. States (queue
sizes, requests in flight) are read from the core when Prometheus asks and cost the request path
nothing. Every label set is bounded.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from epp import __version__
from epp.core.gate import Ending
from epp.core.request import Outcome, Request
from epp.core.router import DEFAULT_FAIRNESS_ID, Router
from epp.observability.families import gauge
from epp.observability.flow import FlowState
from epp.observability.requests import RequestMetrics
from epp.observability.rewrites import RewriteMetrics
from epp.observability.scheduling import SchedulingState

__all__ = ["Metrics"]

# Creation times double the page and no dashboard reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_DISPATCHED: Final = Outcome.DISPATCHED  # read off its enumeration once: that takes a while
_HANDSHAKE_REFUSALS: Final = (
    "alpn", "plaintext", "version", "no-certificate", "bad-certificate", "by-peer", "other",
)  # fmt: skip


class Metrics:
    """The EPP's metrics, and the core's recorder (:class:`epp.core.ports.Recorder`).

    ``transport_limits`` are the names for :meth:`limit_met`.
    """

    def __init__(self, transport_limits: Iterable[str] = ()) -> None:
        self.registry = CollectorRegistry()
        self._requests = RequestMetrics()
        self.registry.register(self._requests)
        self._rewrites = RewriteMetrics()
        self.registry.register(self._rewrites)
        self._define_refusals()
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

    def watch(
        self, router: Router, open_streams: Callable[[], int], now: Callable[[], float]
    ) -> None:
        """Export the state of a pool; to be called once, when it is known what there is to
        export."""
        self.registry.register(_RouterState(router, open_streams))
        self.registry.register(FlowState(router, now))
        self.registry.register(SchedulingState(router))

    def resources_applied(self, router: Router) -> None:
        """Count a reload that was applied, and make the series of its priorities begin at zero."""
        self._reloads.labels("applied").inc()
        spec = router.spec
        pool_name = spec.name if spec else ""
        for band in router.flow.bands():
            self._requests.expect(band.priority, DEFAULT_FAIRNESS_ID, pool_name)

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

    def render(self) -> bytes:
        """Return the page in the text format."""
        return generate_latest(self.registry)

    # epp.core.ports.Recorder

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        """Count the end of a wait."""
        self._requests.wait_ended(request, outcome, waited_s)
        if outcome is _DISPATCHED:
            self._rewrites.dispatched(request)

    def adopted(self, request: Request) -> None:
        """Count a request that runs, and not as one that was sent."""
        self._requests.adopted(request)

    def overridden(self, priority: int, rule: str) -> None:
        """Count a dispatch out of turn."""
        self._requests.overridden(priority, rule)

    def settled(self, request: Request, charged: int, actual: int) -> None:
        """Count what a request has cost, and was expected to."""
        self._requests.settled(request, charged, actual)

    def evicted(self, request: Request) -> None:
        """Count a request that is ended for one of higher priority."""
        self._requests.evicted(request)

    def ended(self, request: Request, ending: Ending) -> None:
        """Count the end of an exchange."""
        self._requests.ended(request, ending)

    def refused_early(self, reason: str) -> None:
        """Count an answer given before the queue."""
        self._refused_early.labels(reason).inc()

    def rewrite_skipped(self, reason: str) -> None:
        """Count what was not rewritten."""
        self._rewrites.skipped(reason)

    # Definitions

    def _define_refusals(self) -> None:
        self._refused_early = self._counter(
            "request_refused_early_total", "Requests refused before they were queued.", ("reason",)
        )
        for reason in (
            "too-large",
            Outcome.REJECTED_NO_ENDPOINTS.value,
            Outcome.SHUTTING_DOWN.value,
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


class _RouterState(Collector):
    """Reads a router when Prometheus asks."""

    def __init__(self, router: Router, open_streams: Callable[[], int]) -> None:
        self._router = router
        self._open_streams = open_streams

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families."""
        yield gauge("extproc_streams_inflight", "Open streams.", {(): self._open_streams()})
        spec = self._router.spec
        if spec is None:
            return
        yield from self._endpoints(spec.name)

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: the names are known only when there is a pool."""
        return []

    def _endpoints(self, pool: str) -> Iterator[GaugeMetricFamily]:
        in_flight, limits = {}, {}
        for endpoint, running, limit in self._router.pool:
            key = (pool, endpoint.name, endpoint.destination)
            in_flight[key] = running
            limits[key] = limit
        labels = ("inference_pool", "endpoint_name", "model_server_endpoint")
        yield gauge(
            "ready_endpoints", "Endpoints that may be picked.", {(pool,): len(limits)}, ("name",)
        )
        yield gauge("inflight_requests", "Requests in flight by endpoint.", in_flight, labels)
        yield gauge(
            "endpoint_concurrency_limit", "Most requests in flight allowed.", limits, labels
        )
        total = sum(limits.values())
        saturation = sum(in_flight.values()) / total if total else 1.0
        yield gauge(
            "flow_control_pool_saturation",
            "Share of the endpoints' limits that is in use; 1 where there is no endpoint.",
            {(pool,): saturation},
            ("inference_pool",),
        )
