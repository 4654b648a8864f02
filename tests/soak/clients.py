"""Clients that ask for a turn, stream a response, and go away whenever they like."""

import random

from epp.core.claims import RequestClaims
from epp.core.exchange import Exchange
from epp.core.gate import Ending, Route
from epp.core.headers import Headers
from epp.core.replies import BodyMode
from epp.core.request import Outcome
from epp.core.router import Router, RouterAdmission

from ..core.proxy_model import HalfPlan, ProxyModel
from ..core.support import RecordingStream, destination

__all__ = ["Client", "GateClient", "StreamClient"]


class Client:
    """One request, from its arrival until nobody knows of it any more."""

    is_over = False

    @property
    def destination(self) -> str | None:
        """Where the request runs, None where it does not."""
        raise NotImplementedError

    def brings(self, rng: random.Random, now: float) -> None:
        """Some of the response has come."""
        raise NotImplementedError

    def moves(self, number: int, now: float) -> None:
        """The proxy has failed over to the endpoint of this number."""

    def ends(self, rng: random.Random, now: float) -> None:
        """The response has come to its end."""
        raise NotImplementedError

    def leaves(self, now: float) -> None:
        """The client is gone, wherever its request stands."""
        raise NotImplementedError


class GateClient(Client):
    """A client right at the gate, whose responses tell their tokens."""

    def __init__(self, router: Router, claims: RequestClaims, now: float) -> None:
        self._router = router
        self._since_s = now
        self._destination: str | None = None
        self._output_tokens = 0
        self._is_evicted = False
        self.outcome: Outcome | None = None
        self._admission: RouterAdmission = router.admit(claims, self, now)

    @property
    def destination(self) -> str | None:
        return None if self.is_over else self._destination

    # epp.core.gate.GateWaiter

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        assert self.outcome is None, "a second outcome"
        assert waited_s >= 0
        self.outcome = Outcome.DISPATCHED
        self._destination = route.destination

    def passed(self, destination: str, now: float) -> None:
        raise AssertionError("an inference request was let pass")

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        assert self.outcome is None, "a second outcome"
        assert 1 <= retry_after_s <= 300
        self.outcome = outcome
        self.is_over = True

    def evicted(self, retry_after_s: int, now: float) -> None:
        assert self.outcome is Outcome.DISPATCHED, "evicted, and does not run"
        assert 1 <= retry_after_s <= 300
        self._is_evicted = True

    # What happens

    def brings(self, rng: random.Random, now: float) -> None:
        self._output_tokens += rng.randint(1, 300)
        self._router.progress(self._admission, self._output_tokens, now)

    def moves(self, number: int, now: float) -> None:
        self._router.served_by(self._admission, destination(number), now)

    def ends(self, rng: random.Random, now: float) -> None:
        self._finish(
            "evicted" if self._is_evicted else "complete", rng.choice([200, 200, 500]), now
        )

    def leaves(self, now: float) -> None:
        if self.is_over:
            return
        if self._admission.is_waiting:
            self.is_over = True
            self._router.withdraw(self._admission, now)
        else:
            self._finish("aborted", 0, now)

    def _finish(self, cause: str, status: int, now: float) -> None:
        self.is_over = True
        tells = self._output_tokens > 0
        ending = Ending(
            status=status,
            cause=cause,
            duration_s=now - self._since_s,
            response_bytes=None,
            first_byte_s=0.1 if tells else None,
            output_tokens=self._output_tokens if tells else None,
        )
        self._router.finish(self._admission, ending, now)


class StreamClient(Client):
    """A client behind a proxy: a whole ext_proc conversation."""

    def __init__(
        self,
        exchange: Exchange,
        stream: RecordingStream,
        headers: Headers,
        subset: frozenset[str] | None,
        rng: random.Random,
        now: float,
    ) -> None:
        mode = BodyMode.FULL_DUPLEX_STREAMED
        body = HalfPlan(mode=mode, sizes=(rng.randint(1, 2_000),), start=rng.randint(0, 9))
        chunks = tuple(rng.randint(1, 200) for _ in range(rng.randint(1, 6)))
        response = HalfPlan(mode=rng.choice([mode, BodyMode.NONE]), sizes=chunks)
        self._proxy = ProxyModel(exchange, stream, body, response, headers=headers, subset=subset)
        while self._proxy.may_send_request:
            self._proxy.send_request(now)
            self._look()
        self._look()

    @property
    def destination(self) -> str | None:
        if not self.is_over:
            self._look()
        told = self._proxy.request.destinations
        return told[0] if told and not self.is_over else None

    def brings(self, rng: random.Random, now: float) -> None:
        if self._proxy.may_send_response:
            self._proxy.send_response(now)
            self._look()

    def moves(self, number: int, now: float) -> None:
        if self._proxy.may_send_response and not self._proxy.response.sent:
            self._proxy.send_response(now, 200, destination(number))
            self._look()

    def ends(self, rng: random.Random, now: float) -> None:
        while self._proxy.may_send_response:
            self.brings(rng, now)
        self.leaves(now)

    def leaves(self, now: float) -> None:
        self._look()
        if not self.is_over:
            self.is_over = True
            self._proxy.close(now)
            self._look()

    def _look(self) -> None:
        self._proxy.check()
        if not self.is_over and self._proxy.immediate is not None:
            self.is_over = True
            self._proxy.close(0.0)
