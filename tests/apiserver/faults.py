"""What can be made to go wrong."""

import random
from collections.abc import Iterator

import msgspec

from .requests import Recorded

__all__ = ["Fault", "Faults", "pieces"]


class Fault(msgspec.Struct, kw_only=True):
    """Something that befalls the requests that match: all of what is given must hold.

    ``times`` is how many requests it befalls at most, None any number; ``hits`` how many it did.
    A ``status`` is answered in place of what was asked for; an answer without one is only late by
    ``latency_s``. ``reset`` breaks the connection instead of answering.
    """

    verb: str | None = None
    resource: str | None = None
    namespace: str | None = None
    name: str | None = None
    times: int | None = None
    status: int | None = None
    reason: str | None = None
    message: str | None = None
    retry_after_s: int | None = None
    latency_s: float = 0.0
    reset: bool = False
    hits: int = 0

    def matches(self, request: Recorded) -> bool:
        """Return whether this request is one of those."""
        wanted = (self.verb, self.resource, self.namespace, self.name)
        found = (request.verb, request.resource, request.namespace, request.name)
        return self.times != 0 and all(
            want is None or want == have for want, have in zip(wanted, found, strict=True)
        )

    def hit(self) -> None:
        """Count a request."""
        self.hits += 1
        if self.times is not None:
            self.times -= 1

    def cancel(self) -> None:
        """Let it befall nobody any more."""
        self.times = 0


class Faults:
    """All faults that are set; :class:`~tests.apiserver.server.ApiServer` has the ways to set them.

    ``silent``: watches are accepted, and stay open, but nothing more is sent, as over a connection
    that is half open. ``duplicates``: how often each event is repeated. ``split``: bytes of each
    chunk at most, at random between 1 and that, 0 for whole lines.
    """

    def __init__(self, seed: int = 0) -> None:
        self.rules: list[Fault] = []
        self.silent = False
        self.duplicates = 0
        self.split_bytes = 0
        self.random = random.Random(seed)

    def add(self, fault: Fault) -> Fault:
        """Set a fault."""
        self.rules = [rule for rule in self.rules if rule.times != 0]
        self.rules.append(fault)
        return fault

    def take(self, request: Recorded) -> Iterator[Fault]:
        """Give the faults that befall a request, in the order in which they were set."""
        for rule in self.rules:
            if rule.matches(request):
                rule.hit()
                yield rule


def pieces(data: bytes, limit_bytes: int, chance: random.Random) -> Iterator[bytes]:
    """Cut data into pieces of 1 to ``limit_bytes`` bytes; 0 leaves it whole."""
    if not limit_bytes:
        yield data
        return
    at = 0
    while at < len(data):
        size = chance.randint(1, limit_bytes)
        yield data[at : at + size]
        at += size
