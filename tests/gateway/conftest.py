"""A real Envoy, model servers that say who they are, and an EPP of a few lines."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import grpc.aio
import pytest
from aiohttp import web
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.ext_proc import v3 as ext_proc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from epp.core.resources import Endpoint
from epp.gateway.bootstrap import bootstrap, to_json
from epp.gateway.envoy_binary import envoy_command, find_envoy
from epp.gateway.options import GatewayOptions
from epp.gateway.ports import free_ports
from epp.gateway.probes import http_ready
from epp.gateway.processes import ProcessSpec, Supervisor
from epp.proxy.eds import write_eds

# Before Python 3.12 pytest-asyncio asks for the current loop before the first test that needs one,
# which makes a loop that nobody closes; after this there is none, and it is content.
asyncio.set_event_loop(None)

__all__ = ["ModelServer", "StandInPicker", "StartGateway", "eventually", "is_running"]


async def eventually(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - what it waits for is another process
            await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether there is a process ``pid`` that has not ended, reaped or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


class ModelServer:
    """Answers every request with its own name and the request's headers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.requests = 0

    @property
    def destination(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(name=self.name, address="127.0.0.1", port=self.port)

    async def start(self) -> web.AppRunner:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_get("/ws", self._echo)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, max_field_size=128 << 10, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()
        return web.json_response(
            {"server": self.name, "headers": dict(request.headers), "body_bytes": len(body)}
        )

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket


class StandInPicker:
    """An ext_proc service that sends requests to ``destination`` and keeps what it was told."""

    def __init__(self) -> None:
        self.port = 0
        self.destination = ""
        self.seen: list[ext_proc.ProcessingRequest] = []

    async def start(self, port: int = 0) -> None:
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=ext_proc.ProcessingRequest.parse,
            response_serializer=bytes,
        )
        service = "envoy.service.ext_proc.v3.ExternalProcessor"
        health_servicer = health.aio.HealthServicer()
        await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Process": handler}),)
        )
        self.port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _process(
        self, messages: AsyncIterator[ext_proc.ProcessingRequest], _: object
    ) -> AsyncIterator[ext_proc.ProcessingResponse]:
        chunks: list[bytes] = []
        async for message in messages:
            self.seen.append(message)
            if message.request_headers is not None and message.request_headers.end_of_stream:
                yield self._choice()
            elif message.request_body is not None:
                chunks.append(message.request_body.body)
                if message.request_body.end_of_stream:
                    yield self._choice()
                    for index, chunk in enumerate(chunks):
                        yield _request_chunk(chunk, index == len(chunks) - 1)
            elif message.response_headers is not None:
                yield ext_proc.ProcessingResponse(response_headers=ext_proc.HeadersResponse())

    def _choice(self) -> ext_proc.ProcessingResponse:
        header = core.HeaderValueOption(
            header=core.HeaderValue(
                key="x-gateway-destination-endpoint", raw_value=self.destination.encode()
            )
        )
        return ext_proc.ProcessingResponse(
            request_headers=ext_proc.HeadersResponse(
                response=ext_proc.CommonResponse(
                    header_mutation=ext_proc.HeaderMutation(set_headers=[header])
                )
            )
        )


def _request_chunk(chunk: bytes, end_of_stream: bool) -> ext_proc.ProcessingResponse:
    streamed = ext_proc.StreamedBodyResponse(body=chunk, end_of_stream=end_of_stream)
    mutation = ext_proc.BodyMutation(streamed_response=streamed)
    return ext_proc.ProcessingResponse(
        request_body=ext_proc.BodyResponse(response=ext_proc.CommonResponse(body_mutation=mutation))
    )


class Gateway:
    """A running Envoy and a client for it."""

    def __init__(
        self, port: int, admin_port: int, eds_path: Path, client: aiohttp.ClientSession
    ) -> None:
        self.port = port
        self.admin_port = admin_port
        self.eds_path = eds_path
        self.client = client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def statistic(self, name: str) -> int:
        """Return Envoy's statistic ``name``, -1 while it does not exist."""
        url = f"http://127.0.0.1:{self.admin_port}/stats?filter=^{name}$"
        async with self.client.get(url) as response:
            answer = (await response.text()).strip()
        return int(answer.rpartition(":")[2]) if answer else -1

    async def shows(self, statistic: str, value: int) -> bool:
        return await self.statistic(statistic) == value

    async def server_for(self, path: str = "/", **headers: str) -> str:
        """Return which model server answers a GET with ``headers`` (``_`` for ``-``)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.get(self.url + path, headers=named) as response:
            assert response.status == 200, await response.text()
            return str(json.loads(await response.read())["server"])


StartGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else can get meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def model_servers(stack: AsyncExitStack) -> list[ModelServer]:
    servers = [ModelServer("one"), ModelServer("two")]
    for server in servers:
        runner = await server.start()
        stack.push_async_callback(runner.cleanup)
    return servers


@pytest.fixture
async def picker(stack: AsyncExitStack) -> StandInPicker:
    picker = StandInPicker()
    await picker.start()
    stack.push_async_callback(picker.stop)
    return picker


@pytest.fixture
def start_gateway(
    stack: AsyncExitStack, tmp_path: Path, model_servers: list[ModelServer]
) -> StartGateway:
    """Return a function that starts Envoy before the two model servers, with given options."""

    async def start(**options: object) -> Gateway:
        eds_path = tmp_path / "eds.json"
        write_eds(eds_path, [server.endpoint for server in model_servers])
        port, admin_port = free_ports(2)
        gateway_options = GatewayOptions(
            eds_path=str(eds_path), listen_port=port, admin_port=admin_port, **options
        )
        config = tmp_path / "envoy.json"
        config.write_text(to_json(bootstrap(gateway_options)))
        supervisor = await stack.enter_async_context(Supervisor(tmp_path))
        command = envoy_command(find_envoy(None), config, 1)
        ready = http_ready("127.0.0.1", admin_port, "/ready")
        await supervisor.start([ProcessSpec(name="envoy", command=command, ready=ready)])
        client = await stack.enter_async_context(aiohttp.ClientSession())
        return Gateway(port, admin_port, eds_path, client)

    return start
