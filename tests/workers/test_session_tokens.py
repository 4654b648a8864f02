"""The token of the endpoint that is picked in the core reaches the client of a worker."""

from epp.core.flow import FlowOptions
from epp.core.scheduling import NamedFilter, ProfileScheduler, SchedulingProfile

from ..core.scheduling.support import make
from .world import world


def test_tokens_are_made_in_the_core_and_come_with_the_destination() -> None:
    it = world(2, 1, 2, limit=2)
    plugin = make("session-affinity-filter")
    profile = SchedulingProfile("p", [NamedFilter("s", plugin)], (), make("random-picker"))
    it.router.reconfigure(
        scheduler=ProfileScheduler(profile, [plugin]),
        options=FlowOptions(),
        make_detector=None,
        now=it.now,
    )
    first = it.workers[0].admit()
    it.settle()
    assert first.route is not None
    ((name, token),) = first.route.response_headers
    assert name == b"x-session-token"
    second = it.workers[1].admit(headers={"x-session-token": token.decode()})
    it.settle()
    assert second.route == first.route
