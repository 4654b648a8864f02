"""What a pool is made of, whichever way it was discovered: files or the Kubernetes API.

A discovery source hands the core one :class:`PoolResources` at a time: the whole wanted state,
already validated. The core applies it at once and in full, so there is no half-applied state to
reason about.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = [
    "Endpoint",
    "EndpointChanges",
    "ModelTarget",
    "Objective",
    "PoolResources",
    "PoolSpec",
    "RewriteRule",
    "join_host_port",
    "split_host_port",
]

FailureMode = Literal["FailOpen", "FailClose"]


def join_host_port(address: str, port: int) -> str:
    """Return ``address:port`` as the endpoint-picker protocol writes it: IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split_host_port(destination: str) -> tuple[str, int]:
    """Return address and port of what :func:`join_host_port` has made. Raises ValueError."""
    address, _, port = destination.rpartition(":")
    return address.removeprefix("[").removesuffix("]"), int(port)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One address at which a model server takes requests.

    ``address`` is an IP literal (names have been resolved before they get here), ``name`` is
    ``namespace/name`` of the pod or list entry, made unique per address and port by its source.
    """

    name: str
    address: str
    port: int
    labels: Mapping[str, str] = {}

    @property
    def destination(self) -> str:
        """``ip:port``, IPv6 in brackets: the identity of the endpoint towards the proxy."""
        return join_host_port(self.address, self.port)


class EndpointChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of the endpoints of a pool: ``present`` are those that have joined it or are
    not what they were, ``gone`` the destinations of those that have left it."""

    present: tuple[Endpoint, ...] = ()
    gone: tuple[str, ...] = ()


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An InferencePool, or an InferencePoolImport: which endpoints belong to it, and what the
    gateway does when the EPP fails.

    ``authorities`` (host names in lower case, without a port) and ``models`` tell whose requests
    are for this pool where one EPP serves several.
    """

    name: str
    namespace: str = "default"
    group: str = "inference.networking.k8s.io"
    kind: str = "InferencePool"
    selector: Mapping[str, str] = {}
    target_ports: tuple[int, ...] = ()
    failure_mode: FailureMode = "FailClose"
    authorities: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``namespace/name``: what tells the pools of one EPP apart."""
        return f"{self.namespace}/{self.name}"


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """An InferenceObjective: a name that requests carry and the priority that it gives them."""

    name: str
    namespace: str = "default"
    priority: int = 0


class ModelTarget(msgspec.Struct, frozen=True):
    """A model to ask for in place of another, with its share of the requests, None where it has
    none of its own."""

    model: str
    weight: int | None = None


class RewriteRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of an InferenceModelRewrite: requests for one of ``models``, or for any where there
    are none, are to ask for one of the ``targets``, of which there is at least one."""

    models: tuple[str, ...] = ()
    targets: tuple[ModelTarget, ...]


class PoolResources(msgspec.Struct, frozen=True, kw_only=True):
    """The whole wanted state of one pool.

    ``objectives`` holds those whose ``poolRef`` is this pool, by name; ``endpoints`` those that the
    pool's selector matched, each with its port filled in, in a stable order, ``destination``
    unique. ``rewrites`` are the rules of all objects whose ``poolRef`` is this pool, those that
    come first in order of precedence.
    """

    pool: PoolSpec
    objectives: Mapping[str, Objective] = {}
    rewrites: tuple[RewriteRule, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
