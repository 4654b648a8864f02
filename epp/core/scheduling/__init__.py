"""Where a request goes: the pick among the candidates that have room."""

from epp.core.scheduling.candidates import Candidates, Producer, Slots
from epp.core.scheduling.explanation import Explanation, FilterStep, ScorerStep
from epp.core.scheduling.handlers import ProfileHandler
from epp.core.scheduling.least_loaded import least_loaded
from epp.core.scheduling.plugin import Filter, Observer, Picker, Scorer
from epp.core.scheduling.profile import NamedFilter, SchedulingProfile, WeightedScorer
from epp.core.scheduling.scheduler import LeastLoaded, ProfileScheduler, Scheduler

__all__ = [
    "Candidates",
    "Explanation",
    "Filter",
    "FilterStep",
    "LeastLoaded",
    "NamedFilter",
    "Observer",
    "Picker",
    "Producer",
    "ProfileHandler",
    "ProfileScheduler",
    "Scheduler",
    "SchedulingProfile",
    "Scorer",
    "ScorerStep",
    "Slots",
    "WeightedScorer",
    "least_loaded",
]
