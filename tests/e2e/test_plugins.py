"""What scheduling plugins do to real requests, one of each family."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from .conftest import StartStack, logged_stack
from .http1 import Http1
from .stack import Stack, model_server
from .support import completion, eventually, nobody_listens

COMPLETIONS = "/v1/completions"
ROLE = "llm-d.ai/role"
TIER = "x-tier"
SERVERS: Mapping[str, Mapping[str, str]] = {
    "zero": {ROLE: "prefill", "tier": "gold"},
    "one": {ROLE: "decode", "tier": "silver"},
    "two": {ROLE: "prefill-decode", "tier": "bronze"},
    "three": {},
}
"""And their labels."""

PREFERS_TIER = (
    f"type: header-label-affinity-scorer, parameters: {{headerName: {TIER}, labelKey: tier}}"
)
BY_PROFILE = """\
plugins:
- {type: header-profile-handler}
- {type: decode-filter}
- {type: prefill-filter}
- {type: random-picker}
schedulingProfiles:
- {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: random-picker}]}
- {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: random-picker}]}
"""


def profile(*plugins: str) -> str:
    """Return a configuration with one profile of these plugins."""
    lines = ["plugins:", *(f"- {{name: p{number}, {each}}}" for number, each in enumerate(plugins))]
    lines += ["schedulingProfiles:", "- name: default", "  plugins:"]
    return "\n".join([*lines, *(f"  - pluginRef: p{number}" for number in range(len(plugins)))])


async def label(stack: Stack, labels: Iterable[tuple[str, Mapping[str, str]]]) -> None:
    """Make these the endpoints, with their labels."""
    entries = [
        {"name": f"e{number}", "address": address, "port": port, "labels": {"app": "llm", **more}}
        for number, (destination, more) in enumerate(labels)
        for address, port in [destination.split(":")]
    ]
    stack.manifests.write("endpoints.yaml", json.dumps({"endpoints": entries}))
    await stack.reloaded(2)


class Configured:
    """Four servers with labels, and a configuration that a test can change."""

    def __init__(self, stack: Stack, file: Path) -> None:
        self.stack = stack
        self._file = file

    async def use(self, config: str) -> None:
        """Go by this configuration."""
        before = await self._applied()
        self._file.write_text(config)
        self.stack.process.process.signal(signal.SIGHUP)

        async def applied() -> bool:
            return await self._applied() > before

        await eventually(applied)

    async def served(self, *headers: tuple[str, str]) -> set[str]:
        """Return which servers serve forty requests with these headers."""
        async with Http1((await self.stack.gateway()).port) as http1:
            answers = [await http1.post(COMPLETIONS, completion(), headers) for _ in range(40)]
        assert {answer.status for answer in answers} == {200}
        return {answer.headers["x-served-by"] for answer in answers}

    async def _applied(self) -> float:
        return (await self.stack.metrics()).sum("config_reload_total", result="applied")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Configured]:
    directory = tmp_path_factory.mktemp("plugins")
    file = directory / "picker.yaml"
    file.write_text("plugins: []\n")
    servers = [model_server(name, step_s=0.0002) for name in SERVERS]
    arguments = ["--config-file", str(file)]
    async with logged_stack(directory, servers, arguments=arguments) as stack:
        destinations = map(stack.destination, range(len(servers)))
        await label(stack, zip(destinations, SERVERS.values(), strict=True))
        yield Configured(stack, file)


@pytest_asyncio.fixture(loop_scope="session")
async def configured(module_stack: Configured) -> AsyncIterator[Configured]:
    """The servers, which every test must leave at rest."""
    yield module_stack
    await module_stack.stack.at_rest()


async def test_roles(configured: Configured) -> None:
    """Who has no role decodes, and does not prefill for others."""
    await configured.use(profile("type: decode-filter", "type: random-picker"))
    assert await configured.served() == {"one", "two", "three"}
    await configured.use(profile("type: prefill-filter", "type: random-picker"))
    assert await configured.served() == {"zero", "two"}


async def test_a_selector_of_labels(configured: Configured) -> None:
    expressions = "{key: tier, operator: In, values: [gold, silver]}, {key: app, operator: Exists}"
    selector = f"type: label-selector-filter, parameters: {{matchExpressions: [{expressions}]}}"
    await configured.use(profile(selector, "type: random-picker"))
    assert await configured.served() == {"zero", "one"}


async def test_the_label_that_a_header_asks_for_is_preferred(configured: Configured) -> None:
    """And who asks for nothing, or for what nobody has, can go anywhere."""
    await configured.use(profile(PREFERS_TIER))
    assert await configured.served((TIER, "silver")) == {"one"}
    assert len(await configured.served((TIER, "lead"))) > 1
    assert len(await configured.served()) > 1


async def test_a_header_names_the_profile(configured: Configured) -> None:
    """Names that no profile has stand for the default."""
    await configured.use(BY_PROFILE)
    assert await configured.served(("epp-profile", "prefill")) == {"zero", "two"}
    assert await configured.served(("epp-profile", "no such")) == {"one", "two", "three"}
    assert await configured.served() == {"one", "two", "three"}


async def test_the_second_best_is_there_to_fall_back_to(
    start_stack: StartStack,
) -> None:
    """The best does not listen; the others are not as good as the second."""
    config = profile(
        PREFERS_TIER,
        "type: label-selector-filter, parameters: {matchLabels: {zone: here}}",
        "type: max-score-picker, parameters: {maxNumOfEndpoints: 2}",
    )
    servers = [model_server(name) for name in ("there", "here", "nowhere")]
    with nobody_listens() as port:
        stack = await start_stack(servers, arguments=["--config-text", config])
        there, here, nowhere = map(stack.destination, range(3))
        dead = f"127.0.0.1:{port}"
        best = {"zone": "here", "tier": "gold"}
        labels = [(there, {"tier": "gold"}), (here, {"zone": "here"}), (nowhere, {}), (dead, best)]
        await label(stack, labels)
        gateway = await stack.gateway()
        async with Http1(gateway.port) as http1:
            for _ in range(8):
                answer = await http1.post(COMPLETIONS, completion(), [(TIER, "gold")])
                assert (answer.status, answer.headers["x-served-by"]) == (200, "here")
        told = {
            dict(request.headers)["x-gateway-destination-endpoint"]
            for request in stack.servers[1].state().requests
        }
        assert told == {f"{dead},{here}"}
        await stack.at_rest()


async def test_a_type_that_nobody_knows_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "picker.yaml"
    path.write_text(profile("type: queue-scorer", "type: prefix-cashe-scorer"))
    command = ("-m", "epp", "serve", "--manifests", str(tmp_path), "--config-file", str(path))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, said = await process.communicate()
    assert (process.returncode, printed) == (2, b"")
    found = f'{path}:3: plugins[1].type: found "prefix-cashe-scorer"'
    assert said.decode() == f'epp: {found}; did you mean "prefix-cache-scorer"?\n'
