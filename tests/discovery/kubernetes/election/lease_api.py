"""An API server in virtual time that knows one Lease, for any number of connections to it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import msgspec

from epp.discovery.kubernetes.api.errors import ApiError, ApiUnreachable, StreamBroken

LATENCY_S = 0.005


class LeaseApi:
    """``lease`` is what there is; what is asked is in ``asked``, by verb."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 10
        self.asked: list[str] = []
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self.changed = asyncio.Event()

    @property
    def holder(self) -> str:
        return "" if self.lease is None else self.lease["spec"].get("holderIdentity", "")

    def store(self, lease: dict[str, Any], kind: str = "MODIFIED") -> dict[str, Any]:
        self.version += 1
        lease["metadata"]["resourceVersion"] = str(self.version)
        self.lease = None if kind == "DELETED" else lease
        self.history.append((self.version, kind, lease))
        self.changed.set()
        self.changed = asyncio.Event()
        return lease

    def delete(self) -> None:
        assert self.lease is not None
        self.store(msgspec.json.decode(msgspec.json.encode(self.lease)), "DELETED")


class LeaseConnection:
    """As :class:`~epp.discovery.kubernetes.api.connection.ClusterConnection`.

    ``is_cut``: nothing is answered. ``is_silent``: its watches tell nothing; a
    change of ``generation`` does that to those that are open. ``refuses``: verbs that are answered
    with a status.
    """

    def __init__(self, api: LeaseApi) -> None:
        self.api = api
        self.is_cut = False
        self.is_silent = False
        self.generation = 0
        self.refuses: dict[str, int] = {}

    async def get(
        self, path: str, params: Mapping[str, str] | None = None, *, verb: str = "get"
    ) -> bytes:
        await self._ask(verb)
        lease = self.api.lease
        if verb == "list":
            items = [] if lease is None else [lease]
            metadata = {"resourceVersion": str(self.api.version)}
            return msgspec.json.encode({"metadata": metadata, "items": items})
        if lease is None:
            raise ApiError(f"GET {path}", 404, "NotFound")
        return msgspec.json.encode(lease)

    async def create(self, path: str, body: object) -> bytes:
        await self._ask("create")
        if self.api.lease is not None:
            raise ApiError(f"POST {path}", 409, "AlreadyExists")
        return msgspec.json.encode(self.api.store(_plain(body), "ADDED"))

    async def replace(self, path: str, body: object) -> bytes:
        await self._ask("update")
        lease, known = _plain(body), self.api.lease
        if known is None:
            raise ApiError(f"PUT {path}", 404, "NotFound")
        if lease["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
            raise ApiError(f"PUT {path}", 409, "Conflict")
        return msgspec.json.encode(self.api.store(lease))

    async def stream(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        idle_limit_s: float = 90.0,
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        await self._ask("watch")
        assert params is not None
        if on_open is not None:
            on_open()
        told, generation = int(params["resourceVersion"]), self.generation
        while True:
            changed = self.api.changed
            is_silent = self.is_silent or generation != self.generation
            for version, kind, lease in list(self.api.history):
                if version > told and not is_silent:
                    told = version
                    yield msgspec.json.encode({"type": kind, "object": lease})
            if is_silent:
                await asyncio.sleep(idle_limit_s)
                raise StreamBroken("silent")
            await changed.wait()
            await asyncio.sleep(LATENCY_S)
            if self.is_cut:
                raise StreamBroken("cut")

    async def _ask(self, verb: str) -> None:
        self.api.asked.append(verb)
        await asyncio.sleep(LATENCY_S)
        if self.is_cut:
            raise ApiUnreachable("nobody answers")
        if verb in self.refuses:
            raise ApiError(verb, self.refuses[verb], "Refused", "so it is")


def _plain(body: object) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    return plain
