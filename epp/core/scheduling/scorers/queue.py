"""``queue-scorer`` and ``running-requests-size-scorer``: the fewer requests the engine has, the
better, compared with the other candidates."""

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import PluginDefinition
from epp.core.scheduling.scorers.relative import lowest_best

__all__ = ["QUEUE_SCORER", "RUNNING_REQUESTS_SCORER", "QueueScorer", "RunningRequestsScorer"]


class QueueScorer:
    """``score = (longest - waiting) / (longest - shortest)`` over the candidates, 1 where all are
    equal. Source: the llm-d router's ``queue-scorer``, which takes the queue of the last scrape;
    here it is the effective one."""

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        return lowest_best(candidates.waiting)


class RunningRequestsScorer:
    """``score = (most - running) / (most - fewest)`` over the candidates, 1 where all are equal.
    Source: the llm-d router's ``running-requests-size-scorer``, which takes the batch of the last
    scrape; here it is the effective one."""

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        return lowest_best(candidates.running)


QUEUE_SCORER = PluginDefinition(
    type="queue-scorer",
    summary="Prefers endpoints with few requests in the engine's own queue.",
    make=lambda parameters, context: QueueScorer(),
)

RUNNING_REQUESTS_SCORER = PluginDefinition(
    type="running-requests-size-scorer",
    summary="Prefers endpoints with few requests in the engine's batch.",
    make=lambda parameters, context: RunningRequestsScorer(),
)
