"""DNS names → IP addresses, kept fresh, the last good ones held on to."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from ipaddress import ip_address
from types import MappingProxyType

from epp.discovery.hosts import canonical_ip

__all__ = ["Lookup", "Resolver", "system_lookup"]

logger = logging.getLogger(__name__)

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a DNS name, or raises :class:`OSError`."""


async def system_lookup(name: str) -> Sequence[str]:
    """Look a name up as the operating system does: hosts file, search domains, DNS."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Resolver:
    """The addresses of a changing set of names.

    Where a name has IPv4 and IPv6 addresses, the IPv4 ones are taken: as a rule both lead to the
    same servers, and a server counted twice would get twice its load. A failed lookup changes
    nothing: a server that still answers must not be dropped because a name server does not.

    ``timeout_s`` bounds one :meth:`refresh`. ``concurrency`` bounds the lookups under way, also
    those that nobody waits for any more, because each occupies a thread of the event loop's pool
    until the operating system gives up. ``on_failure`` is called with the name at every lookup that
    failed.
    """

    def __init__(
        self,
        *,
        lookup: Lookup = system_lookup,
        timeout_s: float = 5.0,
        concurrency: int = 4,
        on_failure: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._lookup = lookup
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(concurrency)
        self._on_failure = on_failure
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._failures: dict[str, str] = {}
        self._lookups: dict[str, asyncio.Task[Sequence[str]]] = {}

    @property
    def addresses(self) -> Mapping[str, tuple[str, ...]]:
        """Canonical IP addresses, sorted, of every name that has ever been found."""
        return MappingProxyType(self._addresses)

    async def refresh(self, names: Set[str], *, only_new: bool = False) -> bool:
        """Look the names up, in parallel, forget all others, and tell if any addresses changed.

        With ``only_new`` names that were looked up before keep what came of it. Never raises for a
        lookup's failure. A lookup that outlasts the timeout goes on; the next refresh collects it.
        """
        before = dict(self._addresses)
        self._forget_all_but(names)
        wanted = sorted(
            name
            for name in names
            if not only_new or (name not in self._addresses and name not in self._failures)
        )
        for name in wanted:
            if name not in self._lookups:
                self._lookups[name] = asyncio.create_task(self._look_up(name))
        if wanted:
            await asyncio.wait([self._lookups[name] for name in wanted], timeout=self._timeout_s)
        for name in wanted:
            self._collect(name)
        return self._addresses != before

    def close(self) -> None:
        """Give up the lookups under way."""
        for task in self._lookups.values():
            task.cancel()
        self._lookups.clear()

    def _forget_all_but(self, names: Set[str]) -> None:
        for known in (self._addresses, self._failures):
            for name in known.keys() - names:
                del known[name]
        for name in self._lookups.keys() - names:
            # One that is under way keeps its slot until it ends: its thread cannot be stopped.
            if self._lookups[name].done():
                self._lookups.pop(name).exception()

    async def _look_up(self, name: str) -> Sequence[str]:
        async with self._slots:
            return await self._lookup(name)

    def _collect(self, name: str) -> None:
        if not self._lookups[name].done():
            self._fail(name, f"no answer within {self._timeout_s:g} s")
            return
        task = self._lookups.pop(name)
        if error := task.exception():
            self._fail(name, str(error) or type(error).__name__)
        elif addresses := _usable(task.result()):
            self._succeed(name, addresses)
        else:
            self._fail(name, "the answer has no address that can be used")

    def _succeed(self, name: str, addresses: tuple[str, ...]) -> None:
        recovered = self._failures.pop(name, None) is not None
        if recovered or addresses != self._addresses.get(name):
            logger.info("name resolved: %s: %s", name, ", ".join(addresses))
        self._addresses[name] = addresses

    def _fail(self, name: str, reason: str) -> None:
        if self._failures.get(name) != reason:
            kept = ", ".join(self._addresses.get(name, ())) or "none"
            logger.warning("name not resolved: %s: %s; addresses kept: %s", name, reason, kept)
        self._failures[name] = reason
        self._on_failure(name)


def _usable(found: Sequence[str]) -> tuple[str, ...]:
    addresses = {ip_address(address) for text in found if (address := canonical_ip(text))}
    version = min((address.version for address in addresses), default=4)
    same_version = [address for address in addresses if address.version == version]
    return tuple(str(address) for address in sorted(same_version, key=int))
