"""Which model a request is to ask for, where that is not the one its client named.

Rules that name the model come before rules for any model, and of each kind the first one counts.
All turns of a conversation go to the same target, since what a model server has cached of them is
worth nothing for another model: the target is not drawn but follows from the conversation
(``claims.conversation``). Where none can be told, it is drawn.

Of the targets ``i`` with the weights ``w_i`` the one with the smallest ``-ln(h_i) / w_i`` is taken,
``h_i`` in (0, 1] being the hash of its name with the conversation for its seed: the first event of
exponential clocks, so each comes first with its share ``w_i / sum(w)``. When weights change, a
conversation moves only to a target whose weight has grown in relation to that of the one it leaves:
from 90:10 to 80:20 a tenth moves, and all of it to the second.
"""

import random
from collections.abc import Iterable
from math import log
from typing import Final

from xxhash import xxh3_64_intdigest

from epp.core.claims import RequestClaims
from epp.core.resources import ModelTarget, RewriteRule

__all__ = ["ModelRewrites"]

_HASHES: Final = 2.0**64


class ModelRewrites:
    """The rules of a pool, in order of precedence."""

    def __init__(self, rules: Iterable[RewriteRule]) -> None:
        self._exact: dict[str, tuple[_Target, ...]] = {}
        self._generic: tuple[_Target, ...] = ()
        for rule in rules:
            targets = _weighted(rule.targets)
            for model in rule.models:
                self._exact.setdefault(model, targets)
            if not rule.models:
                self._generic = self._generic or targets

    def __bool__(self) -> bool:
        """Whether there are any rules."""
        return bool(self._exact or self._generic)

    @property
    def has_choices(self) -> bool:
        """Whether any rule has more than one target, so that conversations matter."""
        return any(len(targets) > 1 for targets in (*self._exact.values(), self._generic))

    def target(self, claims: RequestClaims, rng: random.Random) -> str | None:
        """Return the model to ask for, None where that is the one that the client named, or it
        named none: then there is nothing in the body that could be rewritten."""
        if not claims.model:
            return None
        targets = self._exact.get(claims.model, self._generic)
        if not targets:
            return None
        chosen = targets[0] if len(targets) == 1 else _chosen(targets, claims.conversation, rng)
        return None if chosen.model == claims.model else chosen.model


class _Target:
    __slots__ = ("encoded", "model", "weight")

    def __init__(self, model: str, weight: int) -> None:
        self.model = model
        self.encoded = model.encode()
        self.weight = weight


def _weighted(targets: Iterable[ModelTarget]) -> tuple[_Target, ...]:
    """Return the targets that can be chosen: those without a weight have an even share where none
    has one, else none at all."""
    weights: dict[str, int] = {}
    for target in targets:
        weights[target.model] = weights.get(target.model, 0) + (target.weight or 0)
    if any(weights.values()):
        return tuple(_Target(model, weight) for model, weight in weights.items() if weight)
    return tuple(_Target(model, 1) for model in weights)


def _chosen(targets: tuple[_Target, ...], conversation: int, rng: random.Random) -> _Target:
    seed = conversation or rng.getrandbits(64)
    return min(
        targets,
        key=lambda target: (
            -log((xxh3_64_intdigest(target.encoded, seed) + 1) / _HASHES) / target.weight
        ),
    )
