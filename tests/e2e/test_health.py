"""Liveness and readiness, over gRPC on both ports and over HTTP."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp.core.resources import PoolResources
from epp.discovery.files import FileSource
from epp.service import Service

from .conftest import StartStack
from .http1 import Http1
from .stack import Manifests, Stack, in_process_options, model_server
from .support import completion, eventually

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
NAMES = ("", "liveness", "readiness", EXT_PROC, "inference-extension")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def check(port: int, name: str) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        return int(answer.status)


async def watch(port: int, name: str) -> AsyncIterator[int]:
    """Yield each status as it comes."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20):
            yield int(answer.status)


async def probe(port: int, path: str) -> int:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status


@pytest.mark.parametrize("name", NAMES)
async def test_check_and_watch_know_every_name_on_both_ports(stack: Stack, name: str) -> None:
    """Duty: gRPC health for these names; beside ext_proc and on a port of its own."""
    for port in (stack.process.ext_proc_port, stack.process.health_port):
        assert await check(port, name) == SERVING
        watching = watch(port, name)
        assert await anext(watching) == SERVING
        await watching.aclose()


async def test_names_that_nobody_knows(stack: Stack) -> None:
    for port in (stack.process.ext_proc_port, stack.process.health_port):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(port, "no-such")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watching = watch(port, "no-such")
        assert await anext(watching) == SERVICE_UNKNOWN
        await watching.aclose()


async def test_http_probes_and_metrics(stack: Stack) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert await probe(stack.process.metrics_port, path) == 200
    assert await probe(stack.process.metrics_port, "/no-such") == 404


async def test_the_pool_decides_nothing_about_liveness(start_stack: StartStack) -> None:
    """Duty: liveness does not depend on the pool; an empty one is ready, for requests may wait."""
    stack = await start_stack([])
    for name in NAMES:
        assert await check(stack.process.health_port, name) == SERVING
    assert await probe(stack.process.metrics_port, "/readyz") == 200


async def test_alive_but_not_ready_until_the_first_resources_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_load = asyncio.Event(), asyncio.Event()
    load = FileSource.load

    async def load_later(source: FileSource) -> tuple[PoolResources, ...]:
        begun.set()
        await may_load.wait()
        return await load(source)

    monkeypatch.setattr(FileSource, "load", load_later)
    Manifests(tmp_path / "manifests")
    service = Service(in_process_options(tmp_path))
    starting = asyncio.create_task(service.__aenter__())
    await begun.wait()
    health, http = service.health_server.port, service.observability.port
    expected = {"": NOT_SERVING, "liveness": SERVING, "readiness": NOT_SERVING}
    expected |= {EXT_PROC: NOT_SERVING, "inference-extension": NOT_SERVING}
    assert {name: await check(health, name) for name in NAMES} == expected
    assert [await probe(http, path) for path in ("/healthz", "/readyz")] == [200, 503]
    assert service.ext_proc.port == 0, "ext_proc is served although there are no resources"
    watchers = {name: watch(health, name) for name in NAMES}
    assert {name: await anext(watcher) for name, watcher in watchers.items()} == expected

    may_load.set()
    await starting
    for name in NAMES:
        assert await check(health, name) == SERVING
        assert await check(service.ext_proc.port, name) == SERVING
        if name != "liveness":
            assert await anext(watchers[name]) == SERVING
        await watchers[name].aclose()
    assert await probe(http, "/readyz") == 200
    await service.__aexit__(None, None, None)


@pytest.mark.parametrize("content", [None, "kind: Nonsense"])
def test_a_directory_without_usable_manifests_is_one_line_and_exit_status_2(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "pool.yaml").write_text(content)
    command = [sys.executable, "-m", "epp", "serve", "--manifests", str(tmp_path)]
    ports = [f"--{name}-port=0" for name in ("grpc", "health", "metrics")]
    ended = subprocess.run(
        [*command, "--host", "127.0.0.1", *ports], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if line.startswith("epp: ")]
    assert len(lines) == 1
    assert "Traceback" not in ended.stderr


async def test_envoys_own_health_check_follows_readiness(start_stack: StartStack) -> None:
    """With the check, Envoy asks an EPP that is ready, and soon knows of one that is not there."""
    stack = await start_stack([model_server("one")])
    gateway = await stack.gateway(ext_proc_health_check=True, fail_open=True)
    async with Http1(gateway.port) as http1:
        answer = await http1.post("/v1/completions", completion())
    assert "x-queue-wait-ms" in answer.headers
    assert await gateway.stat("cluster.ext_proc.membership_healthy") == 1
    await stack.process.kill()

    async def knows() -> bool:
        return await gateway.stat("cluster.ext_proc.membership_healthy") == 0

    await eventually(knows)
    async with Http1(gateway.port) as http1:
        for _ in range(10):
            answer = await http1.post("/v1/completions", completion())
            assert (answer.status, answer.headers["x-served-by"]) == (200, "one")
            assert "x-queue-wait-ms" not in answer.headers
