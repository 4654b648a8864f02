"""The scheduling profile that runs where a configuration names none."""

from epp.core.scheduling.pickers.max_score import MaxScorePicker
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.core.scheduling.profile import SchedulingProfile, WeightedScorer
from epp.core.scheduling.scheduler import ProfileScheduler
from epp.core.scheduling.scorers.first_token import FirstTokenOptions, FirstTokenScorer

__all__ = ["default_scheduler"]


def default_scheduler(options: FirstTokenOptions | None = None) -> ProfileScheduler:
    """Return a scheduler for one pool: the endpoint that gives the first token soonest."""
    cache = PrefixCache()
    scorer = FirstTokenScorer(cache, options or FirstTokenOptions())
    profile = SchedulingProfile(
        "default", (), [WeightedScorer("first-token-scorer", scorer)], MaxScorePicker()
    )
    # The cache first: the scorer reads what it has noted of a lease.
    return ProfileScheduler(profile, observers=(cache, scorer))
