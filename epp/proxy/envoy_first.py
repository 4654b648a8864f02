"""Envoy hears of new endpoints before the core does, where it reads them from a file (EDS)."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from epp.core.resources import Endpoint, EndpointChanges, PoolResources
from epp.discovery.source import ResourceListener
from epp.errors import UsageError
from epp.proxy.eds import write_eds

__all__ = ["EnvoyFirst"]

logger = logging.getLogger(__name__)

_LEAD_S: Final = 0.1
"""Envoy takes some milliseconds to take new endpoints in. Until then, what is dispatched to one of
them goes elsewhere or fails."""

_EVERY_S: Final = 0.25
"""The file is written no more often than this: it holds all endpoints, however few have changed."""


class EnvoyFirst:
    """Stands before a listener (:class:`~epp.discovery.source.ResourceListener`) and keeps the file
    ``path`` with the endpoints of all pools.

    Once it has started, what changes is passed on at once, but for endpoints that are new: they are
    written first, and follow a moment later.
    """

    def __init__(self, listener: ResourceListener, path: Path) -> None:
        self._listener = listener
        self._path = path
        self._wanted: dict[str, dict[str, Endpoint]] = {}
        self._held: dict[str, dict[str, Endpoint]] = {}
        self._known: set[str] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._is_started = False
        self._will_write = False
        self._written_s = 0.0

    def start(self) -> None:
        """Write the first state, which has been passed on as it came: nobody has asked for any of
        it yet. Raises UsageError where the file cannot be written."""
        self._write_file()
        self._known = {destination for wanted in self._wanted.values() for destination in wanted}
        self._is_started = True

    def stop(self) -> None:
        """Write no more, and pass on nothing that is held back."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # epp.discovery.source.ResourceListener

    def pool_applied(self, resources: PoolResources) -> None:
        """Pass the pool on without its new endpoints."""
        key = resources.pool.key
        wanted = {each.destination: each for each in resources.endpoints}
        self._wanted[key] = wanted
        if not self._is_started:
            self._listener.pool_applied(resources)
            return
        self._held[key] = {d: each for d, each in wanted.items() if d not in self._known}
        known = tuple(each for d, each in wanted.items() if d in self._known)
        self._listener.pool_applied(replace(resources, endpoints=known))
        self._write_soon()

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        """Pass the changes on without the new endpoints."""
        if not self._is_started:
            self._known.update(each.destination for each in changes.present)
        wanted = self._wanted[key]
        held = self._held.setdefault(key, {})
        for destination in changes.gone:
            wanted.pop(destination, None)
            held.pop(destination, None)
        known = []
        for endpoint in changes.present:
            destination = endpoint.destination
            wanted[destination] = endpoint
            if destination in self._known:
                known.append(endpoint)
            else:
                held[destination] = endpoint
        self._pass_on(key, EndpointChanges(present=tuple(known), gone=changes.gone))
        self._write_soon()

    def pool_gone(self, key: str) -> None:
        """Pass it on."""
        self._wanted.pop(key, None)
        self._held.pop(key, None)
        self._listener.pool_gone(key)
        self._write_soon()

    def rejected(self) -> None:
        """Pass it on."""
        self._listener.rejected()

    # The file

    def _write_soon(self) -> None:
        if self._will_write or not self._is_started:
            return
        self._will_write = True
        now = asyncio.get_running_loop().time()
        self._later(max(0.0, self._written_s + _EVERY_S - now), self._write)

    def _write(self) -> None:
        self._will_write = False
        self._written_s = asyncio.get_running_loop().time()
        try:
            self._write_file()
        except UsageError as error:
            logger.error("the endpoints could not be handed to Envoy: %s", error)
        self._known &= {d for wanted in self._wanted.values() for d in wanted}
        held, self._held = self._held, {}
        if any(held.values()):
            self._later(_LEAD_S, lambda: self._release(held))

    def _release(self, held: dict[str, dict[str, Endpoint]]) -> None:
        """Pass on what was held back, unless it has gone or changed since it was written."""
        for key, endpoints in held.items():
            wanted = self._wanted.get(key, {})
            present = tuple(e for d, e in endpoints.items() if wanted.get(d) is e)
            self._known.update(endpoint.destination for endpoint in present)
            self._pass_on(key, EndpointChanges(present=present))

    def _pass_on(self, key: str, changes: EndpointChanges) -> None:
        if changes.present or changes.gone:
            self._listener.endpoints_changed(key, changes)

    def _write_file(self) -> None:
        endpoints = [each for wanted in self._wanted.values() for each in wanted.values()]
        try:
            write_eds(self._path, endpoints)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"cannot write --eds-file {self._path}: {reason}") from error

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(timer)
