"""``trust`` and ``idSources`` of a configuration → what of a request is believed."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from epp.config.places import Place
from epp.config.schema import IdSource, TrustSection
from epp.core.claim_sources import DefaultHeaders, FairnessSource, FromHeader, FromJwt, FromModel
from epp.core.claims import ClaimsOptions

__all__ = ["read_claims_options"]

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "defaultHeaders": (),
        "header": ("header", "remove"),
        "jwtClaim": ("header", "claim", "remove"),
        "model": (),
    }
)
"""The fields that a source of each type may have besides it."""


def read_claims_options(
    trust: TrustSection, sources: tuple[IdSource, ...] | None, place: Place
) -> ClaimsOptions:
    """Return what the sections say; ``place`` is that of the sources.

    What is wrong is reported; the value is of no use then.
    """
    default = ClaimsOptions().fairness_id
    if sources is not None:
        found = (_source(source, place / index) for index, source in enumerate(sources))
        default = tuple(source for source in found if source is not None)
    return ClaimsOptions(
        fairness_id=default,
        trust_objective=trust.objective,
        trust_fairness_id=trust.fairness_id,
        trust_wait_limit=trust.request_ttl,
        trust_slo=trust.slo,
    )


def _source(source: IdSource, place: Place) -> FairnessSource | None:
    given = {name: getattr(source, name) for name in ("header", "claim", "remove")}
    given = {name: value for name, value in given.items() if value is not None}
    known = _FIELDS[source.type]
    for name in given:
        if name not in known:
            (place / name).report(
                f"unknown with the type {source.type}; expected it with {_with(name)}"
            )
            return None
    if source.type == "header" and source.header is None:
        (place / "header").report("missing; expected the name of a header")
        return None
    try:
        return _make(source.type, given)
    except ValueError as error:
        place.report(str(error))
        return None


def _make(type_: str, given: dict[str, Any]) -> FairnessSource:
    if type_ == "header":
        return FromHeader(name=given.pop("header"), **given)
    if type_ == "jwtClaim":
        return FromJwt(**given)
    return FromModel() if type_ == "model" else DefaultHeaders()


def _with(name: str) -> str:
    return " or ".join(type_ for type_, names in _FIELDS.items() if name in names)
