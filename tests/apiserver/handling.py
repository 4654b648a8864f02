"""How requests are answered: HTTP over the store, with the faults that are set."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from . import answers
from .access import Access
from .errors import Refusal, bad_request, not_found
from .events import served
from .faults import Faults, pieces
from .kinds import KINDS, Kind
from .lists import listing
from .requests import Asked, Recorded, asked
from .store import Store
from .watches import Watch
from .writing import Writer

__all__ = ["Handler"]

_MAX_RECORDED = 100_000
_WHOLE_WATCH_S = (1800.0, 3600.0)


class Handler:
    """Answers requests. ``controls`` are what ``/emulator/<name>`` does; see ``__main__``."""

    def __init__(
        self, store: Store, access: Access, faults: Faults, *, bookmark_interval_s: float
    ) -> None:
        self.writer = Writer(store)
        self.requests: list[Recorded] = []
        self.watches: set[Watch] = set()
        self.absent: set[str] = set()
        self.controls: dict[str, Callable[..., Any]] = {"requests": lambda: self.requests}
        self.store = store
        self.access = access
        self.faults = faults
        self._bookmark_interval_s = bookmark_interval_s
        store.listen(self._spread)

    def _spread(self, storage: str) -> None:
        change = self.store.newest(storage)
        for watch in self.watches:
            if watch.asked.kind.storage == storage:
                watch.tell(change)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        query = {**request.query}
        content_type = request.headers.get("content-type", "")
        wanted = asked(request.method, request.path, query, content_type)
        recorded = Recorded(
            at_s=time.monotonic(), method=request.method, path=request.path, query=query
        )
        if wanted is not None:
            recorded.verb, recorded.resource = wanted.verb, wanted.kind.plural
            recorded.namespace, recorded.name = wanted.namespace, wanted.name
            recorded.subresource = wanted.subresource
        recorded.user_agent = request.headers.get("user-agent", "")
        if not request.path.startswith("/emulator/"):
            self.requests.append(recorded)
            del self.requests[:-_MAX_RECORDED]
        try:
            answer = await self._answer(request, wanted, recorded)
        except Refusal as refusal:
            answer = answers.refused(refusal)
        recorded.status = answer.status
        return answer

    async def _answer(
        self, request: web.BaseRequest, wanted: Asked | None, recorded: Recorded
    ) -> web.StreamResponse:
        if request.path.startswith("/emulator/"):
            return answers.encoded(request, await self._control(request))
        for fault in self.faults.take(recorded):
            await asyncio.sleep(fault.latency_s)
            if fault.reset:
                if request.transport is not None:
                    request.transport.abort()
                raise asyncio.CancelledError
            if fault.status is not None:
                raise answers.planned(fault, wanted, recorded)
        if request.path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        recorded.user = self.access.user_of(request.headers.get("authorization", ""))
        if wanted is None or wanted.kind.qualified in self.absent:
            found = answers.discovery(request.path, self._installed())
            return (
                answers.absent(request.path) if found is None else answers.encoded(request, found)
            )
        if wanted.verb == "watch":
            return await self._watch(request, wanted, recorded)
        body = answers.body_of(await request.read(), request.headers.get("content-type", ""))
        status, content = self._do(wanted, recorded, body, request.headers.get("content-type", ""))
        return answers.encoded(request, content, status)

    def _installed(self) -> list[Kind]:
        return [kind for kind in KINDS if kind.qualified not in self.absent]

    def _do(
        self, wanted: Asked, recorded: Recorded, body: Any, content_type: str
    ) -> tuple[int, Any]:
        """Do what is asked for; return the answer's status and content."""
        kind, namespace, name = wanted.kind, wanted.namespace, wanted.name
        query = recorded.query
        manager = query.get("fieldManager") or recorded.user_agent.partition("/")[0]
        changes = {"subresource": wanted.subresource, "manager": manager}
        if kind.virtual:
            return 201, self.access.review(body)
        match wanted.verb:
            case "list":
                return 200, listing(self.store, wanted, query)
            case "get":
                return 200, self._get(wanted)
            case "create":
                made = self.writer.create(kind, namespace, body, manager=manager)
                return 201, served(kind, made)
            case "update":
                known = self.store.get(kind.storage, namespace, name)
                made = self.writer.update(kind, namespace, name, body, **changes)
                return (200 if known else 201), served(kind, made)
            case "patch":
                made = self.writer.patch(
                    kind, namespace, name, body, content_type=content_type, **changes
                )
                return 200, served(kind, made)
            case "apply":
                changes["manager"] = query.get("fieldManager", "")
                force = query.get("force", "").lower() in ("1", "true")
                made, is_new = self.writer.apply(
                    kind, namespace, name, body, force=force, **changes
                )
                return (201 if is_new else 200), served(kind, made)
            case "delete":
                return 200, self._delete(wanted, query, body)
            case "deletecollection":
                found = listing(self.store, wanted, query)
                for item in found["items"]:
                    metadata = item["metadata"]
                    self.writer.delete(kind, metadata.get("namespace", ""), metadata["name"], {})
                return 200, found
        raise Refusal(405, "the server does not allow this method on the requested resource")

    def _get(self, wanted: Asked) -> Any:
        found = self.store.get(wanted.kind.storage, wanted.namespace, wanted.name)
        if found is None:
            raise not_found(wanted.kind, wanted.name)
        return served(wanted.kind, found)

    def _delete(self, wanted: Asked, query: dict[str, str], body: Any) -> Any:
        options = {**(body or {})}
        if query.get("gracePeriodSeconds"):
            options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
        made, is_gone = self.writer.delete(wanted.kind, wanted.namespace, wanted.name, options)
        return answers.deleted(wanted.kind, made, is_gone)

    async def _watch(
        self, request: web.BaseRequest, wanted: Asked, recorded: Recorded
    ) -> web.StreamResponse:
        watch = Watch(
            self.store,
            wanted,
            recorded.query,
            recorded,
            chance=self.faults.random,
            whole_s=_WHOLE_WATCH_S,
        )
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.enable_chunked_encoding()
        recorded.status = 200
        first = watch.begin()
        self.watches.add(watch)
        try:
            await response.prepare(request)
            await self._stream(request, response, watch, first)
            await response.write_eof()
        except ConnectionError:
            pass  # the client has gone, which is its right
        finally:
            self.watches.discard(watch)
            recorded.ended_s = time.monotonic()
        return response

    async def _stream(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        watch: Watch,
        lines: list[bytes],
    ) -> None:
        """Send lines until the watch ends."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + watch.timeout_s
        bookmark_s = loop.time() + self._bookmark_interval_s
        while True:
            if not self.faults.silent:
                await self._send(response, watch, lines + watch.drain())
                lines = []
                if watch.ending:
                    break
            elif watch.ending == "reset":
                break
            watch.wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(ends_s, bookmark_s)):
                    await watch.wake.wait()
            if loop.time() >= min(ends_s, bookmark_s):
                bookmark_s = loop.time() + self._bookmark_interval_s
                watch.mark()
                if loop.time() >= ends_s:
                    watch.end("clean")
        if watch.ending == "reset" and request.transport is not None:
            await response.write(b'{"type":"MODIFIED","object":{"kind":"P')
            request.transport.abort()
            raise ConnectionResetError
        if watch.ending == "expired":
            await response.write(watch.error(Refusal(410, "The resourceVersion is too old")))

    async def _send(self, response: web.StreamResponse, watch: Watch, lines: list[bytes]) -> None:
        faults = self.faults
        watch.recorded.events += len(lines)
        if faults.duplicates:
            lines = [line for line in lines for _ in range(1 + faults.duplicates)]
        data = b"".join(lines)
        for piece in pieces(data, faults.split_bytes, faults.random) if data else ():
            await response.write(piece)

    async def _control(self, request: web.BaseRequest) -> Any:
        """Do by HTTP what a test in this process does by a call."""
        name = request.path.removeprefix("/emulator/")
        if name not in self.controls:
            raise bad_request(f"the emulator has no {name}")
        result = self.controls[name](**msgspec.json.decode(await request.read() or b"{}"))
        return await result if isinstance(result, Awaitable) else result
