import pytest

from epp.core.claim_sources import DefaultHeaders, FromHeader, FromJwt, FromModel
from epp.core.claims import ClaimsOptions

from .support import parse, refused


def claims(sources: str) -> ClaimsOptions:
    return parse(f"flowControl: {{fairness: {{idSources: {sources}}}}}").claims


def test_sources_that_are_not_given_are_the_default() -> None:
    assert claims("null") == parse("{}").claims == ClaimsOptions()


def test_no_sources_make_one_flow() -> None:
    assert claims("[]").fairness_id == ()


def test_sources() -> None:
    sources = """[
        {type: header, header: x-tenant},
        {type: header, header: x-team, remove: true},
        {type: jwtClaim},
        {type: jwtClaim, header: x-token, claim: realm.tenant, remove: true},
        {type: model},
        {type: defaultHeaders}]"""
    assert claims(sources).fairness_id == (
        FromHeader(name="x-tenant"),
        FromHeader(name="x-team", remove=True),
        FromJwt(header="authorization", claim="sub"),
        FromJwt(header="x-token", claim="realm.tenant", remove=True),
        FromModel(),
        DefaultHeaders(),
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{type: header}", ".header: missing; expected the name of a header"),
        ("{type: model, claim: a}", ".claim: unknown with the type model; expected it with"
         " jwtClaim"),
        ("{type: defaultHeaders, remove: true}", ".remove: unknown with the type defaultHeaders;"
         " expected it with header or jwtClaim"),
        ("{type: header, header: x y}", ": 'x y' is not the name of a header"),
        ("{type: cookie}", '.type: found "cookie"; expected "defaultHeaders", "header", "jwtClaim"'
         ' or "model"'),
        ("{header: a}", '.type: missing; expected "defaultHeaders", "header", "jwtClaim" or'
         ' "model"'),
        ("{type: header, header: ''}", '.header: found ""; expected text'),
    ],
)  # fmt: skip
def test_wrong_sources_are_refused_with_their_place(source: str, problem: str) -> None:
    text = f"flowControl:\n  fairness:\n    idSources:\n    - type: model\n    - {source}\n"
    assert refused(text) == f"config.yaml:5: flowControl.fairness.idSources[1]{problem}"


def test_trust() -> None:
    assert parse("trust: {}").claims == ClaimsOptions()
    for field, option in (
        ("objective", "trust_objective"),
        ("fairnessId", "trust_fairness_id"),
        ("requestTTL", "trust_wait_limit"),
        ("slo", "trust_slo"),
    ):
        for value in (True, False):
            found = parse(f"trust: {{{field}: {str(value).lower()}}}").claims
            assert found == ClaimsOptions(**{option: value})
    assert refused("trust: {objective: no}") == (
        'config.yaml:1: trust.objective: found "no"; expected true or false'
    )
