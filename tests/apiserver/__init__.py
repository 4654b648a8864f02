"""An emulator of the Kubernetes API server: :class:`tests.apiserver.server.ApiServer`."""

from .kinds import KINDS, Kind
from .kubeconfig import write_kubeconfig
from .objects import (
    lease,
    model_rewrite,
    objective,
    pod,
    pool,
    pool_import,
    pool_v1alpha2,
    renamed,
)
from .requests import Recorded
from .server import ApiServer
from .store import Store

__all__ = [
    "KINDS",
    "ApiServer",
    "Kind",
    "Recorded",
    "Store",
    "lease",
    "model_rewrite",
    "objective",
    "pod",
    "pool",
    "pool_import",
    "pool_v1alpha2",
    "renamed",
    "write_kubeconfig",
]
