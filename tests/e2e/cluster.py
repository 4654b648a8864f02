"""The whole path where resources come from a cluster: pods, an API server, EPPs, and Envoys.

The API server is the emulator of :mod:`tests.apiserver`, in this process. Each pod has a loopback
address of its own, on which a model server listens, all of them at the same port.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from epp.gateway.ports import free_ports
from epp.modelserver.server import ModelServer
from tests.apiserver import ApiServer, objective, pod, pool

from .epp_process import EppProcess
from .stack import Gateway, Stack, destination, model_server
from .support import eventually

__all__ = ["ClusterStack", "Pod", "cluster_of"]

_PLAIN = (
    *("--secure-serving=false", "--metrics-endpoint-auth=false"),
    *("--handover-timeout", "0", "--shutdown-grace", "0.5"),
)
_MAX_PODS = 200


class Pod:
    """A pod of the cluster, and the model servers in it, one for each port."""

    def __init__(self, name: str, address: str, servers: Sequence[ModelServer]) -> None:
        self.name = name
        self.address = address
        self.servers = list(servers)

    @property
    def server(self) -> ModelServer:
        """The first one, mostly the only one."""
        return self.servers[0]


class ClusterStack(Stack):
    """See the module; made by :func:`cluster_of`. ``epps`` are all EPPs, ``epp`` the first."""

    def __init__(self, directory: Path, exits: AsyncExitStack, api: ApiServer) -> None:
        super().__init__(directory, exits)
        self.api = api
        self.ports = tuple(free_ports(2))
        self.pods: dict[str, Pod] = {}
        self.epps: list[EppProcess] = []

    @property
    def port(self) -> int:
        """Where the model servers listen."""
        return self.ports[0]

    async def add_pod(
        self, name: str, *, labels: Mapping[str, str] | None = None, ports: int = 1, slots: int = 2
    ) -> Pod:
        """Start a pod, and tell the API server of it when it is ready."""
        assert len(self.pods) < _MAX_PODS
        address = f"127.0.77.{len(self.pods) + 1}"
        servers = []
        for number, port in enumerate(self.ports[:ports]):
            called = name if ports == 1 else f"{name}-{number}"
            server = model_server(called, slots, host=address, port=port)
            servers.append(await self.exits.enter_async_context(server))
        self.servers += servers
        self.pods[name] = Pod(name, address, servers)
        self.show(name, labels=labels)
        return self.pods[name]

    def show(
        self,
        name: str,
        *,
        ready: bool = True,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Tell the API server how a pod is."""
        found = pod(
            name, self.pods[name].address, ready=ready, labels=labels, annotations=annotations
        )
        self.api.put(found)

    def delete(self, name: str) -> None:
        """Take a pod away from the API server; its servers run on."""
        self.api.delete("v1", "Pod", "default", name)

    def put_pool(self, name: str = "pool", ports: int = 1, **more: object) -> None:
        """Create or change an InferencePool at the first ports of the pods."""
        self.api.put(pool(name, self.ports[:ports], **more))  # type: ignore[arg-type]

    def put_objectives(self, priorities: Mapping[str, int], pool_name: str = "pool") -> None:
        """Create or change objectives."""
        for name, priority in priorities.items():
            self.api.put(objective(name, priority, pool=pool_name))

    async def knows(self, gateway: Gateway | None, names: Iterable[str]) -> None:
        """Wait until the first EPP, and the gateway, have exactly these pods as endpoints."""
        wanted = {destination(s) for name in names for s in self.pods[name].servers}

        async def known() -> None:
            assert set((await self.metrics()).leases()) == wanted
            assert gateway is None or await gateway.knows(len(wanted))

        await eventually(known)


@asynccontextmanager
async def cluster_of(
    directory: Path,
    pods: Sequence[str],
    *,
    source: Sequence[str] | Callable[[ClusterStack], Sequence[str]] = ("--pool-name", "pool"),
    arguments: Sequence[str] = (),
    max_concurrency: int | None = 2,
    epps: int = 1,
) -> AsyncIterator[ClusterStack]:
    """Start an API server with the pool ``pool``, pods for it, and EPPs; leaving stops all of it.

    ``source`` says what of the cluster is served, or how to say it; ``arguments`` are more for
    ``epp serve``.
    """
    async with AsyncExitStack() as exits:
        api = await exits.enter_async_context(ApiServer())
        stack = ClusterStack(directory, exits, api)
        stack.client = await exits.enter_async_context(aiohttp.ClientSession())
        stack.put_pool()
        stack.put_objectives({"interactive": 10, "batch": -10})
        for name in pods:
            await stack.add_pod(name)
        chosen = source(stack) if callable(source) else source
        where = ("--pool-namespace", "default", "--kubeconfig", str(api.kubeconfig(directory)))
        for number in range(epps):
            process = EppProcess(
                directory,
                (*chosen, *where),
                (*_PLAIN, *arguments),
                max_concurrency,
                name=f"epp-{number}",
                eds_file="eds.json" if number == 0 else f"eds-{number}.json",
            )
            exits.push_async_callback(process.stop)
            stack.epps.append(process)
        await asyncio.gather(*(process.start() for process in stack.epps))
        stack.epp = stack.epps[0]
        yield stack
