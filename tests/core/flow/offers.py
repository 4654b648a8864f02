"""Short words for what the tests of the flow control do most."""

from epp.core.flow import Ticket
from epp.core.request import Outcome, Request

from ..support import Harness, RecordingWaiter, request

__all__ = ["many", "offer", "outcomes", "wait"]


def offer(
    harness: Harness, offered: Request, waiter: RecordingWaiter | None = None
) -> tuple[RecordingWaiter, Ticket]:
    """Offer a request."""
    waiter = waiter or RecordingWaiter()
    waiter.request = offered
    return waiter, harness.router.flow.offer(offered, waiter, harness.now)


def wait(harness: Harness, *offered: Request) -> list[RecordingWaiter]:
    """Offer requests that find no room."""
    waiters = [offer(harness, one)[0] for one in offered]
    assert outcomes(waiters) == [None] * len(waiters)
    return waiters


def many(count: int) -> list[Request]:
    """Return so many requests that are alike."""
    return [request() for _ in range(count)]


def outcomes(waiters: list[RecordingWaiter]) -> list[Outcome | None]:
    """Return what was decided on each."""
    return [waiter.outcome for waiter in waiters]
