"""The pods of one pool → its endpoints, one for each destination.

What is done costs by what has changed, and can be done bit by bit: what pods have become is noted,
then worked off, then told. Of a pod that changes several times meanwhile only the last counts.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from epp.core.resources import Endpoint, EndpointChanges
from epp.discovery.belonging import endpoint_names
from epp.discovery.hosts import canonical_ip
from epp.discovery.kubernetes.destinations import Destinations
from epp.discovery.kubernetes.objects import Pod
from epp.discovery.schema import MAX_ENDPOINTS

__all__ = ["Members", "selector_text"]

_address = lru_cache(2 * MAX_ENDPOINTS)(canonical_ip)


def selector_text(labels: Mapping[str, str]) -> str:
    """Return how the API server is asked for the pods that have these labels; empty for all."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


class Members:
    """The pods of one pool and the endpoints that they make.

    The pods are those that the API server selects by ``selector``; one that serves makes an
    endpoint at each of the pool's ``ports`` that is active. Of several pods at one destination, as
    when an address has passed on to a new pod and the end of the old one is not known yet, the one
    whose name comes first counts. Of more than 10,000 endpoints those count whose names come first.
    """

    def __init__(self, namespace: str, selector: str, ports: Sequence[int]) -> None:
        self._namespace = namespace
        self._ports = tuple(ports)
        self.selector = selector
        self._pods: dict[str, Pod] = {}
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._destinations = Destinations()
        self._pending: dict[str, Pod | None] = {}

    @property
    def count(self) -> int:
        """How many endpoints were told of."""
        return self._destinations.count

    @property
    def excluded(self) -> int:
        """How many endpoints are left out, because there are too many."""
        return self._destinations.excluded

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be worked off any more."""
        return not self._pending

    @property
    def has_changes(self) -> bool:
        """Whether endpoints are to be told of, as far as is known yet."""
        return self._destinations.has_changes

    # What pods have become

    def present(self, pod: Pod) -> None:
        """Note a pod that is new or has changed."""
        self._pending[pod.metadata.name] = pod

    def gone(self, name: str) -> None:
        """Note that there is no such pod any more."""
        self._pending[name] = None

    def replaced(self, pods: Sequence[Pod], selector: str, ports: Sequence[int]) -> None:
        """Note that these are all pods, as of another list."""
        self.selector = selector
        self._pending = dict.fromkeys(self._pods)
        self._pending.update((pod.metadata.name, pod) for pod in pods)
        self.set_ports(ports)

    def set_ports(self, ports: Sequence[int]) -> None:
        """Have the pods serve at other ports from now on."""
        if self._ports != tuple(ports):
            self._ports = tuple(ports)
            self._pending = {**self._pods, **self._pending}

    def work(self, limit: int) -> int:
        """Work off what was noted, up to so many pods; returns how many it were."""
        done = 0
        while self._pending and done < limit:
            name, pod = self._pending.popitem()
            self._take(name, pod)
            done += 1
        return done

    # What the endpoints have become

    def changes(self, limit: int) -> EndpointChanges:
        """Look at up to so many destinations and return what of them was not told yet; all must
        have been worked off."""
        return self._destinations.changes(limit)

    def all(self) -> tuple[Endpoint, ...]:
        """Return all endpoints in the order of their names, as far as :meth:`changes` has told of
        them."""
        return self._destinations.all()

    def _take(self, name: str, pod: Pod | None) -> None:
        before = self._endpoints.pop(name, ())
        after: tuple[Endpoint, ...] = ()
        if pod is None or not pod.is_serving:
            self._pods.pop(name, None)
        else:
            self._pods[name] = pod
            after = self._endpoints_of(pod)
        if after:
            self._endpoints[name] = after
        if after == before:
            return
        for endpoint in before:
            self._destinations.release(endpoint)
        for endpoint in after:
            self._destinations.claim(endpoint)

    def _endpoints_of(self, pod: Pod) -> tuple[Endpoint, ...]:
        address = _address(pod.status.pod_ip)
        if address is None:
            return ()
        metadata = pod.metadata
        name = f"{self._namespace}/{metadata.name}"
        names = endpoint_names(name, metadata.annotations.present(), self._ports)
        return tuple(
            Endpoint(name=names[port], address=address, port=port, labels=metadata.labels)
            for port in names
        )
