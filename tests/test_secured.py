"""An EPP of a cluster is secured by default: TLS for ext_proc, metrics for those who may."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from epp.config import ServeOptions
from epp.config.options import SelfSigned
from epp.discovery.cluster import ClusterOptions
from epp.service import Service
from tests.apiserver import ApiServer, pool
from tests.proxy.tls_peers import Files, Pair, client_context, hear


def options(kubeconfig: Path, **more: object) -> ServeOptions:
    values: dict[str, object] = {
        "manifests": (),
        "cluster": ClusterOptions(pool_names=("llm",), kubeconfig=kubeconfig),
        "self_signed": SelfSigned(secret=b"s" * 32, hosts=("localhost",)),
        "metrics_auth": True,
        "host": "127.0.0.1",
        "grpc_port": 0,
        "health_port": 0,
        "metrics_port": 0,
    }
    return ServeOptions(**(values | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("over_tls", [False, True])
async def test_an_epp_of_a_cluster_is_secured(tmp_path: Path, over_tls: bool) -> None:
    pair, more = Pair(), {}
    if over_tls:
        files = Files(tmp_path)
        files.hold_pair(pair)
        more = {"metrics_cert_dir": files.directory}
    async with ApiServer() as api, aiohttp.ClientSession() as session:
        api.access.add_token("ours", "epp")
        api.access.add_token("prometheus", "scraper")
        api.access.allow("scraper", "get", "/metrics")
        api.put(pool("llm"))
        kubeconfig = api.kubeconfig(tmp_path, token="ours")
        async with Service(options(kubeconfig, **more)) as service:
            scheme = "https" if over_tls else "http"
            base = f"{scheme}://127.0.0.1:{service.observability.port}"
            tls = client_context(trusts=pair, alpn=()) if over_tls else False

            async def status(path: str, token: str = "") -> int:
                headers = {"authorization": f"Bearer {token}"} if token else {}
                async with session.get(base + path, headers=headers, ssl=tls) as response:
                    return response.status

            assert await status("/metrics") == 401
            assert await status("/metrics", "invented") == 401
            assert await status("/metrics", "ours") == 403
            assert await status("/metrics", "prometheus") == 200
            assert await status("/readyz") == 200
            hello = await asyncio.to_thread(hear, service.ext_proc.port, client_context())
            assert hello[3] == 4  # SETTINGS
