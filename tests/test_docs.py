"""What the pages say holds: their links, the plugin of their own, the burst, the example files."""

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epp.config import ServeOptions
from epp.config.picker_config import parse_picker_config
from epp.config.third_party import third_party_types
from epp.core.claims import RequestClaims
from epp.core.scheduling import Scheduler
from epp.core.scheduling.catalogue import CATALOGUE
from epp.core.scheduling.default import default_scheduler
from epp.core.scheduling.scorers.first_token import FirstTokenOptions
from epp.discovery.files import FileSource
from epp.service import Service

from .core.support import Harness, RecordingGateWaiter, destination

_PROJECT = Path(__file__).parents[1]
_PAGES = [
    *(_PROJECT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((_PROJECT / "docs").glob("*.md")),
    *sorted((_PROJECT / "config").rglob("*.md")),
]
_SCHEDULING = (_PROJECT / "docs/scheduling.md").read_text()


# ---- links ----


def anchors(page: Path) -> set[str]:
    """What headings can be linked by, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# ---- docs/scheduling.md ----


def test_the_table_of_plugins_has_them_all() -> None:
    [table] = re.findall(r"^\| type \| .*\n((?:\|.*\n)+)", _SCHEDULING, re.MULTILINE)
    first_cells = "".join(line.split("|")[1] for line in table.splitlines())
    named = re.findall(r"`([a-z-]+)`", first_cells)
    assert sorted(named) == sorted(CATALOGUE)


def test_the_formula_has_the_defaults_of_the_scorer() -> None:
    options = FirstTokenOptions()
    formula = (
        f"cost = backlog + {1 + options.pollution:g} * uncached"
        f" + {options.recent_weight:g} * recent + {options.request_tokens:g} * in flight"
        f" + {options.waiting_tokens:g} * waiting + adapter\n"
    )
    assert formula in _SCHEDULING
    for said in (
        f"at {options.tokens_per_s:,.0f} a second",
        f"those of {options.recent_s:g} s ago count 1/e",
        f"{options.adapter_load_s:g} s where the LoRA adapter is not loaded, and"
        f" {options.adapter_wait_s:g} s more",
    ):
        assert said in _SCHEDULING


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", _SCHEDULING, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def _own_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of the page, as if it were installed."""
    project = tomllib.loads(block("toml"))["project"]
    [(name, value)] = project["entry-points"]["epp.plugins"].items()
    module = value.partition(":")[0]
    (tmp_path / f"{module}.py").write_text(block("python"))
    info = tmp_path / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text(f"[epp.plugins]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    third_party_types.cache_clear()
    yield
    third_party_types.cache_clear()
    sys.modules.pop(module, None)


@pytest.mark.usefixtures("_own_plugin")
def test_the_plugin_of_ones_own_works() -> None:
    config = parse_picker_config("config.yaml", block("yaml").encode())
    scheduler = config.new_scheduler()
    scorers = scheduler.profiles["default"].scorers
    assert [each.name for each in scorers] == ["first-token-scorer", "rested-scorer"]
    harness = Harness((1, 2), scheduler=scheduler, max_concurrency=10)
    claims = RequestClaims(model="m", prompt_tokens=100)
    assert sorted(picked(harness, claims, 2)) == [destination(1), destination(2)]
    explanation = harness.router.explain_pick(harness.router.resolve(claims), harness.now)
    assert explanation is not None
    [step] = [step for step in explanation.scorers if step.name == "rested-scorer"]
    assert step.scores == [0.0, 0.0]
    harness.clock.advance(5.0)
    explanation = harness.router.explain_pick(harness.router.resolve(claims), harness.now)
    assert explanation is not None
    [step] = [step for step in explanation.scorers if step.name == "rested-scorer"]
    assert step.scores == pytest.approx([0.632, 0.632], abs=1e-3)


def picked(harness: Harness, claims: RequestClaims, count: int) -> list[str]:
    """Who got so many equal requests within a millisecond."""
    found = []
    for number in range(count):
        waiter = RecordingGateWaiter()
        harness.router.admit(claims, waiter, harness.now + number * 1e-3 / count)
        assert waiter.destination is not None
        found.append(waiter.destination)
    return found


def reference_profile() -> Scheduler:
    file = _PROJECT / "config/picker/default-trio.yaml"
    return parse_picker_config(file.name, file.read_bytes()).new_scheduler()


@pytest.mark.parametrize(
    ("tokens", "make", "shares"),
    [
        (640, reference_profile, [64]),
        (640, default_scheduler, [8] * 8),
        (2_560, default_scheduler, [21, 21, 21, 1]),
        (5_120, default_scheduler, [41, 23]),
        (25_600, default_scheduler, [64]),
    ],
)
def test_the_burst_of_equal_prompts_goes_where_the_page_says(
    tokens: int, make: Callable[[], Scheduler], shares: list[int]
) -> None:
    harness = Harness(range(1, 9), scheduler=make(), max_concurrency=1000)
    prefix = bytes(number % 251 for number in range(tokens // 64 * 8))
    claims = RequestClaims(model="m", prompt_tokens=tokens, prefix=prefix)
    assert sorted(Counter(picked(harness, claims, 64)).values(), reverse=True) == shares


# ---- README.md, config/manifests ----


async def test_the_readme_has_every_metric(tmp_path: Path) -> None:
    for name in ("pool.yaml", "objectives.yaml"):
        (tmp_path / name).write_bytes((_PROJECT / "config/manifests" / name).read_bytes())
    options = ServeOptions(
        manifests=(tmp_path,), host="127.0.0.1", grpc_port=0, health_port=0, metrics_port=0
    )
    async with Service(options) as service:
        page = service.metrics.render().decode()
    names = set(re.findall(r"^# TYPE llm_d_epp_(\w+)", page, re.MULTILINE))
    readme = (_PROJECT / "README.md").read_text()
    assert {name for name in names if f"`{name}`" not in readme} == set()


async def test_the_example_manifests_are_good() -> None:
    [resources] = await FileSource((_PROJECT / "config/manifests",)).load()
    assert resources.pool.name == "llm"
    assert len(resources.endpoints) == 3
    assert set(resources.objectives) == {"interactive", "batch"}
    assert [rule.models for rule in resources.rewrites] == [("chat",), ("chat-preview",)]
