"""What ``epp serve`` can be told."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from epp.config.scrape import ScrapeOptions
from epp.core.claims import ClaimsOptions
from epp.core.exchange import ExchangeLimits
from epp.core.flow import FlowOptions
from epp.core.flow.saturation import AdaptiveOptions, SaturationOptions
from epp.core.scheduling import Scheduler
from epp.core.scheduling.default import default_scheduler

__all__ = ["ServeOptions", "TlsVersion", "TransportName"]

TransportName = Literal["http2", "grpcio"]
TlsVersion = Literal["VersionTLS12", "VersionTLS13"]


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the EPP listens, where its resources come from, and its bounds.

    A port of 0 takes any that is free. ``drain_timeout_s`` is how long queued requests may go on
    being dispatched after SIGTERM, ``shutdown_grace_s`` how long running exchanges may then take to
    end. With ``scrape`` None, nobody asks the engines for their load.

    ``cert_path`` is a directory with ``tls.crt`` and ``tls.key``; without it ext_proc is plaintext.
    ``client_ca_file`` makes clients show a certificate that is signed by an authority in it.

    With ``workers`` above 1, so many processes serve the ext_proc port beside the one that decides.
    Each of the proxy's connections may then have ``connection_streams`` open streams, and requests
    wait for ``core_gap_timeout_s`` where nobody decides.

    ``new_scheduler`` makes a scheduler for a pool, with plugins of its own. ``reread`` returns what
    the options are now that ``config_file`` may have changed, and raises UsageError where that is
    no good; both are None where no file was named.
    """

    manifests: tuple[Path, ...]
    pool_name: str | None = None
    pool_namespace: str | None = None
    host: str = "0.0.0.0"
    grpc_port: int = 9002
    health_port: int = 9003
    metrics_port: int = 9090
    transport: TransportName = "http2"
    cert_path: Path | None = None
    client_ca_file: Path | None = None
    tls_min_version: TlsVersion = "VersionTLS12"
    eds_file: Path | None = None
    flow: FlowOptions = FlowOptions()
    saturation: SaturationOptions = AdaptiveOptions()
    exchange: ExchangeLimits = ExchangeLimits()
    claims: ClaimsOptions = ClaimsOptions()
    scrape: ScrapeOptions | None = ScrapeOptions()
    drain_timeout_s: float = 30.0
    shutdown_grace_s: float = 600.0
    workers: int = 1
    connection_streams: int = 32
    core_gap_timeout_s: float = 2.0
    new_scheduler: Callable[[], Scheduler] = default_scheduler
    config_file: Path | None = None
    reread: "Callable[[], ServeOptions] | None" = None

    def renewed(self) -> "ServeOptions":
        """Return these options with all that can change while the process runs as it is by now.

        Raises UsageError where the configuration is no good.
        """
        if self.reread is None:
            return self
        now = self.reread()
        return msgspec.structs.replace(
            self,
            flow=now.flow,
            saturation=now.saturation,
            claims=now.claims,
            scrape=self.scrape and (now.scrape or self.scrape),  # whether at all, the start says
            new_scheduler=now.new_scheduler,
        )
