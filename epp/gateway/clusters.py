"""The two clusters of the gateway: the pool's model servers, and the EPP."""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import PurePath

from envoy_data_plane.envoy.config.cluster import v3 as cluster_v3
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_v3
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request import (
    v3 as least_request,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host import (
    v3 as override_host,
)
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
from envoy_data_plane.envoy.type import v3 as type_v3
from envoy_data_plane.envoy.type.metadata import v3 as metadata_v3
from envoy_data_plane.google import protobuf

from epp.gateway.filters import DESTINATION_HEADER, DESTINATION_NAMESPACE, EXT_PROC_CLUSTER
from epp.gateway.messages import pack, socket_address
from epp.gateway.options import GatewayOptions
from epp.proxy.eds import EDS_CLUSTER

__all__ = ["POOL_CLUSTER", "SERVED_KEY", "ext_proc_cluster", "pool_cluster"]

POOL_CLUSTER = EDS_CLUSTER
SERVED_KEY = "x-gateway-destination-endpoint-served"

# Every queued request holds a stream to the EPP and every running one a connection to a server:
# Envoy's default of 1,024 would refuse what the EPP is there to queue.
_CIRCUIT_BREAKER = 100_000
_CONNECT_TIMEOUT = timedelta(seconds=1)
# Uvicorn, under most model servers, closes an idle connection after 5 s. Envoy closes it first, so
# that it never sends a request into a connection that is just being closed.
_UPSTREAM_IDLE_TIMEOUT = timedelta(seconds=4)
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def pool_cluster(options: GatewayOptions) -> cluster_v3.Cluster:
    """Return the cluster of model servers: those in the EDS file, chosen by the EPP's header."""
    protocol = upstream_http.HttpProtocolOptions(
        common_http_protocol_options=core.HttpProtocolOptions(idle_timeout=_UPSTREAM_IDLE_TIMEOUT),
        explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=core.Http1ProtocolOptions()
        ),
    )
    return cluster_v3.Cluster(
        name=POOL_CLUSTER,
        type=cluster_v3.ClusterDiscoveryType.EDS,
        eds_cluster_config=cluster_v3.ClusterEdsClusterConfig(
            eds_config=core.ConfigSource(
                path_config_source=core.PathConfigSource(
                    path=options.eds_path,
                    watched_directory=core.WatchedDirectory(
                        path=str(PurePath(options.eds_path).parent)
                    ),
                ),
                resource_api_version=core.ApiVersion.V3,
            )
        ),
        connect_timeout=_CONNECT_TIMEOUT,
        load_balancing_policy=_override_host(),
        typed_extension_protocol_options={_HTTP_OPTIONS: pack(protocol)},
        circuit_breakers=_circuit_breakers(),
        per_connection_buffer_limit_bytes=options.buffer_limit_bytes,
    )


def ext_proc_cluster(options: GatewayOptions) -> cluster_v3.Cluster:
    """Return the cluster with the EPP's ext_proc service, over cleartext HTTP/2."""
    protocol = upstream_http.HttpProtocolOptions(
        explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=core.Http2ProtocolOptions(
                max_concurrent_streams=options.ext_proc_connection_streams
            )
        )
    )
    places = ((options.ext_proc_address, options.ext_proc_port), *options.ext_proc_replicas)
    wanted = options.ext_proc_health_check
    has_replicas = len(places) > 1
    checked = options.fail_open or has_replicas if wanted is None else wanted
    return cluster_v3.Cluster(
        name=EXT_PROC_CLUSTER,
        type=(
            cluster_v3.ClusterDiscoveryType.STATIC
            if all(_is_ip(host) for host, _ in places)
            else cluster_v3.ClusterDiscoveryType.STRICT_DNS
        ),
        connect_timeout=_CONNECT_TIMEOUT,
        load_assignment=_assignment(places),
        typed_extension_protocol_options={_HTTP_OPTIONS: pack(protocol)},
        circuit_breakers=_circuit_breakers(),
        health_checks=[_grpc_health_check()] if checked else [],
        outlier_detection=_outlier_detection() if has_replicas else None,
        # Without this, Envoy would keep trying an EPP of which it knows that it does not answer. Of
        # several replicas all but the leader are as good as unhealthy, and yet answer: where there
        # is no leader for a moment, they are asked.
        common_lb_config=cluster_v3.ClusterCommonLbConfig(
            healthy_panic_threshold=type_v3.Percent(value=1 if has_replicas else 0),
            # Envoy would keep a change of health to itself for up to a second after another one.
            update_merge_window=timedelta(0) if has_replicas else None,
        ),
    )


def _assignment(places: Sequence[tuple[str, int]]) -> endpoint_v3.ClusterLoadAssignment:
    hosts = [
        endpoint_v3.LbEndpoint(endpoint=endpoint_v3.Endpoint(address=socket_address(host, port)))
        for host, port in places
    ]
    return endpoint_v3.ClusterLoadAssignment(
        cluster_name=EXT_PROC_CLUSTER,
        endpoints=[endpoint_v3.LocalityLbEndpoints(lb_endpoints=hosts)],
    )


def _override_host() -> cluster_v3.LoadBalancingPolicy:
    """Return the policy: the hosts that the EPP named, in its order, then the least loaded."""
    fallback = _policy(
        "envoy.load_balancing_policies.least_request", pack(least_request.LeastRequest())
    )
    policy = override_host.OverrideHost(
        override_host_sources=[
            override_host.OverrideHostOverrideHostSource(header=DESTINATION_HEADER)
        ],
        # Tells the EPP, in its response phase, which of the hosts it was in the end.
        selected_host_key=metadata_v3.MetadataKey(
            key=DESTINATION_NAMESPACE, path=[metadata_v3.MetadataKeyPathSegment(key=SERVED_KEY)]
        ),
        fallback_policy=fallback,
    )
    return _policy("envoy.load_balancing_policies.override_host", pack(policy))


def _policy(name: str, config: protobuf.Any) -> cluster_v3.LoadBalancingPolicy:
    return cluster_v3.LoadBalancingPolicy(
        policies=[
            cluster_v3.LoadBalancingPolicyPolicy(
                typed_extension_config=core.TypedExtensionConfig(name=name, typed_config=config)
            )
        ]
    )


def _circuit_breakers() -> cluster_v3.CircuitBreakers:
    return cluster_v3.CircuitBreakers(
        thresholds=[
            cluster_v3.CircuitBreakersThresholds(
                max_connections=_CIRCUIT_BREAKER,
                max_pending_requests=_CIRCUIT_BREAKER,
                max_requests=_CIRCUIT_BREAKER,
                max_retries=_CIRCUIT_BREAKER,
            )
        ]
    )


def _grpc_health_check() -> core.HealthCheck:
    return core.HealthCheck(
        # An EPP that is gone refuses the connection, and is found out after two intervals. The
        # timeout is for one that hangs; a busy one must not be taken for it.
        timeout=timedelta(seconds=5),
        interval=timedelta(seconds=1),
        no_traffic_interval=timedelta(seconds=1),
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=core.HealthCheckGrpcHealthCheck(
            service_name="envoy.service.ext_proc.v3.ExternalProcessor"
        ),
    )


def _outlier_detection() -> cluster_v3.OutlierDetection:
    """Return how a replica that has died is found out before the health check does.

    Two requests in a row that could not reach it are enough, or five that it did not answer well.
    It counts as good again after a second.
    """
    return cluster_v3.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=2,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_local_origin_success_rate=0,
        enforcing_success_rate=0,
        interval=timedelta(seconds=1),
        base_ejection_time=timedelta(seconds=1),
        max_ejection_percent=100,
    )


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
