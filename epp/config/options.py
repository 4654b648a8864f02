"""What ``epp serve`` can be told."""

from pathlib import Path
from typing import Literal

import msgspec

from epp.core.exchange import ExchangeLimits
from epp.core.flow import FlowLimits

__all__ = ["ServeOptions", "TransportName"]

TransportName = Literal["http2", "grpcio"]


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the EPP listens, where its resources come from, and its bounds.

    A port of 0 takes any that is free. ``drain_timeout_s`` is how long queued requests may go on
    being dispatched after SIGTERM, ``shutdown_grace_s`` how long running exchanges may then take to
    end.
    """

    manifests: tuple[Path, ...]
    pool_name: str | None = None
    pool_namespace: str | None = None
    host: str = "0.0.0.0"
    grpc_port: int = 9002
    health_port: int = 9003
    metrics_port: int = 9090
    transport: TransportName = "grpcio"
    eds_file: Path | None = None
    max_concurrency: int = 100
    flow: FlowLimits = FlowLimits()
    exchange: ExchangeLimits = ExchangeLimits()
    drain_timeout_s: float = 30.0
    shutdown_grace_s: float = 600.0
