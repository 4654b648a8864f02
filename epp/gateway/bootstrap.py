"""Envoy's bootstrap for a gateway whose destinations the EPP chooses.

Built from the typed classes of ``envoy-data-plane``, so that a field that Envoy does not have
cannot be written. This module is the gateway as a whole; its filters are in
:mod:`epp.gateway.filters`, its clusters in :mod:`epp.gateway.clusters`.

Importing it costs most of a second and some 60 MB: import it inside the command that needs it.
"""

from datetime import timedelta
from typing import Any

import betterproto2
import yaml
from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap_v3
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener_v3
from envoy_data_plane.envoy.config.overload import v3 as overload_v3
from envoy_data_plane.envoy.config.route import v3 as route_v3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import (
    v3 as early_mutation,
)
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections import (
    v3 as connections_monitor,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts

from epp.gateway.clusters import POOL_CLUSTER, ext_proc_cluster, pool_cluster
from epp.gateway.filters import DESTINATION_HEADER, header_removal, http_filters
from epp.gateway.messages import extension, pack, socket_address
from epp.gateway.options import GatewayOptions

__all__ = ["bootstrap", "to_dict", "to_json", "to_yaml"]

_MAX_DOWNSTREAM_CONNECTIONS = 20_000
_MAX_REQUEST_HEADERS_KIB = 96
_REQUEST_HEADERS_TIMEOUT = timedelta(seconds=30)
_RETRIES = 2


def bootstrap(options: GatewayOptions) -> bootstrap_v3.Bootstrap:
    """Return the bootstrap of a gateway with ``options``."""
    clusters = [pool_cluster(options)]
    if options.ext_proc_enabled:
        clusters.append(ext_proc_cluster(options))
    return bootstrap_v3.Bootstrap(
        node=core.Node(id="gateway", cluster="inference-gateway"),
        admin=_admin(options),
        static_resources=bootstrap_v3.BootstrapStaticResources(
            listeners=[_listener(options)], clusters=clusters
        ),
        overload_manager=_overload_manager(),
    )


def to_dict(message: betterproto2.Message) -> dict[str, Any]:
    """Return ``message`` as proto3 JSON, its fields named as in Envoy's documentation."""
    return message.to_dict(casing=betterproto2.Casing.SNAKE)


def to_json(message: betterproto2.Message) -> str:
    """Return ``message`` as JSON text that Envoy takes as a configuration file."""
    return message.to_json(indent=2, casing=betterproto2.Casing.SNAKE) + "\n"


def to_yaml(message: betterproto2.Message) -> str:
    """Return ``message`` as YAML text that Envoy takes as a configuration file."""
    text: str = yaml.safe_dump(to_dict(message), sort_keys=False, width=100)
    return text


def _admin(options: GatewayOptions) -> bootstrap_v3.Admin | None:
    if options.admin_port is None:
        return None
    # The admin page can stop Envoy and shows everything: never on an address that others reach.
    return bootstrap_v3.Admin(address=socket_address("127.0.0.1", options.admin_port))


def _overload_manager() -> overload_v3.OverloadManager:
    monitor = connections_monitor.DownstreamConnectionsConfig(
        max_active_downstream_connections=_MAX_DOWNSTREAM_CONNECTIONS
    )
    return overload_v3.OverloadManager(
        resource_monitors=[
            overload_v3.ResourceMonitor(
                name="envoy.resource_monitors.global_downstream_max_connections",
                typed_config=pack(monitor),
            )
        ]
    )


def _listener(options: GatewayOptions) -> listener_v3.Listener:
    chain = listener_v3.FilterChain(
        filters=[
            listener_v3.Filter(
                name="envoy.filters.network.http_connection_manager",
                typed_config=pack(_connection_manager(options)),
            )
        ]
    )
    return listener_v3.Listener(
        name="gateway",
        address=socket_address(options.listen_address, options.listen_port),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=options.buffer_limit_bytes,
    )


def _connection_manager(options: GatewayOptions) -> hcm.HttpConnectionManager:
    strip = early_mutation.HeaderMutation(mutations=header_removal(DESTINATION_HEADER))
    return hcm.HttpConnectionManager(
        stat_prefix="gateway",
        # HTTP/1.1, and HTTP/2 by prior knowledge, told apart by the first bytes.
        codec_type=hcm.HttpConnectionManagerCodecType.AUTO,
        route_config=_routes(options),
        http_filters=http_filters(options),
        # A request may wait in the EPP's queue, and a model may think, longer than any fixed time.
        stream_idle_timeout=timedelta(0),
        request_headers_timeout=_REQUEST_HEADERS_TIMEOUT,
        max_request_headers_kb=_MAX_REQUEST_HEADERS_KIB,
        upgrade_configs=[hcm.HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")],
        normalize_path=True,
        merge_slashes=True,
        # Clients are strangers: their x-envoy-* headers (timeouts, retries) are dropped.
        use_remote_address=True,
        # ... but their request ids are kept, to be found again in the EPP's logs and traces.
        preserve_external_request_id=True,
        server_header_transformation=(
            hcm.HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH
        ),
        early_header_mutation_extensions=(
            [extension("envoy.http.early_header_mutation.header_mutation", strip)]
            if options.strip_destination
            else []
        ),
    )


def _routes(options: GatewayOptions) -> route_v3.RouteConfiguration:
    action = route_v3.RouteAction(
        cluster=POOL_CLUSTER,
        timeout=timedelta(0),
        retry_policy=_retry_policy(),
    )
    everything = route_v3.Route(match=route_v3.RouteMatch(prefix="/"), route=action)
    host = route_v3.VirtualHost(
        name="gateway",
        domains=["*"],
        routes=[everything],
        request_body_buffer_limit=options.buffer_limit_bytes,
    )
    return route_v3.RouteConfiguration(name="gateway", virtual_hosts=[host])


def _retry_policy() -> route_v3.RetryPolicy:
    """Return the policy: on to the next host, but never repeat what a server may have seen."""
    return route_v3.RetryPolicy(
        retry_on="connect-failure,refused-stream",
        num_retries=_RETRIES,
        retry_host_predicate=[
            route_v3.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=pack(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=3,
    )
