import pytest

from epp.config.picker_config import PickerConfig
from epp.config.scheduling import default_plan
from epp.core.scheduling import SchedulingProfile
from epp.core.scheduling.default import default_scheduler
from epp.core.scheduling.handlers import HeaderProfileHandler

from .support import parse, problems, refused


def profile(config: PickerConfig) -> SchedulingProfile:
    [found] = config.new_scheduler().profiles.values()
    return found


def names(found: SchedulingProfile) -> tuple[list[str], dict[str, float], str]:
    filters = [each.name for each in found.filters]
    return filters, {each.name: each.weight for each in found.scorers}, found.picker_name


# ---- what holds where nothing is said ----


def test_without_scheduling_plugins_the_default_profile_runs() -> None:
    ours, theirs = profile(parse("{}")), default_scheduler()
    [default] = theirs.profiles.values()
    assert names(ours) == names(default)
    assert [type(each) for each in parse("{}").new_scheduler().observers] == [
        type(each) for each in theirs.observers
    ]
    assert type(ours.picker) is type(default.picker)
    assert type(ours.scorers[0].scorer) is type(default.scorers[0].scorer)
    assert parse("plugins: [{type: single-profile-handler}]").scheduling.profiles == (
        default_plan().profiles
    )


def test_without_profiles_all_filters_and_scorers_are_one_in_the_order_of_the_document() -> None:
    config = parse("""
        plugins:
        - type: utilization-detector
        - {type: queue-scorer, name: q}
        - type: decode-filter
        - type: random-picker
        - type: approx-prefix-cache-producer
        - type: prefix-cache-scorer
        - type: weighted-random-picker
        - {type: label-selector-filter, parameters: {matchLabels: {a: b}}}
        """)
    assert names(profile(config)) == (
        ["decode-filter", "label-selector-filter"],
        {"q": 1.0, "prefix-cache-scorer": 1.0},
        "random-picker",
    )


def test_a_producer_alone_is_the_one_of_the_default_profile() -> None:
    config = parse(
        "plugins: [{name: p, type: approx-prefix-cache-producer,"
        " parameters: {blockSizeTokens: 128}}]"
    )
    assert names(profile(config)) == names(profile(parse("{}")))
    assert config.claims.prefix_block_tokens == 128


# ---- profiles ----


def test_a_profile_is_what_its_section_says() -> None:
    config = parse("""
        plugins:
        - {type: queue-scorer, name: q}
        - {type: max-score-picker, name: two, parameters: {maxNumOfEndpoints: 2}}
        - {type: max-score-picker, name: three, parameters: {maxNumOfEndpoints: 3}}
        schedulingProfiles:
        - name: mine
          plugins:
          - {pluginRef: q, weight: 2.5}
          - {pluginRef: decode-filter}
          - {pluginRef: three}
          - {pluginRef: kv-cache-utilization-scorer}
        """)
    found = profile(config)
    assert found.name == "mine"
    assert names(found) == (
        ["decode-filter"],
        {"q": 2.5, "kv-cache-utilization-scorer": 1},
        "three",
    )
    assert config.notes == ("config.yaml: plugins: nothing refers to two, so it does nothing",)


def test_a_plugin_that_filters_and_scores_does_both() -> None:
    config = parse("schedulingProfiles: [{name: a, plugins: [{pluginRef: context-length-aware}]}]")
    filters, scorers, _ = names(profile(config))
    assert filters == list(scorers) == ["context-length-aware"]


@pytest.mark.parametrize(
    ("plugins", "picker"),
    [
        ("", "max-score-picker"),
        ("{type: random-picker, name: r}, {type: weighted-random-picker}", "r"),
    ],
)
def test_a_profile_without_a_picker_has_the_first_of_the_configuration(
    plugins: str, picker: str
) -> None:
    config = parse(f"""
        plugins: [{plugins}]
        schedulingProfiles: [{{name: a, plugins: [{{pluginRef: queue-scorer}}]}}]
        """)
    assert profile(config).picker_name == picker


def test_of_several_profiles_a_handler_chooses() -> None:
    config = parse("""
        plugins: [{type: header-profile-handler, parameters: {defaultProfile: b, headerName: X-P}}]
        schedulingProfiles:
        - {name: a, plugins: [{pluginRef: queue-scorer}]}
        - {name: b, plugins: [{pluginRef: queue-scorer, weight: 3}]}
        """)
    scheduler = config.new_scheduler()
    assert isinstance(scheduler.handler, HeaderProfileHandler)
    assert scheduler.handler in scheduler.observers
    assert list(scheduler.profiles) == ["a", "b"]
    scorers = [each.scorers[0].scorer for each in scheduler.profiles.values()]
    assert scorers[0] is scorers[1]
    assert config.claims.wanted_headers == ("x-p",)


@pytest.mark.parametrize(
    ("item", "note"),
    [
        ("{pluginRef: openai-parser}", "openai-parser is no filter, scorer or picker here and is"
         " ignored"),
        ("{pluginRef: utilization-detector}", "utilization-detector is no filter, scorer or picker"
         " here and is ignored"),
        ("{pluginRef: priority-holdback-policy}", "priority-holdback-policy is no filter, scorer or"
         " picker here and is ignored"),
        ("{pluginRef: header-profile-handler}", "header-profile-handler is no filter, scorer or"
         " picker here and is ignored"),
        ("{pluginRef: decode-filter, weight: 2}", "decode-filter is no scorer, so its weight means"
         " nothing"),
    ],
)  # fmt: skip
def test_what_means_nothing_in_a_profile_is_noted(item: str, note: str) -> None:
    config = parse(
        f"schedulingProfiles: [{{name: a, plugins: [{{pluginRef: queue-scorer}}, {item}]}}]"
    )
    assert config.notes == (f"config.yaml: schedulingProfiles: a: {note}",)


def test_a_producer_in_a_profile_hears_of_its_picks() -> None:
    config = parse("""
        plugins: [{type: random-picker}, {type: approx-prefix-cache-producer, name: p}]
        schedulingProfiles: [{name: a, plugins: [{pluginRef: p}]}]
        """)
    assert len(config.new_scheduler().observers) == 1
    assert config.claims.prefix_block_tokens == 64


@pytest.mark.parametrize("profiles", ["[{name: a}]", "[{name: a, plugins: [{pluginRef: p}]}]"])
def test_a_profile_without_a_scorer_is_noted_unless_chance_is_meant(profiles: str) -> None:
    for type_, is_noted in (("max-score-picker", True), ("random-picker", False)):
        text = f"plugins: [{{name: p, type: {type_}}}]\nschedulingProfiles: {profiles}"
        note = "config.yaml: schedulingProfiles: a has no scorer, so p picks by chance"
        assert (note in parse(text).notes) == is_noted


# ---- what is refused ----


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ("{weight: 1}", "plugins[0].pluginRef: missing; expected the name of a plugin"),
        ("{pluginRef: queue-scorer, weight: 0}", "plugins[0].weight: found 0; expected a number"
         " from 0.000001 to 1000000"),
        ("{pluginRef: queue-scorer, weight: -2}", "plugins[0].weight: found -2; expected a number"
         " from 0.000001 to 1000000"),
        ("{pluginRef: queue-score}", 'plugins[0].pluginRef: found "queue-score"; did you mean'
         ' "queue-scorer"?'),
        ("{pluginRef: mine2}", 'plugins[0].pluginRef: found "mine2"; did you mean "mine"?'),
        ("{pluginRef: latency-scorer}", "plugins[0].pluginRef: this version has no"
         ' "latency-scorer"'),
        ("{pluginRef: header-label-affinity-scorer}", "plugins[0].pluginRef: found"
         ' "header-label-affinity-scorer"; expected it in plugins, since its headerName and'
         " labelKey must be given"),
        ("{pluginRef: mine}, {pluginRef: mine}", 'plugins[1].pluginRef: found "mine" again;'
         " expected each plugin once in a profile"),
        ("{pluginRef: random-picker}, {pluginRef: max-score-picker}", "plugins[1].pluginRef: found"
         " the pickers random-picker and max-score-picker; expected one in a profile"),
    ],
)  # fmt: skip
def test_wrong_items_are_refused_with_their_place(items: str, problem: str) -> None:
    text = f"""\
        plugins: [{{name: mine, type: queue-scorer}}]
        schedulingProfiles:
        - name: a
          plugins: [{items}]
        """
    assert refused(text) == f"config.yaml:4: schedulingProfiles[0].{problem}"


@pytest.mark.parametrize(
    ("handlers", "profiles", "problem"),
    [
        ("", "{name: a}, {name: a}", 'schedulingProfiles[1].name: found "a"; expected each name'
         " once"),
        ("", "{plugins: []}", "schedulingProfiles[0].name: missing; expected text"),
        ("", "{name: a}, {name: b}", "schedulingProfiles: found 2 profiles and no profile handler"
         " in plugins; expected one that chooses among them, such as header-profile-handler"),
        ("{type: single-profile-handler}", "{name: a}, {name: b}", "schedulingProfiles: found 2"
         " scheduling profiles; expected one for single-profile-handler"),
        ("{type: header-profile-handler}", "{name: a}, {name: b}", "schedulingProfiles: found"
         ' defaultProfile "decode"; expected one of the scheduling profiles: a, b'),
        ("{type: header-profile-handler}, {type: single-profile-handler}", "{name: a}",
         "plugins[1].type: found the profile handlers header-profile-handler and"
         " single-profile-handler; expected one"),
    ],
)  # fmt: skip
def test_profiles_that_no_handler_can_choose_among_are_refused(
    handlers: str, profiles: str, problem: str
) -> None:
    found = problems(f"{{plugins: [{handlers}], schedulingProfiles: [{profiles}]}}")
    assert f"config.yaml:1: {problem}" in found


def test_a_plugin_that_is_wrong_is_told_once_and_not_where_it_is_referred_to() -> None:
    text = """
        plugins:
        - {name: p, type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 0}}
        - {name: s, type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: p}}
        schedulingProfiles: [{name: a, plugins: [{pluginRef: s}, {pluginRef: p}]}]
        """
    assert "plugins[0].parameters.blockSizeTokens" in refused(text)


def test_a_plugin_that_cannot_be_made_is_told_at_its_parameters() -> None:
    text = """\
        plugins:
        - {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: q}}
        - {type: queue-scorer, name: q}
        """
    assert refused(text) == (
        'config.yaml:2: plugins[0].parameters: found "q" of type queue-scorer; expected one of type'
        " approx-prefix-cache-producer"
    )
    assert refused("plugins: [{type: session-affinity-scorer, parameters:"
        " {encodedEndpointHeaderConfig: {keyFile: /no/such/file}}}]").startswith(
        "config.yaml:1: plugins[0].parameters: cannot read the key file /no/such/file: "
    )  # fmt: skip


def test_what_the_default_profile_needs_and_cannot_be_made_is_told() -> None:
    text = """
        plugins:
        - {name: a, type: approx-prefix-cache-producer}
        - {name: b, type: approx-prefix-cache-producer}
        """
    assert refused(text) == (
        'config.yaml:2: schedulingProfiles: plugin "first-token-scorer": found a and b of type'
        " approx-prefix-cache-producer; expected to be told which is meant"
    )


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("max-score-picker", "queue-scorer"),
        ("single-profile-handler", "queue-scorer"),
        ("first-token-scorer", "approx-prefix-cache-producer"),
    ],
)
def test_what_is_needed_by_its_name_cannot_be_something_else(name: str, type_: str) -> None:
    assert refused(f"plugins: [{{name: {name}, type: {type_}}}]") == (
        f'config.yaml:1: plugins[0].name: found "{name}"; expected another name, since the type of'
        " this name is needed as well"
    )
    assert parse(f"plugins: [{{name: {name}, type: openai-parser}}]") == parse("{}")


def test_the_name_of_another_type_is_a_name_like_any_other() -> None:
    entry = "{name: decode-filter, type: by-label, parameters: {label: a, allowsNoLabel: true}}"
    [item] = parse(f"plugins: [{entry}]").scheduling.profiles[0].items
    assert item.plugin == "decode-filter"
