import random
from contextlib import suppress
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.discovery.manifests import ManifestFile, parse_manifests
from epp.discovery.problems import ManifestError
from tests.discovery.support import (
    POOL,
    documents,
    endpoints,
    objective,
    problems_of,
    resources_of,
)

OBJECTIVE = objective("interactive", 10)
PARTS = (
    POOL,
    OBJECTIVE,
    objective("batch", -10),
    objective("batch", 3, group="inference.networking.x-k8s.io"),
    objective("other", 3, pool="other"),
    endpoints({"a": "10.0.0.1", "b": "2001:db8::1"}),
    endpoints({"c": "server.example", "d": "10.0.0.4"}, port=None),
    endpoints({"e": "10.0.0.5"}, app="other"),
    "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n",
)
ADDRESSES = {"server.example": ("10.0.1.1", "10.0.1.2")}


@given(
    order=st.permutations(range(len(PARTS))),
    files=st.lists(st.integers(0, 3), min_size=len(PARTS), max_size=len(PARTS)),
)
def test_neither_order_nor_files_matter(order: list[int], files: list[int]) -> None:
    texts = [
        documents(*(PARTS[part] for part in order if files[part] == file)) for file in range(4)
    ]
    found = resources_of(*filter(None, texts), addresses=ADDRESSES)
    assert found == resources_of(*PARTS, addresses=ADDRESSES)
    assert list(found.objectives) == ["batch", "interactive"]


@given(parts=st.sets(st.sampled_from(PARTS[1:])))
def test_what_is_left_out_is_all_that_is_missing(parts: set[str]) -> None:
    found = resources_of(POOL, *sorted(parts), addresses=ADDRESSES)
    every = resources_of(*PARTS, addresses=ADDRESSES)
    assert all(endpoint in every.endpoints for endpoint in found.endpoints)
    assert ("interactive" in found.objectives) == (OBJECTIVE in parts)
    assert len(found.endpoints) == 2 * (PARTS[5] in parts) + 3 * (PARTS[6] in parts)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def mutate(tree: Any, rng: random.Random, value: Any) -> Any:
    """Replace, remove, rename or repeat something somewhere in a tree."""
    if rng.random() < 0.2 or not isinstance(tree, dict | list) or not tree:
        return value
    if isinstance(tree, list):
        index = rng.randrange(len(tree))
        changed = [*tree]
        changed[index] = mutate(tree[index], rng, value)
        return changed if rng.random() < 0.8 else [*tree, tree[index]]
    key = rng.choice(list(tree))
    match rng.randrange(6):
        case 0:
            return {name: child for name, child in tree.items() if name != key}
        case 1:
            return {f"{name}x" if name == key else name: child for name, child in tree.items()}
        case _:
            return tree | {key: mutate(tree[key], rng, value)}


@settings(max_examples=200)
@given(rng=st.randoms(use_true_random=False), value=VALUES, count=st.integers(1, 3))
def test_changed_manifests_raise_nothing_else(rng: random.Random, value: Any, count: int) -> None:
    trees = [yaml.safe_load(text) for text in PARTS]
    for _ in range(count):
        index = rng.randrange(len(trees))
        trees[index] = mutate(trees[index], rng, value)
    problems = problems_of(*(yaml.safe_dump(tree) for tree in trees))
    assert all("\n" not in problem for problem in problems)


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_bytes_raise_nothing_else(data: st.DataObject) -> None:
    raw = documents(*PARTS).encode()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        stop = data.draw(st.integers(start, min(len(raw), start + 40)))
        raw = raw[:start] + data.draw(st.binary(max_size=8)) + raw[stop:]
    with suppress(ManifestError):
        parse_manifests([ManifestFile("f.yaml", raw)])
