"""The endpoints of the pools and what runs there, read when Prometheus asks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from epp.core.router import Router
from epp.observability.families import gauge

__all__ = ["EndpointState"]

_ENDPOINT: Final = ("inference_pool", "endpoint_name", "model_server_endpoint")


class EndpointState(Collector):
    """How many endpoints there are, and how much of their limits is in use.

    ``routers`` returns those of the pools that there are.
    """

    def __init__(self, routers: Callable[[], Iterable[Router]]) -> None:
        self._routers = routers

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: the names are known only when there is a pool."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families; none where there is no pool."""
        ready: dict[tuple[str], float] = {}
        saturation: dict[tuple[str], float] = {}
        in_flight: dict[tuple[str, str, str], float] = {}
        limits: dict[tuple[str, str, str], float] = {}
        for router in self._routers():
            if router.spec is None:
                continue
            pool = router.spec.name
            used = most = 0
            for endpoint, running, limit in router.pool:
                key = (pool, endpoint.name, endpoint.destination)
                in_flight[key] = running
                limits[key] = limit
                used += running
                most += limit
            ready[pool,] = len(router.pool)
            saturation[pool,] = used / most if most else 1.0
        if not ready:
            return
        yield gauge("ready_endpoints", "Endpoints that may be picked.", ready, ("name",))
        yield gauge("inflight_requests", "Requests in flight by endpoint.", in_flight, _ENDPOINT)
        yield gauge(
            "endpoint_concurrency_limit", "Most requests in flight allowed.", limits, _ENDPOINT
        )
        yield gauge(
            "flow_control_pool_saturation",
            "Share of the endpoints' limits that is in use; 1 where there is no endpoint.",
            saturation,
            ("inference_pool",),
        )
