"""The pick of an endpoint among candidates.

A scheduler decides *where*, never *when*: whether a request may go was decided before, by the mask
that it is handed.
"""

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol

import numpy as np

from epp.core.pool import Mask, Pool
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.explanation import Explanation
from epp.core.scheduling.few import FEW
from epp.core.scheduling.handlers import ProfileHandler, SingleProfileHandler
from epp.core.scheduling.least_loaded import least_loaded
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.profile import SchedulingProfile

__all__ = ["LeastLoaded", "ProfileScheduler", "Scheduler"]


class Scheduler(Protocol):
    """Chooses the slot for a request, and hears what becomes of it."""

    @property
    def observers(self) -> Iterable[Observer]:
        """Who is told of leases, endings and endpoints."""
        ...

    def kinds_follow(self, pool: Pool) -> Hashable:
        """Return what the kinds of requests go by: as long as it is equal, so are they."""
        ...

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        """Return slots of ``mask`` (shape ``(slots,)``), the one that is picked and those to fall
        back to in order; empty where it picks none."""
        ...

    def kind(self, request: Request, pool: Pool) -> Hashable:
        """Return what is the same for requests of which none can go where another cannot, among
        the same candidates and as long as the pool has the same endpoints."""
        ...

    def usable(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Mask:
        """Return those of ``mask`` that could be picked if they had room."""
        ...

    def explain(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Explanation | None:
        """Do the same as :meth:`pick` and tell how it came about, without any consequence; None
        where it cannot tell."""
        ...


class LeastLoaded:
    """Picks the candidate that is used least, in flight by limit, ties by chance."""

    observers: tuple[Observer, ...] = ()

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        """Return the least loaded slot of ``mask``; empty where the mask is."""
        slot = least_loaded(pool, mask, rng)
        return () if slot is None else (slot,)

    def kind(self, request: Request, pool: Pool) -> Hashable:
        """Return None: all requests are alike."""
        return None

    def kinds_follow(self, pool: Pool) -> Hashable:
        """Return None: they are whatever the pool is."""
        return None

    def usable(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Mask:
        """Return the mask."""
        return mask

    def explain(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Explanation | None:
        """Return None: it looks at one number."""
        return None


class ProfileScheduler:
    """Runs one of several scheduling profiles, which ``handler`` chooses for each request.

    ``profiles`` may be a single one. ``observers`` are the plugins that want to hear of its picks,
    each once; a handler that is one is put before them. Raises ValueError where the handler cannot
    work with the profiles.

    ``on_failure`` is called with what a plugin raises, which may be somebody else's. If it returns,
    the request is picked the endpoint that is used least: traffic does not stop for it.
    """

    def __init__(
        self,
        profiles: SchedulingProfile | Sequence[SchedulingProfile],
        observers: Iterable[Observer] = (),
        handler: ProfileHandler | None = None,
    ) -> None:
        several = [profiles] if isinstance(profiles, SchedulingProfile) else profiles
        self.profiles = {profile.name: profile for profile in several}
        self.handler = handler or SingleProfileHandler()
        self.handler.check(self.profiles)
        listens = (self.handler,) if isinstance(self.handler, Observer) else ()
        self.observers = tuple(dict.fromkeys((*listens, *observers)))
        self.on_failure: Callable[[Exception], None] = _raise

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        """Return what the profile picks that is for the request; empty where none is."""
        try:
            profile = self.handler.choose(request, self.profiles)
            if profile is None:
                return ()
            if len(mask) <= FEW:
                few = [slot for slot, is_candidate in enumerate(mask.tolist()) if is_candidate]
                picked = profile.pick_of_few(request, pool, few, now, rng) if few else ()
                if picked is not None:
                    return picked
            slots = mask.nonzero()[0]
            if not len(slots):
                return ()
            return profile.pick(Candidates(request, pool, slots, now, rng))
        except Exception as error:
            self.on_failure(error)
        slot = least_loaded(pool, mask, rng)
        return () if slot is None else (slot,)

    def kind(self, request: Request, pool: Pool) -> Hashable:
        """Return the name of the request's profile, and what its filters make of the request."""
        try:
            profile = self.handler.choose(request, self.profiles)
            return None if profile is None else (profile.name, profile.kinds(request, pool))
        except Exception as error:
            self.on_failure(error)
        return None

    def kinds_follow(self, pool: Pool) -> Hashable:
        """Return what the filters of all profiles go by."""
        return tuple([profile.kinds_follow(pool) for profile in self.profiles.values()])

    def usable(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Mask:
        """Return what the filters leave, and what they would leave of the others alone: some
        filters prefer endpoints, and take others where these have no room."""
        usable = np.zeros_like(mask)
        try:
            profile = self.handler.choose(request, self.profiles)
            if profile is None:
                return usable
            if not profile.filters:
                return mask
            for _ in range(2):
                rest = Candidates(request, pool, (mask & ~usable).nonzero()[0], now, rng)
                usable[profile.filtered(rest).slots] = True
        except Exception as error:
            self.on_failure(error)
            return mask
        return usable

    def explain(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Explanation | None:
        """Return how that profile would pick; None where there is none."""
        profile = self.handler.choose(request, self.profiles)
        if profile is None:
            return None
        return profile.explain(Candidates(request, pool, mask.nonzero()[0], now, rng))


def _raise(error: Exception) -> None:
    raise error
