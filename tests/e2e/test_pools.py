"""Two pools by one EPP, and how a real Envoy tells it which of them a request is for."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from .conftest import logged_stack
from .stack import Stack, destination, model_server
from .support import completion, eventually

COMPLETIONS = "/v1/completions"
KEY = "x-gateway-inference-pool"
_PAGE = Path(__file__).parents[2] / "docs/pools.md"

# The pool of the other tests is retired as well: only those without that label are served.
POOL = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata:
  name: {name}
  labels: {{{labels}}}
  annotations:
    inference-epp/authorities: {name}.example
    inference-epp/models: model-{name}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  targetPorts: [{{number: 8000}}]
"""


def _name_pools(document: dict[str, Any], snippet: int) -> None:
    """Let the routes of a gateway name their pools, as the page says that it is done."""
    pieces = re.findall(r"^```yaml\n(.*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    piece = yaml.safe_load(pieces[snippet])
    (listener,) = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    (everything,) = host["routes"]
    (given,) = piece["route_config"]["virtual_hosts"]
    routes = given["routes"]
    routes.append(
        {
            "match": {"prefix": "/gamma/"},
            "route": {"cluster": "inference_pool", "prefix_rewrite": "/"},
            "metadata": {"filter_metadata": {"envoy.lb": {KEY: "gamma"}}},
        }
    )
    for each in routes:
        each["route"] = {**everything["route"], **each["route"]}
    host["routes"] = [*routes, everything]
    ext_proc, router = manager["http_filters"]
    *before, more = piece["http_filters"]
    ext_proc["typed_config"].update(more["typed_config"])
    manager["http_filters"] = [*before, ext_proc, router]


def by_metadata(document: dict[str, Any]) -> None:
    _name_pools(document, 1)


def by_filter(document: dict[str, Any]) -> None:
    _name_pools(document, 2)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["one process", "workers"])
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """Two pools with a model server each, which have taken the place of another one."""
    servers = [model_server(name, step_s=0.0002) for name in ("alpha", "beta")]
    arguments = ["--pool-selector", "!retired"]
    if request.param == "workers":
        arguments += ["--workers", "2"]
    directory = tmp_path_factory.mktemp("pools")
    async with logged_stack(directory, servers, arguments=arguments) as stack:
        entries = [
            {
                "name": s.options.name,
                "address": host,
                "port": port,
                "labels": {"app": s.options.name},
            }
            for s in servers
            for host, _, port in (destination(s).rpartition(":"),)
        ]
        stack.manifests.write("endpoints.yaml", json.dumps({"endpoints": entries}))
        for name in ("alpha", "beta"):
            stack.manifests.write(f"{name}.yaml", POOL.format(name=name, labels=""))
        stack.manifests.write("pool.yaml", POOL.format(name="pool", labels='retired: "yes"'))
        await pools_are(stack, {"alpha", "beta"})
        yield stack
        await stack.at_rest()


async def pools_are(stack: Stack, names: set[str]) -> None:
    async def are() -> None:
        series = (await stack.metrics()).series("inflight_requests")
        assert {labels["inference_pool"] for labels, _ in series} == names

    await eventually(are)


async def answer(
    stack: Stack,
    path: str,
    *,
    model: str | None = "m",
    headers: Mapping[str, str] | None = None,
    way: Callable[[dict[str, Any]], None] = by_metadata,
) -> tuple[aiohttp.ClientResponse, dict[str, Any]]:
    """Return what becomes of a request, one without a body where there is no model."""
    gateway = await stack.gateway(edit=way)
    method, data = ("GET", None) if model is None else ("POST", completion(model=model))
    sent = {"content-type": "application/json", **(headers or {})}
    async with stack.client.request(method, gateway.url + path, data=data, headers=sent) as found:
        return found, await found.json()


async def server_of(stack: Stack, path: str, **more: Any) -> str:
    found, document = await answer(stack, path, **more)
    assert found.status == 200, document
    return found.headers["x-served-by"]


@pytest.mark.parametrize("way", [by_metadata, by_filter])
@pytest.mark.parametrize("name", ["alpha", "beta"])
async def test_the_route_names_the_pool(
    stack: Stack, way: Callable[[dict[str, Any]], None], name: str
) -> None:
    other = "beta" if name == "alpha" else "alpha"
    claims = {"host": f"{other}.example", KEY: other}  # what a client says does not count
    for path, model in (
        (f"/{name}{COMPLETIONS}", f"model-{other}"),
        (f"/{name}{COMPLETIONS}", "m"),
        (f"/{name}/v1/models", None),
    ):
        assert await server_of(stack, path, model=model, headers=claims, way=way) == name


async def test_the_authority_tells_the_pool_and_then_the_model(stack: Stack) -> None:
    for name in ("alpha", "beta"):
        host = {"host": f"{name.upper()}.example:8080"}
        assert await server_of(stack, COMPLETIONS, headers=host) == name
        assert await server_of(stack, COMPLETIONS, headers=host, model="model-alpha") == name
        assert await server_of(stack, COMPLETIONS, model=f"model-{name}") == name
        assert await server_of(stack, "/v1/models", model=None, headers=host) == name


async def test_what_is_for_no_pool_is_not_found(stack: Stack) -> None:
    for path, model, reason in (
        (COMPLETIONS, "unknown", "model-not-found"),
        ("/v1/models", None, "pool-not-found"),
        ("/gamma" + COMPLETIONS, "model-alpha", "pool-not-found"),
    ):
        found, document = await answer(stack, path, model=model, headers={KEY: "alpha"})
        assert found.status == 404
        assert found.headers["x-llm-d-request-dropped-reason"] == f"rejected-{reason}"
        assert "retry-after" not in found.headers
        error = document["error"]
        assert error["type"] == "invalid_request_error"
        assert error["code"] == reason.replace("-", "_")
    found, document = await answer(stack, "/v1/messages", model="unknown")
    assert (found.status, document["error"]["type"]) == (404, "not_found_error")


async def test_a_pool_goes_and_comes_while_the_other_one_serves(stack: Stack) -> None:
    path = "/beta" + COMPLETIONS
    stack.manifests.write("beta.yaml", POOL.format(name="beta", labels='retired: "yes"'))
    await pools_are(stack, {"alpha"})
    assert (await answer(stack, path))[0].status == 404
    assert await server_of(stack, COMPLETIONS) == "alpha", "the only pool"
    stack.manifests.write("beta.yaml", POOL.format(name="beta", labels=""))
    await pools_are(stack, {"alpha", "beta"})
    gateway = await stack.gateway(edit=by_metadata)
    await eventually(lambda: gateway.knows(2))
    assert await server_of(stack, path) == "beta"
