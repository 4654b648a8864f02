"""A server that answers what a script says, in order: for what a real API server seldom does."""

import asyncio
import gzip
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

DEADLINE_S = 20.0


class ScriptedServer:
    """Gives the ``answers`` in order, whatever is asked. A request beyond them is left waiting, and
    sets :attr:`exhausted`: by then, all that was answered before has been taken."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self._exhausted = asyncio.Event()
        self._more = asyncio.Event()
        self._tls = tls
        self.url = ""

    async def exhausted(self) -> None:
        await asyncio.wait_for(self._exhausted.wait(), DEADLINE_S)

    def release(self, *answers: Answer) -> None:
        """Add answers, the first of them for the request that is waiting."""
        self._exhausted.clear()
        self.answers += answers
        self._more.set()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._more.set()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        if not self.answers:
            self._exhausted.set()
            self._more.clear()
            await self._more.wait()
        if not self.answers:
            return web.Response(status=503)
        return await self.answers.pop(0)(request)

    @property
    def queries(self) -> list[dict[str, str]]:
        return [dict(request.query) for request in self.requests]

    @property
    def watches(self) -> list[bool]:
        """Which of the requests were watches; the others were lists."""
        return ["watch" in query for query in self.queries]


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    async def give(_: web.Request) -> web.StreamResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        typed = {"Content-Type": "application/json"} | headers
        return web.Response(body=data, status=status, headers=typed)

    return give


def zipped(body: Any) -> Answer:
    return answer(gzip.compress(json.dumps(body).encode()), **{"Content-Encoding": "gzip"})


def refusal(status: int, reason: str = "", message: str = "", **headers: str) -> Answer:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message}
    return answer(body, status, **headers)


def listed(version: int | str, *items: Any, next_page: str = "") -> Answer:
    metadata = {"resourceVersion": str(version)} | ({"continue": next_page} if next_page else {})
    return answer({"kind": "List", "metadata": metadata, "items": list(items)})


def event(kind: str, item: Any) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"kind": "Thing", "metadata": {"resourceVersion": str(version)}})


def watched(*parts: bytes, ends: str = "in order", left: asyncio.Event | None = None) -> Answer:
    """A watch that sends these parts, each as a chunk, and then ends in order, breaks, or stays
    open and silent, until the client leaves."""

    async def give(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        assert request.transport is not None
        if ends == "broken":
            request.transport.abort()
        elif ends == "silent":
            try:
                await asyncio.Event().wait()
            finally:
                if left is not None:
                    left.set()
        return response

    return give


def thing(name: str, version: int, value: Any = 0, namespace: str = "ns") -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "resourceVersion": str(version)}
    return {"kind": "Thing", "metadata": metadata, "value": value}


def kubeconfig(url: str, user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url} | cluster}],
        "users": [{"name": "u", "user": user or {}}],
    }
