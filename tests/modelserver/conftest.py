"""Servers in the test's own process, and clients for them."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest

from epp.modelserver.engine import EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.server import ModelServer

# Before Python 3.12 pytest-asyncio asks for the current loop before the first test that needs one,
# which makes a loop that nobody closes; after this there is none, and it is content.
asyncio.set_event_loop(None)

FAST = LatencyModel(time_scale=1000)
# So slow that no token comes during a test.
SLOW = LatencyModel(time_scale=0.001)


async def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait until ``condition`` holds; raises ``TimeoutError`` if it does not become true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - it depends on sockets, there is no event
            await asyncio.sleep(0.002)


class Client:
    """Sends requests to one server."""

    def __init__(self, server: ModelServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    def post(
        self, path: str, body: object, **headers: str
    ) -> "aiohttp.client._RequestContextManager":
        """Post JSON, or bytes as they are; ``_`` in header names stands for ``-``."""
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(self.server.url + path, data=data, headers=named)

    def complete(self, **fields: object) -> "aiohttp.client._RequestContextManager":
        """Ask for a completion; fields that begin with ``x_`` are headers."""
        headers = {key: str(fields.pop(key)) for key in list(fields) if key.startswith("x_")}
        return self.post("/v1/completions", {"model": "m", "prompt": "Hello", **fields}, **headers)

    def get(self, path: str) -> "aiohttp.client._RequestContextManager":
        return self.session.get(self.server.url + path)

    async def text(self, path: str) -> str:
        async with self.get(path) as response:
            assert response.status == 200
            return await response.text()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: AsyncExitStack) -> Callable[..., object]:
    """Return a function that starts a server and returns a client for it.

    Its arguments are those of the server's options and of the engine's, together.
    """

    async def start(latency: LatencyModel = FAST, **fields: object) -> Client:
        engine_fields = {
            name: fields.pop(name)
            for name in list(fields)
            if name in EngineOptions.__struct_fields__
        }
        engine = EngineOptions(latency=latency, **engine_fields)
        options = ModelServerOptions(**{"port": 0, "engine": engine, **fields})
        server = await stack.enter_async_context(ModelServer(options))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        return Client(server, session)

    return start
