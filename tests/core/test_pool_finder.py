"""Which pool a request is for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.claims import RequestClaims
from epp.core.pool_finder import PoolFinder
from epp.core.resources import ModelTarget, PoolResources, PoolSpec, RewriteRule


def pool(
    name: str,
    *,
    namespace: str = "default",
    authorities: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    rewrites: tuple[str, ...] = (),
) -> PoolResources:
    """Return a pool; ``rewrites`` are models that its rules rewrite, none standing for any."""
    rules = tuple(
        RewriteRule(models=(model,) if model else (), targets=(ModelTarget("target"),))
        for model in rewrites
    )
    spec = PoolSpec(name=name, namespace=namespace, authorities=authorities, models=models)
    return PoolResources(pool=spec, rewrites=rules)


def finder(*pools: PoolResources) -> PoolFinder:
    found = PoolFinder()
    for each in pools:
        found.put(each)
    return found


def find(found: PoolFinder, *, pool: str = "", authority: str = "", model: str = "") -> str | None:
    return found.find(RequestClaims(pool=pool, authority=authority, model=model))


def test_one_pool_takes_all_that_name_no_other() -> None:
    it = finder(pool("a", authorities=("a.example",), models=("m",)))
    assert find(it) == find(it, authority="b.example", model="n") == "default/a"
    assert find(it, pool="a") == find(it, pool="default/a") == "default/a"
    assert find(it, pool="b") is find(it, pool="other/a") is None


def test_without_pools_there_is_none() -> None:
    assert find(finder()) is find(finder(), pool="a") is find(finder(), model="m") is None


def test_the_gateway_comes_before_the_authority_the_authority_before_the_model() -> None:
    it = finder(
        pool("a", authorities=("a.example",), models=("m",), rewrites=("alias",)),
        pool("b", authorities=("b.example",), models=("n",)),
        pool("c", models=("o", "alias")),
    )
    assert find(it, pool="c", authority="a.example", model="n") == "default/c"
    assert find(it, authority="a.example", model="n") == "default/a"
    assert find(it, authority="unknown.example", model="n") == "default/b"
    assert find(it, model="alias") == "default/c", "a model of its own before a rule for it"
    assert find(it, model="unknown") is find(it) is None
    assert find(it, pool="unknown", authority="a.example", model="m") is None


def test_pools_that_share_an_authority_are_told_apart_by_models_and_those_by_rules() -> None:
    shared = ("shared.example",)
    it = finder(
        pool("a", authorities=shared, models=("m", "both"), rewrites=("both",)),
        pool("b", authorities=shared, models=("n", "both")),
        pool("c", models=("o",)),
    )
    assert find(it, authority="shared.example", model="m") == "default/a"
    assert find(it, authority="shared.example", model="both") == "default/a"
    assert find(it, authority="shared.example", model="o") is None
    assert find(it, authority="shared.example") is None
    assert find(it, model="o") == "default/c"


def test_a_rule_tells_the_pool_if_it_names_the_model_and_no_other_pool_has_one() -> None:
    it = finder(pool("a", rewrites=("alias", "both")), pool("b", rewrites=("both", "")))
    assert find(it, model="alias") == "default/a"
    assert find(it, model="both") is find(it, model="other") is None


def test_a_name_that_two_namespaces_have_needs_its_namespace() -> None:
    it = finder(pool("a"), pool("a", namespace="other"))
    assert find(it, pool="a") is None
    assert find(it, pool="other/a") == "other/a"


def test_what_a_pool_no_longer_claims_is_not_for_it() -> None:
    it = finder(pool("a", models=("m",)), pool("b", models=("n",)))
    it.put(pool("a", models=("k",), authorities=("a.example",)))
    assert find(it, model="m") is None
    assert find(it, model="k") == find(it, authority="a.example") == "default/a"
    it.remove("default/a")
    assert find(it, model="k") == "default/b", "the only pool"
    assert find(it, pool="a") is None


def test_an_unknown_pool_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        finder().remove("default/a")


SIGNS = st.sampled_from(("", "x", "y", "z"))
POOLS = st.lists(
    st.builds(
        lambda name, authorities, models, rewrites: pool(
            name,
            authorities=tuple(filter(None, authorities)),
            models=tuple(filter(None, models)),
            rewrites=tuple(rewrites),
        ),
        st.sampled_from("abc"),
        st.frozensets(SIGNS, max_size=2),
        st.frozensets(SIGNS, max_size=2),
        st.frozensets(SIGNS, max_size=2),
    ),
    max_size=5,
)


@given(POOLS, st.sampled_from(("", "a", "default/b", "d")), SIGNS, SIGNS)
def test_the_index_says_what_the_rules_say(
    pools: list[PoolResources], named: str, authority: str, model: str
) -> None:
    known = {each.pool.key: each for each in pools}
    assert find(finder(*pools), pool=named, authority=authority, model=model) == by_the_rules(
        known, named, authority, model
    )


def by_the_rules(
    known: dict[str, PoolResources], named: str, authority: str, model: str
) -> str | None:
    if named:
        key = named if "/" in named else f"default/{named}"
        return key if key in known else None
    left = set(known)
    rewrites = {k: {m for r in each.rewrites for m in r.models} for k, each in known.items()}
    for claimants in (
        {k for k, each in known.items() if authority in each.pool.authorities},
        {k for k, each in known.items() if model in each.pool.models},
        {k for k in known if model in rewrites[k]},
    ):
        left = left & claimants or left
    return left.pop() if len(left) == 1 else None
