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
from epp.discovery.cluster import ClusterOptions

__all__ = ["SelfSigned", "ServeOptions", "TlsVersion", "TransportName"]

TransportName = Literal["http2", "grpcio"]
TlsVersion = Literal["VersionTLS12", "VersionTLS13"]


class SelfSigned(msgspec.Struct, frozen=True, kw_only=True):
    """That the EPP is to make its certificate itself, for the names and addresses ``hosts``.

    Keys and certificates are derived from ``secret``, 32 random bytes, so that all the processes of
    one EPP, which have it from their parent, present the same certificate.
    """

    secret: bytes
    hosts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"SelfSigned(hosts={self.hosts!r})"  # the secret gets into no log


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the EPP listens, where its resources come from, and its bounds.

    Resources come from ``cluster``, or else from the files in ``manifests``. There ``pool_names``,
    ``pool_selector``, a label selector on pools, and ``pool_namespace`` say which pools are served.

    A port of 0 takes any that is free. After SIGTERM the EPP is not ready any more, but goes on as
    before for ``handover_s``, in which gateways notice. ``drain_timeout_s`` is how long queued
    requests may then go on being dispatched, ``shutdown_grace_s`` how long running exchanges may
    take to end after that. With ``scrape`` None, nobody asks the engines for their load.

    ``cert_path`` is a directory with ``tls.crt`` and ``tls.key``; without it and ``self_signed``
    ext_proc is plaintext. ``client_ca_file`` makes clients show a certificate that is signed by an
    authority in it. ``tls_cipher_suites`` are those of TLS 1.2 by OpenSSL's names, none standing
    for all that HTTP/2 may use.

    With ``metrics_auth`` the metrics are for those alone whom the cluster's API server lets read
    them. ``metrics_cert_dir`` serves them with TLS, as ``cert_path`` does ext_proc;
    ``metrics_client_ca_file`` demands certificates of those who read them.

    With ``workers`` above 1, so many processes serve the ext_proc port beside the one that decides.
    Each of the proxy's connections may then have ``connection_streams`` open streams, and requests
    wait for ``core_gap_timeout_s`` where nobody decides.

    ``new_scheduler`` makes a scheduler for a pool, with plugins of its own. ``reread`` returns what
    the options are now that ``config_file`` may have changed, and raises UsageError where that is
    no good; both are None where no file was named.
    """

    manifests: tuple[Path, ...]
    cluster: ClusterOptions | None = None
    pool_names: tuple[str, ...] = ()
    pool_selector: str = ""
    pool_namespace: str | None = None
    host: str = "0.0.0.0"
    grpc_port: int = 9002
    health_port: int = 9003
    metrics_port: int = 9090
    transport: TransportName = "http2"
    cert_path: Path | None = None
    self_signed: SelfSigned | None = None
    client_ca_file: Path | None = None
    tls_min_version: TlsVersion = "VersionTLS12"
    tls_cipher_suites: tuple[str, ...] = ()
    metrics_auth: bool = False
    metrics_cert_dir: Path | None = None
    metrics_client_ca_file: Path | None = None
    eds_file: Path | None = None
    flow: FlowOptions = FlowOptions()
    saturation: SaturationOptions = AdaptiveOptions()
    exchange: ExchangeLimits = ExchangeLimits()
    claims: ClaimsOptions = ClaimsOptions()
    scrape: ScrapeOptions | None = ScrapeOptions()
    handover_s: float = 0.0
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
