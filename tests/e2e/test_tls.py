"""TLS between a real Envoy and the EPP, both with certificates."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from epp.config.options import TransportName
from epp.gateway.bootstrap import bootstrap, to_dict
from epp.gateway.envoy_binary import envoy_command, find_envoy
from epp.gateway.options import GatewayOptions
from epp.gateway.ports import free_ports
from epp.gateway.probes import http_ready
from epp.gateway.processes import ProcessSpec, Supervisor

from ..proxy.tls_peers import client_context, shown
from .conftest import StartStack
from .http1 import Http1, request_head
from .stack import Gateway, Stack, model_server
from .support import eventually, spread

ECHO = "/debug/echo"
TLS_CONTEXT = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HALF_BYTES = 2_000_000


class Secrets:
    """The EPP's certificate and Envoy's, each signed by an authority of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "epp"
        self.directory.mkdir()
        self.envoy_pem = directory / "envoy.pem"
        self.server_ca = directory / "server-ca.pem"
        self.client_ca = directory / "client-ca.pem"
        self._servers = trustme.CA()
        clients = trustme.CA()
        self._servers.cert_pem.write_to_path(self.server_ca)
        clients.cert_pem.write_to_path(self.client_ca)
        clients.issue_cert("envoy.test").private_key_and_cert_chain_pem.write_to_path(
            self.envoy_pem
        )
        self.renew()

    def renew(self) -> None:
        """Give the EPP a new certificate."""
        pair = self._servers.issue_cert("epp.test")
        pair.private_key_pem.write_to_path(self.directory / "tls.key")
        pair.cert_chain_pems[0].write_to_path(self.directory / "tls.crt")


def upstream_tls(secrets: Secrets, *, shows_certificate: bool) -> dict[str, Any]:
    """Envoy's side: trust the authority, check the name, show a certificate."""
    files = {"filename": str(secrets.envoy_pem)}
    common: dict[str, Any] = {
        "validation_context": {
            "trusted_ca": {"filename": str(secrets.server_ca)},
            "match_typed_subject_alt_names": [
                {"san_type": "DNS", "matcher": {"exact": "epp.test"}}
            ],
        }
    }
    if shows_certificate:
        common["tls_certificates"] = [{"certificate_chain": files, "private_key": files}]
    return {"sni": "epp.test", "common_tls_context": common}


async def gateway_with_tls(stack: Stack, context: dict[str, Any]) -> Gateway:
    """Start an Envoy that speaks TLS with the EPP. ALPN is not said: it offers h2 by itself where
    it is to speak HTTP/2."""
    port, admin_port = free_ports(2)
    options = GatewayOptions(
        eds_path=str(stack.directory / "eds.json"),
        listen_port=port,
        admin_port=admin_port,
        ext_proc_port=stack.epp.ext_proc_port,
        fail_open=False,
        response_body_mode="FULL_DUPLEX_STREAMED",
    )
    document = to_dict(bootstrap(options))
    clusters = {cluster["name"]: cluster for cluster in document["static_resources"]["clusters"]}
    clusters["ext_proc"]["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"type.googleapis.com/{TLS_CONTEXT}", **context},
    }
    config = stack.directory / f"envoy-{port}.json"
    config.write_text(json.dumps(document))
    supervisor = await stack.exits.enter_async_context(Supervisor(stack.directory))
    command = envoy_command(find_envoy(None), config, 1)
    ready = http_ready("127.0.0.1", admin_port, "/ready")
    await supervisor.start([ProcessSpec(name=f"envoy-{port}", command=command, ready=ready)])
    return Gateway(port, admin_port, stack.client)


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_envoy_and_the_epp_know_each_other_by_certificate(
    start_stack: StartStack, tmp_path: Path, transport: TransportName
) -> None:
    """A body goes both ways, half of it before the EPP's certificate changes, half after."""
    secrets = Secrets(tmp_path)
    tls = ("--cert-path", str(secrets.directory), "--client-ca-file", str(secrets.client_ca))
    stack = await start_stack(
        [model_server("one", step_s=0.0002)], arguments=("--transport", transport, *tls)
    )
    gateway = await gateway_with_tls(stack, upstream_tls(secrets, shows_certificate=True))
    body = spread(2 * HALF_BYTES)
    async with Http1(gateway.port) as http1:
        head = request_head("POST", ECHO, [("content-length", str(len(body)))])
        await http1.send(head + body[:HALF_BYTES])
        await eventually(lambda: has_streams(stack, 1))
        secrets.renew()
        await eventually(lambda: was_reloaded(stack))
        await http1.send(body[HALF_BYTES:])
        answer = await http1.response()
    assert answer.status == 200
    assert answer.body == body
    assert "x-queue-wait-ms" in answer.headers
    assert await gateway.stat("cluster.ext_proc.ssl.handshake") == 1
    assert await gateway.stat("cluster.ext_proc.ssl.fail_verify_error") == 0

    newcomer = await gateway_with_tls(stack, upstream_tls(secrets, shows_certificate=True))
    async with Http1(newcomer.port) as http1:
        assert (await http1.post(ECHO, b"hello")).body == b"hello"
    stranger = await gateway_with_tls(stack, upstream_tls(secrets, shows_certificate=False))
    async with Http1(stranger.port) as http1:
        assert (await http1.post(ECHO, b"hello")).status == 503
    if transport == "http2":
        refused = (await stack.metrics()).sum(
            "extproc_handshakes_refused_total", reason="no-certificate"
        )
        assert refused > 0
    await stack.at_rest()


async def test_envoy_takes_the_certificate_that_the_epp_has_made_itself(
    start_stack: StartStack,
) -> None:
    """As gateways are told to that have nothing to verify it by; all workers present the same."""
    stack = await start_stack(
        [model_server("one", step_s=0.0002)], arguments=("--secure-serving", "--workers", "2")
    )
    gateway = await gateway_with_tls(stack, {"common_tls_context": {"validation_context": {}}})
    async with Http1(gateway.port) as http1:
        answer = await http1.post(ECHO, b"hello")
    assert answer.body == b"hello"
    assert "x-queue-wait-ms" in answer.headers
    assert await gateway.stat("cluster.ext_proc.ssl.handshake") > 0
    port = stack.epp.ext_proc_port
    seen = {await asyncio.to_thread(shown, port, client_context()) for _ in range(20)}
    assert len(seen) == 1
    await stack.at_rest()


async def has_streams(stack: Stack, number: int) -> bool:
    return (await stack.metrics()).sum("extproc_streams_inflight") == number


async def was_reloaded(stack: Stack) -> bool:
    metrics = await stack.metrics()
    assert not metrics.sum("tls_reload_total", result="rejected")
    return metrics.sum("tls_reload_total", result="applied") == 1
