"""A flow control that evicts."""

from collections.abc import Iterable

from epp.core.flow import FlowOptions
from epp.core.request import Outcome

from ..support import Harness

__all__ = ["assert_at_rest", "evicting"]


def evicting(numbers: Iterable[int] = (1,), *, slots: int = 1, **options: object) -> Harness:
    chosen = {"eviction": True, **options}
    return Harness(
        numbers,
        options=FlowOptions(**chosen),  # type: ignore[arg-type]
        max_concurrency=slots,
    )


def assert_at_rest(harness: Harness) -> None:
    """Nothing is held any more, and each that ran has been settled."""
    flow = harness.router.flow
    assert harness.router.pool.total_in_flight == 0
    assert (flow.requests, flow.bytes, len(harness.timers)) == (0, 0, 0)
    assert not any(band.running for band in flow.bands())
    assert len(harness.recorder.settlements) == harness.recorder.outcomes[Outcome.DISPATCHED]
