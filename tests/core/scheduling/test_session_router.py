"""Sessions through exchanges and a router: what a client is given leads it back."""

import pytest

from epp.core.claims import ClaimsOptions, ClaimsReader
from epp.core.exchange import Exchange
from epp.core.replies import HeadersReply, Phase
from epp.core.scheduling import NamedFilter, ProfileScheduler, SchedulingProfile

from ..support import Harness, RecordingStream, destination, headers
from .support import make

_BODY = b'{"model": "base", "prompt": "hello"}'


class _Clients:
    """A pool of four endpoints whose scheduler knows nothing but sessions."""

    def __init__(self, strategy: str) -> None:
        self.plugin = make("session-affinity-filter", {"strategy": strategy})
        profile = SchedulingProfile(
            "default", [NamedFilter("session", self.plugin)], (), make("random-picker")
        )
        self.harness = Harness(
            range(1, 5), scheduler=ProfileScheduler(profile, [self.plugin]), max_concurrency=2
        )
        self.claims = ClaimsReader(ClaimsOptions(wanted_headers=self.plugin.wanted_headers))

    def send(self, *given: tuple[bytes, bytes]) -> tuple[Exchange, RecordingStream, str]:
        """Send a request; return where it went."""
        harness, stream = self.harness, RecordingStream()
        exchange = Exchange(
            stream, lambda headers: harness.router, harness.exchange_limits, self.claims
        )
        exchange.request_headers(headers(*given), None, False, harness.now)
        exchange.request_body(_BODY, True, harness.now)
        reply = stream.take()[0]
        assert isinstance(reply, HeadersReply)
        assert reply.destination is not None
        return exchange, stream, reply.destination

    def answer(
        self,
        exchange: Exchange,
        stream: RecordingStream,
        status: int = 200,
        served_by: str | None = None,
    ) -> dict[bytes, bytes]:
        """Answer it; return the headers that the client is given besides the model server's."""
        exchange.response_headers(status, served_by, False, self.harness.now)
        (reply,) = stream.take()
        assert isinstance(reply, HeadersReply)
        assert reply.phase is Phase.RESPONSE
        exchange.response_body(b"{}", True, self.harness.now)
        exchange.closed(self.harness.now)
        return dict(reply.set_headers)


def test_a_client_that_brings_its_token_comes_to_the_same_endpoint() -> None:
    clients = _Clients("encoded_endpoint_header")
    tokens: dict[str, bytes] = {}
    for _ in range(40):
        exchange, stream, where = clients.send()
        token = clients.answer(exchange, stream)[b"x-session-token"]
        assert tokens.setdefault(where, token) == token
    assert len(set(tokens.values())) == len(tokens) == 4
    for where, token in list(tokens.items()) * 5:
        exchange, stream, again = clients.send((b"x-session-token", token))
        assert again == where
        assert clients.answer(exchange, stream)[b"x-session-token"] == token
    clients.harness.assert_at_rest()


@pytest.mark.parametrize("status", [200, 503])
def test_who_was_not_served_by_the_endpoint_gets_no_token_of_it(status: int) -> None:
    clients = _Clients("encoded_endpoint_header")
    exchange, stream, where = clients.send()
    other = next(destination(n) for n in range(1, 5) if destination(n) != where)
    served_by = other if status == 200 else None
    assert b"x-session-token" not in clients.answer(exchange, stream, status, served_by)


def test_a_client_that_names_its_session_comes_to_the_same_endpoint() -> None:
    clients = _Clients("session_id")
    places = {}
    for turn in range(5):
        for session in range(10):
            exchange, stream, where = clients.send((b"x-session-id", b"%d" % session))
            assert places.setdefault(session, where) == where, f"in turn {turn}"
            assert clients.answer(exchange, stream).keys() == {b"x-queue-wait-ms"}
    assert len(set(places.values())) > 1


def test_a_session_follows_the_proxy_to_who_really_served() -> None:
    clients = _Clients("session_id")
    exchange, stream, where = clients.send((b"x-session-id", b"a"))
    other = next(destination(n) for n in range(1, 5) if destination(n) != where)
    clients.answer(exchange, stream, served_by=other)
    for _ in range(5):
        exchange, stream, where = clients.send((b"x-session-id", b"a"))
        assert where == other
        clients.answer(exchange, stream)


def test_a_session_does_not_wait_for_its_endpoint_and_comes_back_to_it() -> None:
    clients = _Clients("session_id")
    running = [clients.send((b"x-session-id", b"a")) for _ in range(3)]
    where = [each[2] for each in running]
    assert where[0] == where[1] != where[2]
    for exchange, stream, _ in running:
        clients.answer(exchange, stream)
    assert clients.send((b"x-session-id", b"a"))[2] == where[0]
