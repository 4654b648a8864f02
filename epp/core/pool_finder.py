"""Which pool a request is for, where one EPP serves several.

The gateway's word comes first: it names the pool, and no other will do. Then count, in this order,
the authority that the client asks, the model that its request names, and the rules that rewrite
exactly this model. Each of them leaves the pools that claim it, so pools that share an authority
are told apart by their models. Where one is left, that is it, and where there is only one at all.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from epp.core.claims import RequestClaims
from epp.core.resources import PoolResources

__all__ = ["PoolFinder"]

_Claim: TypeAlias = tuple[str, str]

_AUTHORITY: Final = "authority"
_MODEL: Final = "model"
_REWRITE: Final = "rewrite"
_NAME: Final = "name"


class PoolFinder:
    """Knows whose requests are for which pool; pools go by their keys (``namespace/name``)."""

    def __init__(self) -> None:
        self._claims: dict[str, frozenset[_Claim]] = {}
        self._claimants: dict[_Claim, frozenset[str]] = {}
        self._only: str | None = None

    def put(self, resources: PoolResources) -> None:
        """Know a pool, or what has become of it."""
        key = resources.pool.key
        claims = frozenset(_claims_of(resources))
        if self._claims.get(key) != claims:
            self._claims[key] = claims
            self._index()

    def remove(self, key: str) -> None:
        """Forget a pool."""
        del self._claims[key]
        self._index()

    def find(self, claims: RequestClaims) -> str | None:
        """Return the pool that a request is for, None where that cannot be told."""
        if claims.pool:
            return _only_one(self._claimants.get((_NAME, claims.pool)))
        if self._only is not None:
            return self._only
        left: frozenset[str] | None = None
        for claim in (
            (_AUTHORITY, claims.authority),
            (_MODEL, claims.model),
            (_REWRITE, claims.model),
        ):
            found = self._claimants.get(claim)
            if found is not None and left is not None:
                found = found & left
            if found:
                left = found
        return _only_one(left)

    def _index(self) -> None:
        claimants: dict[_Claim, set[str]] = {}
        for key, claims in self._claims.items():
            for claim in claims:
                claimants.setdefault(claim, set()).add(key)
        self._claimants = {claim: frozenset(keys) for claim, keys in claimants.items()}
        self._only = _only_one(self._claims)


def _claims_of(resources: PoolResources) -> Iterable[_Claim]:
    pool = resources.pool
    yield _NAME, pool.name
    yield _NAME, pool.key
    for authority in pool.authorities:
        yield _AUTHORITY, authority
    for model in pool.models:
        yield _MODEL, model
    for rule in resources.rewrites:
        for model in rule.models:
            yield _REWRITE, model


def _only_one(keys: Iterable[str] | None) -> str | None:
    found = list(keys or ())
    return found[0] if len(found) == 1 else None
