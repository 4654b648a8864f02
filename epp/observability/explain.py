"""Why a request would go where: the pick of this moment, told and not done."""

import math
from typing import Any

import msgspec

from epp.core.claims import RequestClaims
from epp.core.objectives import DEFAULT_PRIORITY
from epp.core.pool import Pool
from epp.core.router import DEFAULT_FAIRNESS_ID, Router
from epp.core.scheduling import Explanation

__all__ = ["CandidateAnswer", "PickAnswer", "ScoreAnswer", "explain_pick"]


class ScoreAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one scorer says of one endpoint; ``parts`` is what the score is made of."""

    scorer: str
    score: float
    weight: float
    parts: dict[str, float] = {}


class CandidateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. Its fate is ``picked``, ``fallback``, ``outscored``, ``filtered`` by the filter
    that ``by`` names, ``no room`` or ``not in subset``."""

    endpoint: str
    destination: str
    fate: str
    by: str = ""
    in_flight: int = 0
    limit: int = 0
    waiting: float | None = None
    running: float | None = None
    kv_ratio: float | None = None
    total: float | None = None
    scores: list[ScoreAnswer] = []


class PickAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer: what the request is taken for, and the endpoints, the best first. ``pool``
    is the pool's ``namespace/name``, empty where it cannot be told which one it is."""

    model: str
    priority: int
    fairness_id: str
    prompt_tokens: int
    profile: str = ""
    picker: str = ""
    verdict: str = ""
    candidates: list[CandidateAnswer] = []
    pool: str = ""


def explain_pick(router: Router | None, claims: RequestClaims, now: float) -> PickAnswer:
    """Return what would become of a request that came now, without any consequence. ``router`` is
    None where no pool is for it."""
    if router is None:
        return PickAnswer(
            model=claims.model,
            priority=DEFAULT_PRIORITY,
            fairness_id=claims.fairness_id or DEFAULT_FAIRNESS_ID,
            prompt_tokens=claims.prompt_tokens,
            verdict="Nothing is picked: no pool is served that the request is for.",
        )
    request = router.resolve(claims)
    found = router.explain_pick(request, now)
    candidates = _candidates(router.pool, claims, found)
    return PickAnswer(
        model=request.model,
        priority=request.flow.priority,
        fairness_id=request.flow.fairness_id,
        prompt_tokens=request.prompt_tokens,
        profile=found.profile if found else "",
        picker=found.picker if found else "",
        verdict=_verdict(candidates, found),
        candidates=candidates,
        pool=router.spec.key if router.spec else "",
    )


def _candidates(
    pool: Pool, claims: RequestClaims, found: Explanation | None
) -> list[CandidateAnswer]:
    answers = [_candidate(pool, slot, claims, found) for slot in pool.active.nonzero()[0].tolist()]
    order = {"picked": 0, "fallback": 1, "outscored": 2}
    return sorted(
        answers, key=lambda each: (order.get(each.fate, 3), -(each.total or 0.0), each.endpoint)
    )


def _candidate(
    pool: Pool, slot: int, claims: RequestClaims, found: Explanation | None
) -> CandidateAnswer:
    endpoint = pool.endpoint(slot)
    load = pool.told(slot)
    own: dict[str, Any] = {
        "endpoint": endpoint.name,
        "destination": endpoint.destination,
        "in_flight": int(pool.in_flight[slot]),
        "limit": int(pool.limit[slot]),
        "waiting": _number(load.waiting if load else None),
        "running": _number(load.running if load else None),
        "kv_ratio": _number(load.kv_ratio if load else None),
    }
    if found is None or slot not in found.considered:
        is_left_out = claims.subset is not None and endpoint.destination not in claims.subset
        return CandidateAnswer(fate="not in subset" if is_left_out else "no room", **own)
    for step in found.filters:
        if slot in step.dropped:
            return CandidateAnswer(fate="filtered", by=step.name, **own)
    index = found.scored.index(slot)
    fate = "outscored"
    if slot in found.picked:
        fate = "fallback" if found.picked.index(slot) else "picked"
    scores = [
        ScoreAnswer(
            scorer=step.name,
            score=step.scores[index],
            weight=step.weight,
            parts={
                name: column[index]
                for name, column in step.parts.items()
                if math.isfinite(column[index])  # JSON has no other numbers
            },
        )
        for step in found.scorers
    ]
    return CandidateAnswer(fate=fate, total=found.totals[index], scores=scores, **own)


def _number(value: float | None) -> float | None:
    """Return a number, None for what was not told: JSON has no NaN."""
    return None if value is None or value != value else value


def _verdict(candidates: list[CandidateAnswer], found: Explanation | None) -> str:
    """Say in a sentence why the first won."""
    if found is None:
        return "The scheduler cannot tell: it takes the endpoint that is used least."
    if not candidates:
        return "There is no endpoint."
    first = candidates[0]
    if first.fate != "picked":
        fates = {f"filtered by {each.by}" if each.by else each.fate for each in candidates}
        return f"Nobody is picked: {', '.join(sorted(fates))}."
    others = [each for each in candidates[1:] if each.total is not None]
    if not others:
        return f"{first.endpoint} is picked: it is the only one left."
    second = max(others, key=lambda each: each.total or 0.0)
    lead = (first.total or 0.0) - (second.total or 0.0)
    if lead == 0:
        return f"{first.endpoint} is picked by chance: {second.endpoint} scores the same."
    if lead < 0:
        return f"{first.endpoint} is picked by chance, as {found.picker} does."
    gains = [
        ((mine.score - theirs.score) * mine.weight, mine.scorer)
        for mine, theirs in zip(first.scores, second.scores, strict=True)
    ]
    gain, scorer = max(gains)
    return (
        f"{first.endpoint} is picked: it scores {lead:.3g} more than {second.endpoint}, the next,"
        f" and {gain:.3g} of that by {scorer}."
    )
