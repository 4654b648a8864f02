"""A client of the least kind, for the tests of the emulator itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

__all__ = ["EVENTS", "LEASES", "OBJECTIVES", "PODS", "Client", "Stream"]

PODS = "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
OBJECTIVES = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/default/inferenceobjectives"

_PATIENCE_S = 10.0


class Stream:
    """The lines of a watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def event(self) -> dict[str, Any]:
        """Return the next event."""
        async with asyncio.timeout(_PATIENCE_S):
            found: dict[str, Any] = json.loads(await self._content.readline())
        return found

    async def ended(self) -> bool:
        """Return whether there is nothing more."""
        async with asyncio.timeout(_PATIENCE_S):
            return await self._content.readline() == b""

    async def hears_nothing(self, for_s: float) -> bool:
        """Return whether nothing comes for a while."""
        try:
            async with asyncio.timeout(for_s):
                await self._content.readline()
        except TimeoutError:
            return True
        return False


class Client:
    """Asks, and checks the status of the answer."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session
        self.headers: dict[str, str] = {}

    async def do(
        self,
        method: str,
        path: str,
        status: int,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **query: Any,
    ) -> tuple[Any, Mapping[str, str]]:
        """Return the content of the answer and its headers."""
        async with self.session.request(
            method,
            self.url + path,
            params={key: str(value) for key, value in query.items()},
            data=None if body is None else json.dumps(body),
            headers={**self.headers, "content-type": content_type},
        ) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text), response.headers

    async def get(self, path: str, status: int = 200, **query: Any) -> Any:
        return (await self.do("GET", path, status, **query))[0]

    async def post(self, path: str, body: Any, status: int = 201, **query: Any) -> Any:
        return (await self.do("POST", path, status, body, **query))[0]

    async def put(self, path: str, body: Any, status: int = 200) -> Any:
        return (await self.do("PUT", path, status, body))[0]

    async def apply(self, path: str, body: Any, status: int = 200, **query: Any) -> Any:
        content_type = "application/apply-patch+yaml"
        found = await self.do("PATCH", path, status, body, content_type=content_type, **query)
        return found[0]

    @asynccontextmanager
    async def watch(self, path: str, **query: Any) -> AsyncIterator[Stream]:
        params = {"watch": "true", **{key: str(value) for key, value in query.items()}}
        async with self.session.get(self.url + path, params=params, headers=self.headers) as found:
            assert found.status == 200, await found.text()
            yield Stream(found)
