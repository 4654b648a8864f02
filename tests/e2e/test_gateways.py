"""What the gateways of config/gateways make of an InferencePool, rebuilt for a plain Envoy.

Each of them gives Envoy another configuration, which their users cannot change. The features that
matter here are taken from their source: how the filter is set and where, what metadata go to and
fro, how the pick reaches the load balancing, and TLS by any certificate.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from msgspec.structs import replace

from epp.config.security_arguments import SelfSigned

from .conftest import logged_stack
from .http1 import Http1
from .stack import Stack, in_process_options, model_server
from .support import completion, spread

Document: TypeAlias = dict[str, Any]

_TYPE = "type.googleapis.com/envoy.extensions"
_EXT_PROC = "envoy.filters.http.ext_proc"
_DESTINATION = "x-gateway-destination-endpoint"
_DUPLEX = {
    "request_header_mode": "SEND",
    "request_body_mode": "FULL_DUPLEX_STREAMED",
    "request_trailer_mode": "SEND",
    "response_header_mode": "SEND",
    "response_body_mode": "FULL_DUPLEX_STREAMED",
    "response_trailer_mode": "SEND",
}
# All of these gateways say more, 5 s at least; in full duplex none of it may end a wait.
_SHORT = "0.2s"


class Parts:
    """The parts of a bootstrap that gateways differ in."""

    def __init__(self, document: Document) -> None:
        resources = document["static_resources"]
        manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        self.manager: Document = manager
        self.route: Document = manager["route_config"]["virtual_hosts"][0]["routes"][0]
        self.filters: list[Document] = manager["http_filters"]
        (self.ext_proc,) = [
            each["typed_config"] for each in self.filters if each["name"] == _EXT_PROC
        ]
        self.clusters: list[Document] = resources["clusters"]
        self.pool, self.picker = self.clusters

    def common(self) -> None:
        """What is the same in all: TLS that trusts anybody, full duplex, no retries, no checks."""
        self.route["route"].pop("retry_policy")
        self.picker.pop("health_checks")
        self.picker["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPE}.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"validation_context": {}},
            },
        }
        service = {"envoy_grpc": {"cluster_name": "ext_proc"}, "timeout": _SHORT}
        kept = {"@type": self.ext_proc["@type"]}
        self.ext_proc.clear()
        self.ext_proc.update(
            kept, grpc_service=service, processing_mode=_DUPLEX, message_timeout=_SHORT
        )

    def metadata(self, forwarding: Sequence[str], receiving: Sequence[str]) -> None:
        self.ext_proc["metadata_options"] = {
            "forwarding_namespaces": {"untyped": list(forwarding)},
            "receiving_namespaces": {"untyped": list(receiving)},
        }

    @property
    def override_host(self) -> Document:
        (policy,) = self.pool["load_balancing_policy"]["policies"]
        found: Document = policy["typed_extension_config"]["typed_config"]
        return found

    def route_to(self, cluster: Document) -> None:
        self.clusters.append(cluster)
        self.route["route"]["cluster"] = cluster["name"]


def istio(parts: Parts, _: Sequence[str]) -> None:
    """A filter that does nothing but for the routes that override it; the pick by metadata."""
    parts.metadata(["envoy.lb"], ["envoy.lb"])
    overrides = {
        "failure_mode_allow": False,
        "grpc_service": {"envoy_grpc": {"cluster_name": "ext_proc"}},
        "processing_mode": _DUPLEX,
    }
    parts.route["typed_per_filter_config"] = {
        _EXT_PROC: {
            "@type": f"{_TYPE}.filters.http.ext_proc.v3.ExtProcPerRoute",
            "overrides": overrides,
        }
    }
    parts.ext_proc |= {
        "failure_mode_allow": True,
        "processing_mode": {"request_header_mode": "SKIP", "response_header_mode": "SKIP"},
    }
    parts.ext_proc["grpc_service"]["envoy_grpc"]["cluster_name"] = "inference_pool"  # a dummy
    key = {"key": "envoy.lb", "path": [{"key": _DESTINATION}]}
    parts.override_host["override_host_sources"] = [{"metadata": key}]


def envoy_gateway(parts: Parts, _: Sequence[str]) -> None:
    """config/gateways/envoy-gateway/extension-policy; nobody is told who has served."""
    parts.metadata(["envoy.lb", "envoy.lb.subset_hint"], ["envoy.lb"])
    parts.ext_proc["response_attributes"] = ["upstream.address"]
    parts.override_host.pop("selected_host_key")


def envoy_ai_gateway(parts: Parts, _: Sequence[str]) -> None:
    """No metadata at all, and a cluster that goes wherever the header says."""
    parts.ext_proc["grpc_service"]["envoy_grpc"]["authority"] = "epp.inference.svc:9002"
    parts.route_to(
        {
            "name": "original_dst",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "10s",
            "original_dst_lb_config": {"use_http_header": True, "http_header_name": _DESTINATION},
        }
    )


def kgateway(parts: Parts, destinations: Sequence[str]) -> None:
    """The header becomes metadata, by which a cluster chooses a subset of one."""
    parts.metadata(["envoy.lb.subset_hint"], ["envoy.lb"])
    rule = {
        "header": _DESTINATION,
        "on_header_present": {"metadata_namespace": "envoy.lb", "key": _DESTINATION},
    }
    to_metadata = {
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.header_to_metadata.v3.Config",
            "request_rules": [rule],
        },
    }
    parts.filters.insert(-1, to_metadata)
    endpoints = []
    for each in destinations:
        host, _, port = each.rpartition(":")
        address = {"socket_address": {"address": host, "port_value": int(port)}}
        metadata = {"filter_metadata": {"envoy.lb": {_DESTINATION: each}}}
        endpoints.append({"endpoint": {"address": address}, "metadata": metadata})
    parts.route_to(
        {
            "name": "subset",
            "type": "STATIC",
            "lb_policy": "ROUND_ROBIN",
            "lb_subset_config": {
                "fallback_policy": "ANY_ENDPOINT",
                "subset_selectors": [{"keys": [_DESTINATION]}],
            },
            "load_assignment": {
                "cluster_name": "subset",
                "endpoints": [{"lb_endpoints": endpoints}],
            },
        }
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Three servers, and an EPP in this process with a certificate that it has made itself."""
    directory = tmp_path_factory.mktemp("gateways")
    own = SelfSigned(secret=b"s" * 32, hosts=("localhost",))
    options = replace(in_process_options(directory), self_signed=own)
    servers = [model_server(name) for name in ("one", "two", "three")]
    async with logged_stack(directory, servers, in_process=options) as stack:
        yield stack


@pytest.mark.parametrize("gateway", [istio, envoy_gateway, envoy_ai_gateway, kgateway])
async def test_requests_go_where_the_epp_says_and_wait_as_long_as_it_says(
    secured: Stack, gateway: Callable[[Parts, Sequence[str]], None]
) -> None:
    def edit(document: Document) -> None:
        parts = Parts(document)
        parts.common()
        gateway(parts, [secured.destination(number) for number in range(3)])

    envoy = await secured.gateway(edit=edit)
    async with Http1(envoy.port) as http1:
        leases = secured.occupy(spare=1)
        free = leases[0].endpoint.destination  # of its two slots the other one
        forged = [(_DESTINATION, "127.0.0.1:1"), ("x-llm-d-inference-fairness-id", "forged")]
        for _ in range(4):
            answer = await http1.request("POST", "/v1/completions", forged, completion())
            assert answer.status == 200
            assert answer.headers["x-served-by"] == served_by(secured, free)
            assert "x-queue-wait-ms" in answer.headers
        body = spread(100_000)
        assert (await http1.post("/debug/echo", body)).body == body
        secured.give_back(leases)

        leases = secured.occupy()
        task = asyncio.create_task(http1.post("/v1/completions", completion()))
        await secured.queued(1)
        await asyncio.sleep(0.6)
        assert (await secured.metrics()).queued() == 1
        secured.give_back(leases)
        answer = await task
        assert answer.status == 200
        assert int(answer.headers["x-queue-wait-ms"]) >= 500
    await secured.at_rest()


def served_by(stack: Stack, destination: str) -> str:
    numbers = range(len(stack.servers))
    (found,) = [number for number in numbers if stack.destination(number) == destination]
    return stack.servers[found].options.name
