"""The emulator as tests see it: what there is, what was asked, what goes wrong."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .access import Access
from .errors import not_found
from .events import served
from .faults import Fault, Faults
from .handling import Handler
from .kinds import find_kind
from .kubeconfig import Context, write_kubeconfig
from .listener import Listener
from .requests import Recorded
from .store import Object, Store

__all__ = ["ApiServer"]

_CONTROLS = (
    "bookmark",
    "break_off",
    "compact",
    "delay",
    "delete",
    "drop_watches",
    "duplicate_events",
    "expire_watches",
    "fail",
    "half_open",
    "install",
    "put",
    "split_chunks",
    "terminate",
    "uninstall",
)


class ApiServer:
    """A Kubernetes API server that exists as far as an EPP needs it, and fails on demand.

    ``async with ApiServer() as api`` listens on a port of its own; ``api.kubeconfig(directory)``
    writes the file that leads to it. It knows pods, services, events (both groups), leases, the
    kinds of the inference extension (:data:`~tests.apiserver.kinds.KINDS`), token reviews and
    subject access reviews. Namespaces exist as soon as they are named; there is no admission and
    no garbage collection; whoever has a token may do anything that no fault forbids.

    State: ``put`` creates or replaces an object with its status, as a cluster would come by it;
    ``delete`` takes it away at once, ``terminate`` begins to (a pod that is being stopped);
    ``get`` and ``items`` look; ``uninstall`` and ``install`` take a kind out and put it back.
    ``access`` has the tokens and rights, ``store`` the rest.

    ``requests`` is all that was asked for (:class:`~tests.apiserver.requests.Recorded`), in order;
    ``asked_for(verb, resource)`` a part of that; ``open_watches`` those that are under way.

    Faults: ``fail`` answers the requests that match with a status, ``delay`` later, ``break_off``
    not at all; ``drop_watches`` ends them, cleanly or in the middle of a chunk;
    ``expire_watches`` by an ERROR event; ``half_open`` leaves them open and silent; ``compact``
    forgets the past (what is older is expired: 410 for lists, an ERROR event for watches);
    ``bookmark`` sends one now; ``duplicate_events`` and ``split_chunks`` change how events come;
    ``stop`` and ``start`` take the server from its port and bring it back.

    ``bookmark_interval_s`` is how often watches get a bookmark, where they take any; one comes
    before the end of each watch as well. ``history_limit`` is how many changes of a kind are
    remembered.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        bookmark_interval_s: float = 60.0,
        history_limit: int = 20_000,
        seed: int = 0,
    ) -> None:
        self.store = Store(history_limit=history_limit)
        self.access = Access()
        self.faults = Faults(seed)
        self._handler = Handler(
            self.store, self.access, self.faults, bookmark_interval_s=bookmark_interval_s
        )
        self._handler.controls |= {name: getattr(self, name) for name in _CONTROLS}
        self._port = port
        self._listener = Listener(self._handler.handle)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._listener.close()

    # Where it is.

    @property
    def port(self) -> int:
        """The port, also while nobody listens on it."""
        return self._listener.port

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(
        self,
        directory: Path,
        *,
        name: str = "kubeconfig",
        context: str = "test",
        token: str = "",
        token_file: Path | None = None,
        namespace: str = "",
    ) -> Path:
        """Write a kubeconfig with one context and return its path."""
        told = Context(url=self.url, token=token, token_file=token_file, namespace=namespace)
        return write_kubeconfig(directory / name, {context: told})

    # What there is.

    def put(self, item: Object) -> Object:
        """Create or replace an object, with its status; no change is no event."""
        return self._handler.writer.put(find_kind(item["apiVersion"], item["kind"]), item)

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        known = find_kind(api_version, kind)
        found = self.store.get(known.storage, namespace, name)
        return served(known, found) if found else None

    def items(self, api_version: str, kind: str, namespace: str = "") -> list[Object]:
        """Return all objects of a kind."""
        known = find_kind(api_version, kind)
        return [served(known, item) for item in self.store.items(known.storage, namespace)]

    def delete(self, api_version: str, kind: str, namespace: str, name: str) -> None:
        """Take an object away, at once."""
        known = find_kind(api_version, kind)
        if self.store.get(known.storage, namespace, name) is None:
            raise not_found(known, name)
        self.store.remove(known.storage, namespace, name)

    def terminate(self, namespace: str, name: str, grace_s: int = 30) -> Object:
        """Begin to stop a pod."""
        pods = find_kind("v1", "Pod")
        found = self.store.get(pods.storage, namespace, name)
        if found is None:
            raise not_found(pods, name)
        return self._handler.writer.terminate(pods, found, grace_s)

    def uninstall(self, api_version: str, kind: str) -> None:
        """Delete a kind with all its objects, as when its CRD is deleted."""
        known = find_kind(api_version, kind)
        self._handler.absent.add(known.qualified)
        self.store.clear(known.storage)
        self.drop_watches(resource=known.plural, group=known.group)

    def install(self, api_version: str, kind: str) -> None:
        """Bring a kind back, without objects."""
        self._handler.absent.discard(find_kind(api_version, kind).qualified)

    # What was asked.

    @property
    def requests(self) -> list[Recorded]:
        """What was asked for, in order."""
        return self._handler.requests

    @property
    def controls(self) -> dict[str, Callable[..., Any]]:
        """What can be done over HTTP, by name; a process that embeds this may add to it."""
        return self._handler.controls

    @property
    def open_watches(self) -> list[Recorded]:
        """The watches that are under way."""
        return [watch.recorded for watch in self._handler.watches]

    def asked_for(self, verb: str, resource: str = "") -> list[Recorded]:
        """Return the requests with this verb, of this resource or of any."""
        return [r for r in self.requests if r.verb == verb and resource in ("", r.resource)]

    # What goes wrong.

    def fail(self, status: int, *, times: int | None = 1, **match: Any) -> Fault:
        """Answer so many matching requests (None: all) with a status.

        ``match`` and the answer's particulars are the fields of
        :class:`~tests.apiserver.faults.Fault`; so are they for the following.
        """
        return self.faults.add(Fault(status=status, times=times, **match))

    def delay(self, latency_s: float, *, times: int | None = None, **match: Any) -> Fault:
        """Answer matching requests so much later."""
        return self.faults.add(Fault(latency_s=latency_s, times=times, **match))

    def break_off(self, *, times: int | None = 1, **match: Any) -> Fault:
        """Break the connection of matching requests."""
        return self.faults.add(Fault(reset=True, times=times, **match))

    def drop_watches(
        self, *, reset: bool = False, resource: str = "", group: str | None = None
    ) -> int:
        """End the watches that are under way, and return how many there were."""
        chosen = [
            watch
            for watch in self._handler.watches
            if resource in ("", watch.asked.kind.plural) and group in (None, watch.asked.kind.group)
        ]
        for watch in chosen:
            watch.end("reset" if reset else "clean")
        return len(chosen)

    def expire_watches(self, *, resource: str = "") -> None:
        """End the watches that are under way with an ERROR event 410."""
        for watch in self._handler.watches:
            if resource in ("", watch.asked.kind.plural):
                watch.end("expired")

    def half_open(self, silent: bool = True) -> None:
        """Accept watches and send them nothing, or go on sending."""
        self.faults.silent = silent
        for watch in self._handler.watches:
            watch.wake.set()

    def compact(self) -> None:
        """Expire every version but the newest."""
        self.store.compact()

    def bookmark(self) -> None:
        """Send a bookmark to all watches that take any."""
        for watch in self._handler.watches:
            watch.mark()

    def duplicate_events(self, times: int = 1) -> None:
        """Send each event so many times more."""
        self.faults.duplicates = times

    def split_chunks(self, limit_bytes: int) -> None:
        """Cut what is sent to watches anywhere, into pieces of so many bytes at most; 0: not."""
        self.faults.split_bytes = limit_bytes

    async def stop(self) -> None:
        """Break all connections and refuse new ones, at the same port."""
        await self._listener.stop()

    async def start(self) -> None:
        """Listen, again on the port of before."""
        await self._listener.start(self._port)
