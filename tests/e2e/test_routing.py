"""Where requests go matters: what clients and caches see of it, by policy."""

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import fmean, quantiles
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import pytest_asyncio

from epp.modelserver.engine import EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.server import ModelServer
from epp.observability.explain import PickAnswer

from .conftest import StartStack, logged_stack
from .http1 import Http1, request_head
from .stack import Gateway, Stack, begin_stream, model_server
from .support import HINT_HEADER, chat, completion, eventually, subset_hint
from .test_workers import both_have_streams

CHAT = "/v1/chat/completions"

SERVERS = 4
CLIENTS = 8
CONVERSATIONS = 24
TURNS = 5
CONTEXT_TOKENS = 2000
"""What each conversation begins with. A server's cache holds ten of these, and a quarter of all
conversations is six."""

RANDOM = """\
plugins: [{type: random-picker}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: random-picker}]}]
"""
LEAST_IN_FLIGHT = """\
plugins: [{type: active-request-scorer}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: active-request-scorer}]}]
"""
REFERENCE = """\
plugins:
  - {type: queue-scorer}
  - {type: kv-cache-utilization-scorer}
  - {type: prefix-cache-scorer}
  - {type: max-score-picker}
schedulingProfiles:
  - name: default
    plugins:
      - {pluginRef: queue-scorer, weight: 2}
      - {pluginRef: kv-cache-utilization-scorer, weight: 2}
      - {pluginRef: prefix-cache-scorer, weight: 3}
      - {pluginRef: max-score-picker}
"""
POLICIES = {
    "random": RANDOM,
    "least in flight": LEAST_IN_FLIGHT,
    "reference": REFERENCE,
    "ours": "",
}


def caching_server(name: str, *, max_loras: int = 0, **more: object) -> ModelServer:
    """Return a server for which a prompt of 2000 tokens is a quarter of a second's work, and a
    token of output hardly any."""
    latency = LatencyModel(
        prefill_tokens_per_s=8000.0,
        decode_step_s=0.005,
        decode_step_per_seq_s=0.0,
        lora_load_s=0.02,
    )
    blocks = 10 * CONTEXT_TOKENS // 16
    engine = EngineOptions(num_kv_blocks=blocks, max_loras=max_loras, latency=latency)
    options = {"name": name, "port": 0, "engine": engine, **more}
    return ModelServer(ModelServerOptions(**options))  # type: ignore[arg-type]


class Played(NamedTuple):
    """What a workload was like under a policy, with the times to the first byte of answers."""

    mean_s: float
    later_p95_s: float
    """Of the turns after the first ones."""
    hit_ratio: float
    """The share of all prompt tokens that a server had in its cache."""
    stayed: int
    """How many conversations had one server for all turns."""


class Conversation:
    """A chat that grows by what was answered."""

    def __init__(self, name: str, context_tokens: int) -> None:
        text = f"{name}: " + f"This is what {name} is all about. " * context_tokens
        self.name = name
        self._messages = [{"role": "system", "content": text[: 4 * context_tokens]}]
        self._turn = asyncio.Lock()
        self.first_byte_s: list[float] = []
        self.servers: list[str] = []

    async def turn(self, http1: Http1, *, more: str = "what else? ") -> None:
        """Take one turn, after the last one."""
        async with self._turn:
            await self._take_turn(http1, more)

    async def _take_turn(self, http1: Http1, more: str) -> None:
        question = f"Question {len(self.servers)} about {self.name}: {more}"
        self._messages.append({"role": "user", "content": question})
        content = {"model": "m", "messages": self._messages, "max_tokens": 8, "stream": True}
        body = json.dumps(content).encode()
        began_s = time.monotonic()
        await http1.send(request_head("POST", CHAT, [("content-length", str(len(body)))]) + body)
        head = await http1.head()
        answer = await http1.chunk()
        self.first_byte_s.append(time.monotonic() - began_s)
        while piece := await http1.chunk():
            answer += piece
        assert head.status == 200
        self.servers.append(head.headers["x-served-by"])
        self._messages.append({"role": "assistant", "content": text_of(answer)})


def text_of(events: bytes) -> str:
    """Return the text of a streamed answer."""
    datas = [line[6:] for line in events.splitlines() if line.startswith(b"data: {")]
    choices = [choice for data in datas for choice in json.loads(data)["choices"]]
    return "".join(choice["delta"]["content"] for choice in choices)


@asynccontextmanager
async def routing_stack(
    directory: Path, servers: Sequence[ModelServer], config: str = "", *more_arguments: str
) -> AsyncIterator[Stack]:
    """Start a stack with this configuration; every engine has told of itself, none is at work."""
    arguments = [*(("--config-text", config) if config else ()), *more_arguments]

    async def known() -> None:
        page = await stack.metrics()
        assert len(page.series("scrape_age_seconds")) == len(servers)

    async with logged_stack(directory, servers, arguments=arguments, max_concurrency=None) as stack:
        await eventually(known)
        yield stack
        await stack.at_rest()


def tokens_of(servers: Sequence[ModelServer]) -> tuple[int, int]:
    """Return how many tokens prompts had, and how many of these were in a cache."""
    states = [server.state() for server in servers]
    return (
        sum(state.prefix_queried_tokens for state in states),
        sum(state.prefix_hit_tokens for state in states),
    )


async def play(gateway: Gateway, conversations: Sequence[Conversation]) -> None:
    """Let clients take turns in the conversations, each time in another one.

    A client that went on with its own would come back to where it has just left, since that is the
    server with the fewest requests: least in flight would look like affinity.
    """
    rng = random.Random(1)
    turns = [each for _ in range(TURNS) for each in rng.sample(conversations, len(conversations))]
    left = iter(turns)

    async def client() -> None:
        async with Http1(gateway.port) as http1:
            for each in left:
                await each.turn(http1)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(client())


async def played(directory: Path, config: str) -> Played:
    """Return what the workload is like with this configuration, on servers of its own."""
    servers = [caching_server(f"server-{number}") for number in range(SERVERS)]
    names = [f"conversation {number}" for number in range(CONVERSATIONS)]
    conversations = [Conversation(name, CONTEXT_TOKENS) for name in names]
    async with routing_stack(directory, servers, config) as stack:
        await play(await stack.gateway(), conversations)
    queried, hit = tokens_of(servers)
    later_s = [first_byte_s for each in conversations for first_byte_s in each.first_byte_s[1:]]
    return Played(
        mean_s=fmean(first_byte_s for each in conversations for first_byte_s in each.first_byte_s),
        later_p95_s=quantiles(later_s, n=20)[-1],
        hit_ratio=hit / queried,
        stayed=sum(len(set(each.servers)) == 1 for each in conversations),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Played]:
    """What the workload is like under each policy: about half a minute in all."""
    return {
        name: await played(tmp_path_factory.mktemp("policy"), config)
        for name, config in POLICIES.items()
    }


# Policies


async def test_less_is_computed_twice(results: Mapping[str, Played]) -> None:
    """Four of five turns can find all that was before them: 0.8 is the most."""
    ours = results["ours"]
    assert ours.hit_ratio > 0.65
    for blind in ("random", "least in flight"):
        assert results[blind].hit_ratio < 0.5
    assert ours.hit_ratio > results["reference"].hit_ratio - 0.05


async def test_clients_wait_less(results: Mapping[str, Played]) -> None:
    """For the first byte: in the mean of all turns, and in the worst of those that go on."""
    ours = results["ours"]
    for blind in ("random", "least in flight"):
        assert ours.mean_s < 0.7 * results[blind].mean_s
        assert ours.later_p95_s < 0.7 * results[blind].later_p95_s
    assert ours.mean_s < 1.3 * results["reference"].mean_s


async def test_conversations_stay_where_they_are(results: Mapping[str, Played]) -> None:
    assert results["ours"].stayed > 0.8 * CONVERSATIONS
    assert results["random"].stayed < 0.3 * CONVERSATIONS


async def test_a_chat_that_grows_to_many_times_its_length_is_found_to_its_end(
    tmp_path: Path,
) -> None:
    """Others come and go meanwhile, so that its server is not always the one with least to do."""
    servers = [caching_server(f"server-{number}") for number in range(SERVERS)]
    async with routing_stack(tmp_path, servers) as stack:
        gateway = await stack.gateway()
        growing = Conversation("growing", 100)
        last_tokens = 0
        async with Http1(gateway.port) as http1, Http1(gateway.port) as others:
            for number in range(8):
                before = tokens_of(servers)
                await growing.turn(http1, more="and then? " * 80)
                queried, hit = np.subtract(tokens_of(servers), before)
                assert hit > last_tokens - 32  # all blocks that it had filled
                last_tokens = queried
                for other in range(3):
                    await Conversation(f"other {number} {other}", 150).turn(others)
        assert len(set(growing.servers)) == 1
        assert last_tokens > 8 * 100


# Restarts


async def test_what_an_engine_had_cached_is_not_looked_for_after_its_restart(
    tmp_path: Path, exits: AsyncExitStack
) -> None:
    """Of two servers one has all of a document and the other half. Then the first restarts."""
    servers = [caching_server(name) for name in ("all", "half")]
    document = "".join(f"{number:07} " for number in range(1000))
    half, whole, again = (chat(text, 1) for text in (document[:4000], document, document + "?"))
    async with routing_stack(tmp_path, servers) as stack:
        gateway = await stack.gateway(subset_hint_header=HINT_HEADER)
        http1 = await exits.enter_async_context(Http1(gateway.port))
        for number, body in ((1, half), (0, whole)):
            hint = subset_hint(stack.destination(number))
            assert (await http1.post(CHAT, body, [hint])).status == 200
        assert (await http1.post(CHAT, again)).headers["x-served-by"] == "all"
        assert not await is_forgotten(stack, again, stack.destination(0))
        await servers[0].stop()
        restarted = caching_server("all", port=servers[0].port)
        await exits.enter_async_context(restarted)
        await eventually(lambda: is_forgotten(stack, again, stack.destination(0)))
        assert (await http1.post(CHAT, again)).headers["x-served-by"] == "half"


async def is_forgotten(stack: Stack, body: bytes, destination: str) -> bool:
    """Return whether a server is believed to have nothing of a prompt."""
    url = f"http://127.0.0.1:{stack.process.metrics_port}/debug/explain-pick"
    async with stack.client.post(url, data=body) as response:
        answer = msgspec.json.decode(await response.read(), type=PickAnswer)
    (candidate,) = [each for each in answer.candidates if each.destination == destination]
    return candidate.scores[0].parts["uncached"] >= answer.prompt_tokens


# Adapters


async def adapter_loads(directory: Path, config: str) -> int:
    """Return how often an adapter had to be loaded by four servers with four slots each, for 240
    requests for twelve adapters."""
    names = [f"adapter-{number}" for number in range(12)]
    servers = [
        caching_server(f"server-{number}", loras=tuple(names), max_loras=4)
        for number in range(SERVERS)
    ]
    rng = random.Random(1)
    left = iter([(number, rng.choice(names)) for number in range(240)])

    async def client() -> None:
        async with Http1(gateway.port) as http1:
            for number, name in left:
                body = completion(f"{number} of {name}", 4, model=name)
                assert (await http1.post("/v1/completions", body)).status == 200

    async with routing_stack(directory, servers, config) as stack:
        gateway = await stack.gateway()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(client())
    return sum(server.state().adapter_loads for server in servers)


async def test_adapters_are_loaded_far_less_often(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    by_chance = await adapter_loads(tmp_path_factory.mktemp("random"), RANDOM)
    ours = await adapter_loads(tmp_path_factory.mktemp("ours"), "")
    assert 12 <= ours < 0.45 * by_chance


# Sessions

SESSIONS = """\
plugins: [{type: session-affinity-filter}, {type: random-picker}]
schedulingProfiles:
  - {name: default, plugins: [{pluginRef: session-affinity-filter}, {pluginRef: random-picker}]}
"""
TOKEN = "x-session-token"
AT_ONCE = 24
"""Requests, each with a connection of its own from Envoy to a worker."""


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_session_goes_on_where_its_token_says_and_a_forged_one_says_nothing(
    start_stack: StartStack, workers: int
) -> None:
    """The same tokens are good in both workers."""
    servers = [model_server(name, 32) for name in ("one", "two", "three")]
    stack = await start_stack(
        servers,
        arguments=["--config-text", SESSIONS, "--workers", str(workers)],
        max_concurrency=32,
    )
    gateway = await stack.gateway(ext_proc_connection_streams=1)
    token_of: dict[str, set[str]] = {}

    async def call(token: str | None) -> str:
        headers = [] if token is None else [(TOKEN, token)]
        async with Http1(gateway.port) as http1:
            answer = await http1.post(CHAT, chat(max_tokens=10), headers)
        assert answer.status == 200
        server = answer.headers["x-served-by"]
        token_of.setdefault(server, set()).add(answer.headers[TOKEN])
        return server

    async def served(token: str | None) -> set[str]:
        """Return which servers serve many that come at once with this token."""
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(call(token)) for _ in range(AT_ONCE)]
        return {each.result() for each in calls}

    if workers > 1:
        async with AsyncExitStack() as exits:
            for _ in range(AT_ONCE):
                await begin_stream(gateway, exits)
            await both_have_streams(stack)
    assert len(await served(None)) > 1
    for server in list(token_of):
        (token,) = token_of[server]
        assert await served(token) == {server}
    first = "A" if token[0] != "A" else "B"
    for forged in (first + token[1:], base64.b64encode(b"e0").decode(), stack.destination(0)):
        assert len(await served(forged)) > 1
    assert all(len(tokens) == 1 for tokens in token_of.values())
    await stack.at_rest()
