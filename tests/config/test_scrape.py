"""Options of the scraping that do not go together."""

from pathlib import Path

import pytest

from epp.config.metric_spec import MetricSpec
from epp.config.scrape import BUILT_IN_ENGINES, AttributeMetric, EngineMap, ScrapeOptions
from epp.engines.dialects import BUILT_IN


def attribute(name: str) -> AttributeMetric:
    return AttributeMetric(attribute=name, metric=MetricSpec("m"))


def test_the_built_in_engines_are_those_that_have_a_map() -> None:
    assert tuple(engine.name for engine in BUILT_IN) == BUILT_IN_ENGINES


@pytest.mark.parametrize(
    ("name", "attributes", "complaint"),
    [
        ("", [], "an engine has no name"),
        ("default", [], "an engine cannot be named 'default': that name is reserved"),
        ("e", ["a", "b", "a"], "the engine 'e' has the attribute 'a' twice"),
        ("e", [""], "the engine 'e' has an attribute without a name"),
    ],
)
def test_engines_that_cannot_be(name: str, attributes: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        EngineMap(name=name, attributes=tuple(map(attribute, attributes)))


def test_engines_that_are_not_known_or_known_twice() -> None:
    mine = EngineMap(name="mine")
    with pytest.raises(ValueError, match=r"^the engine 'mine' is there twice$"):
        ScrapeOptions(engines=(mine, mine))
    known = "mine, vllm, sglang, trtllm-serve, triton-tensorrt-llm, triton, llamacpp"
    with pytest.raises(ValueError, match=f"^the default engine 'x' is not .* one of {known}$"):
        ScrapeOptions(engines=(mine,), default_engine="x")
    assert ScrapeOptions(engines=(mine,), default_engine="mine").default_engine == "mine"
    assert ScrapeOptions(engines=(EngineMap(name="vllm"),), default_engine="vllm").engines


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="only go together"):
        ScrapeOptions(client_cert_file=Path("c"))
    with pytest.raises(ValueError, match="only go together"):
        ScrapeOptions(client_key_file=Path("k"))


@pytest.mark.parametrize(
    ("skips", "ca_file", "verifies"),
    [
        (None, None, False),
        (None, Path("ca"), True),
        (True, Path("ca"), False),
        (False, None, True),
    ],
)
def test_when_certificates_are_verified(
    skips: bool | None, ca_file: Path | None, verifies: bool
) -> None:
    options = ScrapeOptions(insecure_skip_verify=skips, ca_file=ca_file)
    assert options.verifies_certificates is verifies
