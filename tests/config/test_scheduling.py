"""Plans of schedulers, and how plugins are made that refer to each other."""

from typing import Any

import pytest

from epp.config.scheduling import (
    PlannedPlugin,
    PlannedProfile,
    PluginMaker,
    ProfileItem,
    UnmadePluginError,
    make_plan,
)
from epp.config.secrets import Secrets
from epp.core.scheduling.catalogue import CATALOGUE
from epp.core.scheduling.definition import (
    NoParameters,
    Parameters,
    PluginContext,
    PluginDefinition,
)
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.core.scheduling.scorers.prefix_cache import PrefixCacheScorerParameters

from .support import parse, refused


class Referring(Parameters, frozen=True, kw_only=True):
    to: tuple[str, ...] = ()


class Made:
    def __init__(self, name: str, others: list[Any]) -> None:
        self.name = name
        self.others = others


def make(parameters: Referring, context: PluginContext) -> Made:
    return Made(context.name, [context.plugin(name, default_type="node") for name in parameters.to])


NODE = PluginDefinition(type="node", summary="", make=make, parameters=Referring)


def maker(**references: tuple[str, ...]) -> PluginMaker:
    planned = [
        PlannedPlugin(name=name, definition=NODE, parameters=Referring(to=to))
        for name, to in references.items()
    ]
    return PluginMaker(planned, {"node": NODE}, Secrets())


# ---- references ----


def test_plugins_are_made_once_after_those_that_they_refer_to() -> None:
    found = maker(a=("b", "c"), b=("d",), c=("d",), d=())
    made = found.make("a")
    assert [each.name for each in made.others] == ["b", "c"]
    assert made.others[0].others[0] is made.others[1].others[0]
    assert list(found.made) == ["d", "b", "c", "a"]


def test_an_empty_reference_is_the_only_one_of_its_type_or_a_new_one() -> None:
    found = maker(a=())
    assert found.refer("x", "", "node") is found.made["a"]
    found = maker()
    assert found.refer("x", "", "node").name == "node"
    assert found.planned["node"].implied_by == "x"


def test_of_several_of_a_type_the_one_with_its_name_is_meant_or_none() -> None:
    text = """
        plugins:
        - {name: %s, type: approx-prefix-cache-producer}
        - {name: b, type: approx-prefix-cache-producer}
        - {type: prefix-cache-scorer}
        """
    config = parse(text % "approx-prefix-cache-producer")
    assert [plugin.name for plugin in config.scheduling.plugins] == [
        "approx-prefix-cache-producer",
        "prefix-cache-scorer",
        "single-profile-handler",
        "max-score-picker",
    ]
    assert refused(text % "a").endswith(
        "found a and b of type approx-prefix-cache-producer; expected to be told which is meant"
    )


def test_a_loop_is_refused_with_all_its_names() -> None:
    found = maker(x=("a",), a=("b",), b=("a",))
    with pytest.raises(
        UnmadePluginError, match=r"^found a loop of references: a → b → a;"
    ) as caught:
        found.make("x")
    assert caught.value.name == "a"
    assert not found.made


def test_a_failure_is_told_of_the_plugin_that_failed() -> None:
    found = maker(a=("b",), b=("nobody",))
    for name in ("a", "b", "a"):
        with pytest.raises(
            UnmadePluginError, match=r'^found no plugin "nobody"; expected'
        ) as caught:
            found.make(name)
        assert caught.value.name == "b"


def test_a_type_whose_parameters_must_be_given_is_not_made_without() -> None:
    definition = CATALOGUE["header-label-affinity-scorer"]
    found = PluginMaker((), {definition.type: definition}, Secrets())
    with pytest.raises(ValueError, match="headerName and labelKey must be given"):
        found.refer("x", "", definition.type)


# ---- plans ----


def test_every_scheduler_has_plugins_of_its_own() -> None:
    config = parse("plugins: [{type: prefix-cache-scorer}, {type: no-hit-lru-scorer}]")
    first, second = config.new_scheduler(), config.new_scheduler()
    assert len(first.observers) == 2
    assert not set(first.observers) & set(second.observers)


def test_what_no_profile_needs_is_not_made() -> None:
    config = parse("""
        plugins: [{type: session-affinity-scorer}, {type: prefix-cache-scorer}]
        schedulingProfiles: [{name: a, plugins: [{pluginRef: queue-scorer}]}]
        """)
    assert config.new_scheduler().observers == ()
    assert config.claims.wanted_headers == ()
    assert config.claims.prefix_block_tokens == 0


def test_what_plugins_want_to_see_of_requests_is_read() -> None:
    config = parse("""
        plugins:
        - {type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 32,
           maxPrefixTokensToMatch: 4096}}
        - {type: prefix-cache-scorer}
        - {type: session-affinity-scorer}
        - {type: header-label-affinity-scorer, parameters: {headerName: X-Tier, labelKey: tier}}
        """)
    assert config.claims.prefix_block_tokens == 32
    assert config.claims.max_prefix_tokens == 4096
    assert config.claims.wanted_headers == ("x-session-token", "x-tier")


@pytest.mark.parametrize(
    ("parameters", "max_tokens"),
    [
        ("maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 10", 640),
        ("maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 10, blockSize: 32", 320),
        ("maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 10, blockSizeTokens: 1", 160),
        ("maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 0", 10**9),
    ],
)
def test_how_much_of_a_prompt_is_hashed(parameters: str, max_tokens: int) -> None:
    config = parse(f"""
        plugins:
        - {{type: approx-prefix-cache-producer, parameters: {{{parameters}}}}}
        - {{type: prefix-cache-scorer}}
        """)
    assert config.claims.max_prefix_tokens == max_tokens


def test_of_a_prefix_cache_of_others_nothing_is_known_but_its_blocks() -> None:
    definition = PluginDefinition(
        type="cache", summary="", make=lambda parameters, context: PrefixCache(block_tokens=99)
    )
    planned = PlannedPlugin(name="mine", definition=definition, parameters=NoParameters())
    profile = PlannedProfile(
        name="a", items=(ProfileItem("prefix-cache-scorer"),), picker="random-picker"
    )
    scorer = PlannedPlugin(
        name="prefix-cache-scorer",
        definition=CATALOGUE["prefix-cache-scorer"],
        parameters=PrefixCacheScorerParameters(prefix_match_info_producer_name="mine"),
    )
    plan = make_plan(
        PluginMaker([planned, scorer], CATALOGUE, Secrets()), (profile,), "single-profile-handler"
    )
    assert (plan.prefix_block_tokens, plan.max_prefix_tokens) == (99, 10**9)


def test_prefix_caches_with_blocks_of_different_sizes_are_refused() -> None:
    text = """
        plugins:
        - {name: a, type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 32}}
        - {name: b, type: approx-prefix-cache-producer}
        - {name: s, type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: a}}
        - {name: t, type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: b}}
        """
    assert refused(text).endswith(
        "found blocks of different sizes: 32 in a, 64 in b; expected the same in all"
    )


def test_a_random_key_is_the_same_for_all_schedulers_and_no_text_tells_it() -> None:
    config = parse("plugins: [{type: session-affinity-scorer}]")
    other = parse("plugins: [{type: session-affinity-scorer}]")
    key = config.scheduling.secrets.get("")
    assert key == other.scheduling.secrets.get("")
    assert len(key) == 32
    assert repr(key) not in repr(config)
    assert config == other


def test_a_plan_needs_a_profile_that_the_handler_can_run() -> None:
    profile = PlannedProfile(
        name="a", items=(ProfileItem("queue-scorer"),), picker="max-score-picker"
    )
    with pytest.raises(ValueError, match="found 2 scheduling profiles"):
        make_plan(
            PluginMaker((), CATALOGUE, Secrets()),
            (profile, PlannedProfile(name="b", items=(), picker="max-score-picker")),
            "single-profile-handler",
        )
