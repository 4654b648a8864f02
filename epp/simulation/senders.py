"""Who sends requests: open processes, closed loops of clients, traces."""

import random
from collections.abc import Iterator
from typing import Protocol

import msgspec

from epp.core.claims import RequestClaims
from epp.simulation.arrivals import arrival_times
from epp.simulation.events import Events
from epp.simulation.fleet import objective_name
from epp.simulation.scenario import ClosedLoop, Retries, Tenant
from epp.simulation.texts import Ask, Writer, prefix_hashes
from epp.simulation.trace import Trace, TraceRow

__all__ = ["ClosedSender", "Flow", "OpenSender", "Sender", "Site", "TraceSender"]

_BYTES_PER_TOKEN = 4
_LEAST_PAUSE_S = 1.0


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one tenant at one priority claim, and how their clients retry.

    ``tenant`` is the tenant's index in the result.
    """

    tenant: int
    name: str
    priority: int = 0
    model: str = ""
    max_tokens: int | None = None
    wait_limit_s: float | None = None
    slo_ttft_s: float | None = None
    retries: Retries = Retries()

    def claims(self, row: int, ask: Ask) -> RequestClaims:
        """Return the claims of the request with this number."""
        return RequestClaims(
            id=str(row),
            objective=objective_name(self.priority),
            fairness_id=self.name,
            wait_limit_s=self.wait_limit_s,
            model=self.model if ask.adapter is None else ask.adapter,
            body_bytes=ask.prompt_tokens * _BYTES_PER_TOKEN,
            prompt_tokens=ask.prompt_tokens,
            max_output_tokens=self.max_tokens,
            slo_ttft_s=self.slo_ttft_s,
            prefix=prefix_hashes(ask.text, ask.prompt_tokens),
        )


class Site(Protocol):
    """Where requests are sent to."""

    events: Events

    def send(self, sender: "Sender", flow: Flow, ask: Ask, now: float) -> None:
        """Send a request; ``sender`` is told when it is over."""


class Sender(Protocol):
    """Sends requests of its own accord, from :meth:`begin` on."""

    def begin(self) -> None:
        """Schedule the first."""

    def over(self, retry_after_s: float, now: float) -> None:
        """A request is over, served or refused for good; ``retry_after_s`` is the advice to one
        that was refused, else 0."""


class _TenantSender:
    """Sends the conversations of a tenant as the client of each of their requests."""

    def __init__(
        self, site: Site, tenant: Tenant, flow: Flow, writer: Writer, seed: str, duration_s: float
    ) -> None:
        self._site = site
        self._flow = flow
        self._stop_s = duration_s if tenant.stop_s is None else min(tenant.stop_s, duration_s)
        self._start_s = tenant.start_s
        self._writer = writer

    def over(self, retry_after_s: float, now: float) -> None:
        """A conversation is over."""

    def _send(self, now: float) -> None:
        asks = self._writer.conversation()
        self._site.send(_Conversation(self, iter(asks[1:])), self._flow, asks[0], now)

    def go_on(self, sender: "Sender", ask: Ask, time_s: float) -> bool:
        """Send another request of a conversation then, unless the tenant has stopped by then."""
        if time_s >= self._stop_s:
            return False
        self._site.events.schedule(
            time_s, lambda now: self._site.send(sender, self._flow, ask, now)
        )
        return True


class _Conversation:
    """The client of all requests of a conversation. One that is refused is its last."""

    def __init__(self, tenant: _TenantSender, asks: Iterator[Ask]) -> None:
        self._tenant = tenant
        self._asks = asks

    def begin(self) -> None:
        """Do nothing: the first request has been sent."""

    def over(self, retry_after_s: float, now: float) -> None:
        """Think about the answer and send the next request."""
        ask = None if retry_after_s else next(self._asks, None)
        if ask is None or not self._tenant.go_on(self, ask, now + ask.think_s):
            self._tenant.over(retry_after_s, now)


class OpenSender(_TenantSender):
    """Sends by an open process: whatever becomes of the requests, the next one comes."""

    def __init__(
        self, site: Site, tenant: Tenant, flow: Flow, writer: Writer, seed: str, duration_s: float
    ) -> None:
        super().__init__(site, tenant, flow, writer, seed, duration_s)
        if isinstance(tenant.arrivals, ClosedLoop):
            raise AssertionError("a closed loop has no times of arrival")
        self._times = arrival_times(
            tenant.arrivals, tenant.start_s, random.Random(f"{seed}/arrivals")
        )

    def begin(self) -> None:
        """Schedule the next request, if there is one."""
        time_s = next(self._times, None)
        if time_s is not None and time_s < self._stop_s:
            self._site.events.schedule(time_s, self._arrive)

    def _arrive(self, now: float) -> None:
        self._send(now)
        self.begin()


class ClosedSender(_TenantSender):
    """Clients that send the next request when the one before is over."""

    def __init__(
        self, site: Site, tenant: Tenant, flow: Flow, writer: Writer, seed: str, duration_s: float
    ) -> None:
        super().__init__(site, tenant, flow, writer, seed, duration_s)
        if not isinstance(tenant.arrivals, ClosedLoop):
            raise AssertionError("only a closed loop has clients")
        self._clients = tenant.arrivals.clients
        self._think_s = tenant.arrivals.think_s

    def begin(self) -> None:
        """Have every client send its first request."""
        for _ in range(self._clients):
            self._next(self._start_s)

    def over(self, retry_after_s: float, now: float) -> None:
        """Have the client go on."""
        pause_s = max(retry_after_s, _LEAST_PAUSE_S) if retry_after_s else self._think_s
        self._next(now + pause_s)

    def _next(self, time_s: float) -> None:
        if time_s < self._stop_s:
            self._site.events.schedule(time_s, self._ask)

    def _ask(self, now: float) -> None:
        self._send(now)


class TraceSender:
    """Sends what a trace says; ``flows`` has the flow of each tenant and priority."""

    def __init__(
        self, site: Site, trace: Trace, flows: dict[tuple[str, int], Flow], duration_s: float
    ) -> None:
        self._site = site
        self._flows = flows
        self._duration_s = duration_s
        self._rows: Iterator[TraceRow] = iter(trace.rows)

    def begin(self) -> None:
        """Schedule the next request, if there is one."""
        row = next(self._rows, None)
        if row is None or row.arrival_s > self._duration_s:
            return

        def arrive(now: float) -> None:
            flow = self._flows[row.tenant, row.priority]
            self._site.send(self, flow, Ask(row.prompt_tokens, row.output_tokens), now)
            self.begin()

        self._site.events.schedule(row.arrival_s, arrive)

    def over(self, retry_after_s: float, now: float) -> None:
        """Do nothing."""
