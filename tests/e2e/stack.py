"""The whole path, for real: model servers, the EPP, and Envoys in front of them.

Model servers run in this process, where their state can be looked at at any moment. The EPP is a
process of its own (``epp serve``), or a :class:`epp.service.Service` in this one for tests that
must look inside. Any number of Envoys, each configured its own way, share one EPP.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from itertools import count
from pathlib import Path

import aiohttp

from epp.clock import monotonic_s
from epp.config import ServeOptions
from epp.core.pool import Lease
from epp.core.resources import join_host_port
from epp.core.router import Router
from epp.gateway.bootstrap import bootstrap, to_dict
from epp.gateway.envoy_binary import envoy_command, find_envoy
from epp.gateway.options import GatewayOptions
from epp.gateway.ports import free_ports
from epp.gateway.probes import http_ready, tcp_ready
from epp.gateway.processes import ProcessSpec, Supervisor
from epp.modelserver.engine import EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.server import ModelServer
from epp.service import Service

from .epp_process import EppProcess, InProcessEpp, Manifests, in_process_options
from .http1 import Http1, request_head
from .support import Metrics, completion, eventually

__all__ = [
    "STEP_S",
    "EppProcess",
    "Gateway",
    "Manifests",
    "Stack",
    "begin_stream",
    "destination",
    "in_process_options",
    "model_server",
    "stack_of",
]

STEP_S = 0.01
"""How long a model server takes for one token, however many requests run."""

# An Envoy takes one of the machine's inotify instances, of which a user often has 128.
_MAX_GATEWAYS = 4

# What stands nowhere else in Envoy's bootstrap, to be replaced.
_DIRECTORY = "/placeholder"
_PORT, _ADMIN_PORT, _EXT_PROC_PORT = 61_111, 61_112, 61_113


def model_server(
    name: str, slots: int = 2, *, step_s: float = STEP_S, **more: object
) -> ModelServer:
    """Return a model server that is not started yet; a token takes ``step_s`` at any load."""
    latency = LatencyModel(
        prefill_tokens_per_s=1e9, decode_step_s=step_s, decode_step_per_seq_s=0.0
    )
    engine = EngineOptions(max_num_seqs=slots, num_kv_blocks=16_384, latency=latency)
    options = {"name": name, "port": 0, "engine": engine, **more}
    return ModelServer(ModelServerOptions(**options))  # type: ignore[arg-type]


class Gateway:
    """A running Envoy."""

    def __init__(
        self,
        port: int,
        admin_port: int,
        client: aiohttp.ClientSession,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._admin_url = f"http://127.0.0.1:{admin_port}"
        self._client = client
        self._supervisor = supervisor

    async def stop(self) -> None:
        """Stop it, if it was started with a supervisor of its own."""
        if self._supervisor is not None:
            await self._supervisor.stop()

    async def kill(self) -> None:
        """Kill it: its connections break."""
        assert self._supervisor is not None
        for process in self._supervisor.processes:
            process.signal(signal.SIGKILL)
            await asyncio.wait({process.exit})

    async def stat(self, name: str) -> int:
        """Return one of Envoy's own counters or gauges."""
        async with self._client.get(f"{self._admin_url}/stats?filter=^{name}$") as response:
            text = (await response.text()).strip()
        return int(text.rsplit(": ", 1)[1]) if text else 0

    async def knows(self, endpoints: int) -> bool:
        """Return whether it has taken in a pool of this size."""
        return await self.stat("cluster.inference_pool.membership_total") == endpoints


class Stack:
    """See the module; made by :func:`stack_of`."""

    def __init__(self, directory: Path, exits: AsyncExitStack) -> None:
        self.directory = directory
        self.exits = exits
        self.servers: list[ModelServer] = []
        self.manifests: Manifests
        self.epp: EppProcess | InProcessEpp
        self.client: aiohttp.ClientSession
        self._gateways: dict[tuple[tuple[str, object], ...], Gateway] = {}  # the latest is last
        self._numbers = count(1)

    @property
    def process(self) -> EppProcess:
        """The EPP, which must be a process of its own."""
        assert isinstance(self.epp, EppProcess)
        return self.epp

    @property
    def service(self) -> Service:
        """The EPP, which must be in this process."""
        assert isinstance(self.epp, InProcessEpp)
        return self.epp.service

    @property
    def router(self) -> Router:
        """The router of the one pool, of an EPP in this process."""
        (router,) = self.service.pools.routers.values()
        return router

    def destination(self, number: int) -> str:
        """Return the ``ip:port`` of a server."""
        return destination(self.servers[number])

    async def gateway(self, **options: object) -> Gateway:
        """Return the Envoy with these GatewayOptions, started if it is not there.

        The one that was longest not asked for is stopped where they become too many.

        Three options more: ``retries=False`` takes the retry policy out, ``concurrency`` is how
        many worker threads Envoy has, ``edit`` is called to change the bootstrap.
        """
        key = tuple(sorted(options.items()))
        gateway = self._gateways.pop(key, None)
        if gateway is None:
            while len(self._gateways) >= _MAX_GATEWAYS:
                await self._gateways.pop(next(iter(self._gateways))).stop()
            gateway = await self._start_gateway(options)
        self._gateways[key] = gateway
        return gateway

    async def metrics(self) -> Metrics:
        """Return what the EPP's metrics say now."""
        return Metrics(await self.epp.page(self.client))

    async def at_rest(self) -> None:
        """Wait until nothing is held any more, at the EPP and at the servers."""

        async def rests() -> None:
            (await self.metrics()).assert_at_rest()
            held = [server.state().in_flight for server in self.servers]
            assert not any(held), held

        await eventually(rests)

    async def queued(self, number: int, **labels: object) -> None:
        """Wait until so many requests are queued."""

        async def are_queued() -> None:
            waiting = (await self.metrics()).queued(**labels)
            assert waiting == number

        await eventually(are_queued)

    async def in_flight(self, number: int) -> None:
        """Wait until so many requests are at the servers."""
        await eventually(lambda: sum(s.state().in_flight for s in self.servers) == number)

    async def reloaded(self, number: int, result: str = "applied") -> None:
        """Wait until so many states of the manifests have been applied, or rejected."""

        async def are() -> None:
            metrics = await self.metrics()
            assert metrics.sum("resources_reload_total", result=result) == number

        await eventually(are)

    def occupy(self, *, spare: int = 0) -> list[Lease]:
        """Take all slots but so many at the EPP in this process, as if requests ran there."""
        pool = self.router.pool
        slots = [slot for slot in pool.active.nonzero()[0].tolist() for _ in range(2)]
        return [pool.lease(slot) for slot in slots[spare:]]

    def give_back(self, leases: Iterable[Lease]) -> None:
        """Free slots again."""
        for lease in leases:
            lease.release()
        self.router.flow.pump(monotonic_s())

    async def settle(self, destinations: Sequence[str]) -> None:
        """Make these the endpoints, and wait until the EPP and every Envoy know it."""
        self.manifests.endpoints(destinations)

        async def known() -> None:
            assert set((await self.metrics()).leases()) == set(destinations)
            for gateway in self._gateways.values():
                assert await gateway.knows(len(destinations))

        await eventually(known)

    async def _start_gateway(self, options: Mapping[str, object]) -> Gateway:
        number = next(self._numbers)
        port, admin_port = free_ports(2)
        values = {
            _DIRECTORY: str(self.directory),
            str(_PORT): str(port),
            str(_ADMIN_PORT): str(admin_port),
            str(_EXT_PROC_PORT): str(self.epp.ext_proc_port),
        }
        chosen = dict(options)
        concurrency = int(str(chosen.pop("concurrency", 1)))
        text = _envoy_configuration(tuple(chosen.items()))
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        config = self.directory / f"envoy-{number}.json"
        config.write_text(text)
        supervisor = await self.exits.enter_async_context(Supervisor(self.directory))
        is_up, listens = http_ready("127.0.0.1", admin_port, "/ready"), tcp_ready("127.0.0.1", port)

        async def is_ready() -> bool:
            return await is_up() and await listens()

        command = envoy_command(_envoy(), config, concurrency)
        spec = ProcessSpec(name=f"envoy-{number}", command=command, ready=is_ready)
        await supervisor.start([spec])
        gateway = Gateway(port, admin_port, self.client, supervisor)
        pool = len((await self.metrics()).leases())
        await eventually(lambda: gateway.knows(pool))
        return gateway


@asynccontextmanager
async def stack_of(
    directory: Path,
    servers: Sequence[ModelServer],
    *,
    arguments: Sequence[str] = (),
    max_concurrency: int | None = 2,
    in_process: ServeOptions | None = None,
    more_endpoints: Sequence[str] = (),
) -> AsyncIterator[Stack]:
    """Start model servers and an EPP for them; leaving stops all of it, the Envoys first.

    ``arguments`` go to ``epp serve``, and ``max_concurrency`` before them unless it is None;
    ``in_process`` are the options of an EPP in this process instead (its ports, manifests and EDS
    file are filled in).
    """
    async with AsyncExitStack() as exits:
        stack = Stack(directory, exits)
        stack.client = await exits.enter_async_context(aiohttp.ClientSession())
        for server in servers:
            stack.servers.append(await exits.enter_async_context(server))
        destinations = [*map(destination, servers), *more_endpoints]
        stack.manifests = Manifests(directory / "manifests", destinations)
        if in_process is None:
            source = ("--manifests", str(stack.manifests.directory))
            process = EppProcess(directory, source, arguments, max_concurrency)
            exits.push_async_callback(process.stop)
            await process.start()
            stack.epp = process
        else:
            service = await exits.enter_async_context(Service(in_process))
            stack.epp = InProcessEpp(service)
        yield stack


async def begin_stream(gateway: Gateway, exits: AsyncExitStack) -> Http1:
    """Let an answer begin that takes longer than any test; return its connection."""
    body = completion("go on", 10_000, stream=True)
    http1 = await exits.enter_async_context(Http1(gateway.port))
    length = ("content-length", str(len(body)))
    await http1.send(request_head("POST", "/v1/completions", [length]) + body)
    assert (await http1.head()).status == 200
    await http1.chunk()
    return http1


def _drop(document: object, key: str) -> None:
    """Take a key out of a document, wherever it stands."""
    if isinstance(document, dict):
        document.pop(key, None)
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            _drop(part, key)


def destination(server: ModelServer) -> str:
    """Return the ``ip:port`` of a server."""
    return join_host_port(server.options.host, server.port)


@cache
def _envoy_configuration(options: tuple[tuple[str, object], ...]) -> str:
    """Return the bootstrap with placeholders; kept, because making one takes long."""
    chosen = dict(options)
    retries = chosen.pop("retries", True)
    edit = chosen.pop("edit", None)
    gateway_options = GatewayOptions(
        **{
            "eds_path": f"{_DIRECTORY}/eds.json",
            "listen_port": _PORT,
            "admin_port": _ADMIN_PORT,
            "ext_proc_port": _EXT_PROC_PORT,
            **chosen,
        }  # type: ignore[arg-type]
    )
    document = to_dict(bootstrap(gateway_options))
    if not retries:
        _drop(document, "retry_policy")
    if callable(edit):
        edit(document)
    return json.dumps(document)


@cache
def _envoy() -> Path:
    return find_envoy(None)
