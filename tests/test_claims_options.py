"""The options of the claims reach the exchanges, of one process and of workers."""

from pathlib import Path

import pytest

from epp.config import ServeOptions
from epp.core.claim_sources import FromHeader
from epp.core.claims import ClaimsOptions
from epp.core.headers import Headers
from epp.core.replies import BodyMode, HeadersReply, Phase, Reply
from epp.service import Service
from epp.workers.worker import Worker, WorkerSeat


class _Stream:
    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def send(self, reply: Reply) -> None:
        self.replies.append(reply)

    def end(self) -> None:
        """Nothing is to be ended here."""


@pytest.mark.parametrize("place", ["one process", "worker"])
async def test_exchanges_read_claims_as_the_options_say(place: str, tmp_path: Path) -> None:
    claims = ClaimsOptions(fairness_id=(FromHeader(name="x-tenant", remove=True),))
    options = ServeOptions(manifests=(tmp_path,), claims=claims)
    stream = _Stream()
    if place == "worker":
        seat = WorkerSeat(number=0, restarts=0, core_address=b"")
        exchange = Worker(options, seat, lambda: None)._new_exchange(stream)
    else:
        exchange = Service(options)._new_exchange(stream)
    exchange.protocol(BodyMode.BUFFERED, BodyMode.NONE)
    exchange.request_headers(Headers([(b"x-tenant", b"acme")]), None, False, 0.0)
    assert stream.replies == [HeadersReply(Phase.REQUEST, remove_headers=(b"x-tenant",))]
    exchange.closed(0.0)
