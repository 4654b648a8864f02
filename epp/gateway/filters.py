"""The HTTP filters of the gateway, in the order in which a request meets them."""

from datetime import timedelta

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata import (
    v3 as header_to_metadata,
)
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.http.set_metadata import v3 as set_metadata
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type import v3 as type_v3
from envoy_data_plane.google import protobuf

from epp.gateway.messages import pack
from epp.gateway.options import BodyMode, GatewayOptions, TrailerMode

__all__ = [
    "DESTINATION_HEADER",
    "DESTINATION_NAMESPACE",
    "EXT_PROC_CLUSTER",
    "SUBSET_KEY",
    "SUBSET_NAMESPACE",
    "header_removal",
    "http_filters",
]

EXT_PROC_CLUSTER = "ext_proc"
DESTINATION_HEADER = "x-gateway-destination-endpoint"
DESTINATION_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"

_RECONNECT_ATTEMPTS = 8


def http_filters(options: GatewayOptions) -> list[hcm.HttpFilter]:
    """Return the chain of HTTP filters; the router is always the last."""
    filters = []
    if options.static_subset_hint is not None:
        filters.append(_static_subset_hint(options.static_subset_hint))
    if options.subset_hint_header is not None:
        filters.append(_subset_hint_from(options.subset_hint_header))
    if options.ext_proc_enabled:
        filters.append(
            hcm.HttpFilter(
                name="envoy.filters.http.ext_proc", typed_config=pack(_ext_proc(options))
            )
        )
    filters.append(
        hcm.HttpFilter(
            name="envoy.filters.http.router",
            typed_config=pack(router.Router(suppress_envoy_headers=True)),
        )
    )
    return filters


def header_removal(*names: str) -> list[mutation_rules.HeaderMutation]:
    """Return the mutations that remove the headers ``names``."""
    return [mutation_rules.HeaderMutation(remove=name) for name in names]


def _ext_proc(options: GatewayOptions) -> ext_proc.ExternalProcessor:
    """Return the filter that asks the EPP.

    No mutation rules: by default every header may be set but ``host``, ``:authority``, ``:scheme``,
    ``:method`` and ``x-envoy-*``, and the EPP sets none of those. No ``allow_mode_override``: Envoy
    does not support it beside full-duplex bodies.
    """
    fail_close_status = type_v3.HttpStatus(code=type_v3.StatusCode.ServiceUnavailable)
    return ext_proc.ExternalProcessor(
        grpc_service=core.GrpcService(
            envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=EXT_PROC_CLUSTER),
            retry_policy=_reconnect(),
        ),
        failure_mode_allow=options.fail_open,
        status_on_error=None if options.fail_open else fail_close_status,
        processing_mode=ext_proc.ProcessingMode(
            request_header_mode=ext_proc.ProcessingModeHeaderSendMode.SEND,
            response_header_mode=ext_proc.ProcessingModeHeaderSendMode.SEND,
            request_body_mode=_body_mode(options.request_body_mode),
            response_body_mode=_body_mode(options.response_body_mode),
            request_trailer_mode=_trailer_mode(options.request_trailer_mode),
            response_trailer_mode=_trailer_mode(options.response_trailer_mode),
        ),
        message_timeout=timedelta(seconds=options.message_timeout_s),
        max_message_timeout=(
            None
            if options.max_message_timeout_s is None
            else timedelta(seconds=options.max_message_timeout_s)
        ),
        # Who served the request, also after a retry.
        response_attributes=["upstream.address"],
        metadata_options=ext_proc.MetadataOptions(
            forwarding_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(
                untyped=[DESTINATION_NAMESPACE, SUBSET_NAMESPACE]
            ),
            receiving_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(
                untyped=[DESTINATION_NAMESPACE]
            ),
        ),
    )


def _reconnect() -> core.RetryPolicy:
    """Return the policy for an EPP that is just being restarted: knock for a few seconds.

    Only ever for requests that no EPP has seen. Envoy keeps up to 64 KiB of what it has to tell the
    EPP for that; a request that is larger fails as it would without this.
    """
    return core.RetryPolicy(
        retry_on="connect-failure,refused-stream",
        num_retries=_RECONNECT_ATTEMPTS,
        retry_back_off=core.BackoffStrategy(
            base_interval=timedelta(milliseconds=100), max_interval=timedelta(seconds=1)
        ),
    )


def _body_mode(mode: BodyMode) -> ext_proc.ProcessingModeBodySendMode:
    return ext_proc.ProcessingModeBodySendMode[mode]


def _trailer_mode(mode: TrailerMode) -> ext_proc.ProcessingModeHeaderSendMode:
    return ext_proc.ProcessingModeHeaderSendMode[mode]


def _static_subset_hint(destinations: tuple[str, ...]) -> hcm.HttpFilter:
    config = set_metadata.Config(
        metadata=[
            set_metadata.Metadata(
                metadata_namespace=SUBSET_NAMESPACE,
                allow_overwrite=True,
                value=protobuf.Struct.from_dict({SUBSET_KEY: list(destinations)}),
            )
        ]
    )
    return hcm.HttpFilter(name="envoy.filters.http.set_metadata", typed_config=pack(config))


def _subset_hint_from(header: str) -> hcm.HttpFilter:
    """Return the filter for ``header``; only a serialised value can be a list, hence the Base64."""
    rule = header_to_metadata.ConfigRule(
        header=header,
        on_header_present=header_to_metadata.ConfigKeyValuePair(
            metadata_namespace=SUBSET_NAMESPACE,
            key=SUBSET_KEY,
            type=header_to_metadata.ConfigValueType.PROTOBUF_VALUE,
            encode=header_to_metadata.ConfigValueEncode.BASE64,
        ),
        remove=True,
    )
    config = header_to_metadata.Config(request_rules=[rule])
    return hcm.HttpFilter(name="envoy.filters.http.header_to_metadata", typed_config=pack(config))
