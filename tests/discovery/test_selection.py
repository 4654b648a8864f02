import pytest

from epp.core.resources import Endpoint
from epp.discovery import selection
from epp.discovery.problems import ManifestError
from epp.discovery.selection import place
from tests.discovery.support import (
    POOL,
    POOL_V1ALPHA2,
    endpoints,
    objective,
    problems_of,
    resources_of,
    selection_of,
    selections_of,
)


def pool(name: str, namespace: str = "default") -> str:
    return POOL.replace("name: llm", f"name: {name}\n  namespace: {namespace}")


def test_the_only_pool_is_taken() -> None:
    assert resources_of(POOL).pool.name == "llm"


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [
        ("a", None, "one/a"),
        ("b", "two", "two/b"),
        ("b", "one", "one/b"),
        (None, "three", "three/c"),
    ],
)
def test_a_pool_is_chosen(name: str | None, namespace: str | None, expected: str) -> None:
    texts = (pool("a", "one"), pool("b", "one"), pool("b", "two"), pool("c", "three"))
    found = resources_of(*texts, pool_name=name, pool_namespace=namespace).pool
    assert f"{found.namespace}/{found.name}" == expected


def labelled(name: str, labels: str, namespace: str = "default") -> str:
    return pool(name, namespace).replace("metadata:", f"metadata:\n  labels: {{{labels}}}", 1)


def test_several_pools_are_chosen_by_name_each_with_its_own() -> None:
    texts = (pool("a"), pool("b").replace("app: llm", "app: b"), pool("c"))
    lists = (endpoints({"x": "10.0.0.1"}), endpoints({"y": "10.0.0.2"}, app="b"))
    objectives = (objective("one", 1, pool="a"), objective("two", 2, pool="b"))
    first, second = selections_of(*texts, *lists, *objectives, names=("b", "a", "b"))
    assert (first.pool.key, second.pool.key) == ("default/a", "default/b")
    assert [entry.name for entry in first.endpoints] == ["default/x"]
    assert [entry.name for entry in second.endpoints] == ["default/y"]
    assert (list(first.objectives), list(second.objectives)) == (["one"], ["two"])


def test_each_name_must_be_there() -> None:
    with pytest.raises(ManifestError) as caught:
        selections_of(pool("a"), names=("a", "x", "y"), namespace="default")
    there = "there are: default/a (inference.networking.k8s.io)"
    assert caught.value.problems == (
        f"dir: found no InferencePool default/x; {there}",
        f"dir: found no InferencePool default/y; {there}",
    )


def test_pools_are_chosen_by_labels() -> None:
    texts = (labelled("a", "team: x"), labelled("b", "team: y"), labelled("b", "team: x", "two"))
    found = selections_of(*texts, selector="team in (x, z)")
    assert [selection.pool.key for selection in found] == ["default/a", "two/b"]
    [selection] = selections_of(*texts, selector="team", namespace="two")
    assert selection.pool.key == "two/b"


def test_what_labels_cannot_choose() -> None:
    twin = POOL_V1ALPHA2.replace("metadata:", "metadata:\n  labels: {team: x}")
    with pytest.raises(ManifestError) as caught:
        selections_of(labelled("llm", "team: x"), twin, selector="team")
    assert caught.value.problems == (
        "dir: found InferencePool default/llm by --pool-selector in the groups "
        "inference.networking.k8s.io and inference.networking.x-k8s.io; expected it in one",
    )
    with pytest.raises(ManifestError) as caught:
        selections_of(pool("a"), selector="team", namespace="one")
    assert caught.value.problems == (
        "dir: found no InferencePool one/* by --pool-selector; there are: default/a "
        "(inference.networking.k8s.io)",
    )


def test_a_pool_says_whose_requests_are_for_it() -> None:
    annotations = (
        'inference-epp/authorities: " A.Example, a.example.,b.example ,, "',
        "inference-epp/models: org/Model-1",
    )
    text = POOL.replace("metadata:", "metadata:\n  annotations:\n    " + "\n    ".join(annotations))
    found = resources_of(text).pool
    assert found.authorities == ("a.example", "b.example")
    assert found.models == ("org/Model-1",)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (
            "inference-epp/authorities: 'a.example:80'",
            'inference-epp/authorities"]: found "a.example:80"; expected host names or IP '
            "addresses, without port, with commas",
        ),
        (
            f"inference-epp/models: {'m' * 257}",
            f'inference-epp/models"]: found "{"m" * 59}… (cut); expected names of models, up to '
            "256 characters each",
        ),
        (
            f"inference-epp/models: '{','.join(map(str, range(257)))}'",
            'inference-epp/models"]: found 257 items; expected up to 256',
        ),
    ],
)
def test_annotations_of_a_pool_that_cannot_be(annotation: str, expected: str) -> None:
    [problem] = problems_of(
        POOL.replace("metadata:", f"metadata:\n  annotations: {{{annotation}}}")
    )
    assert problem == (
        f'a.yaml:1: document 1, InferencePool default/llm: metadata.annotations["{expected}'
    )


@pytest.mark.parametrize(
    ("texts", "options", "expected"),
    [
        ((), {}, "dir: found no InferencePool; expected one"),
        (
            (pool("a"), pool("b")),
            {},
            "dir: found more than one InferencePool; choose with --pool-name and "
            "--pool-namespace or with --pool-selector, or remove the others: "
            "default/a (inference.networking.k8s.io), default/b (inference.networking.k8s.io)",
        ),
        (
            (pool("a", "one"), pool("a", "two")),
            {"pool_name": "a"},
            "dir: found more than one InferencePool */a; choose with --pool-name and "
            "--pool-namespace or with --pool-selector, or remove the others: "
            "one/a (inference.networking.k8s.io), two/a (inference.networking.k8s.io)",
        ),
        (
            (POOL, POOL_V1ALPHA2),
            {},
            "dir: found more than one InferencePool; choose with --pool-name and "
            "--pool-namespace or with --pool-selector, or remove the others: "
            "default/llm (inference.networking.k8s.io), "
            "default/llm (inference.networking.x-k8s.io)",
        ),
        (
            (pool("a"),),
            {"pool_name": "x"},
            "dir: found no InferencePool */x; there are: default/a (inference.networking.k8s.io)",
        ),
        (
            (pool("a"),),
            {"pool_name": "a", "pool_namespace": "y"},
            "dir: found no InferencePool y/a; there are: default/a (inference.networking.k8s.io)",
        ),
        (
            (pool("a"),),
            {"pool_namespace": "y"},
            "dir: found no InferencePool y/*; there are: default/a (inference.networking.k8s.io)",
        ),
        (
            (POOL, endpoints({"a": "10.0.0.1", "b": "10.0.0.1"})),
            {},
            "b.yaml:6: document 1, endpoints[1]: endpoint default/b: found 10.0.0.1:8000 again; "
            "expected each destination once (also at b.yaml:2: document 1, endpoints[0])",
        ),
        (
            (POOL, endpoints({"a": "::1"}, port=None), endpoints({"b": "[0:0::1]"})),
            {},
            "c.yaml:2: document 1, endpoints[0]: endpoint default/b: found [::1]:8000 again; "
            "expected each destination once (also at b.yaml:2: document 1, endpoints[0])",
        ),
        (
            (POOL, endpoints({"a": "Server.Example"}), endpoints({"b": "server.example"})),
            {},
            "c.yaml:2: document 1, endpoints[0]: endpoint default/b: found server.example:8000 "
            "again; expected each destination once (also at b.yaml:2: document 1, endpoints[0])",
        ),
    ],
)
def test_what_cannot_be_selected(
    texts: tuple[str, ...], options: dict[str, str], expected: str
) -> None:
    assert problems_of(*texts, **options) == (expected,)


def test_objectives_of_other_pools_are_left_out_and_named() -> None:
    found = selection_of(
        POOL,
        objective("mine", 1),
        objective("pool", 1, pool="other"),
        objective("group", 1, pool_group="inference.networking.x-k8s.io"),
        objective("namespace", 1, namespace="other"),
        objective("kind", 1).replace("    name: llm", "    name: llm\n    kind: Service"),
    )
    assert list(found.objectives) == ["mine"]
    assert found.notes == (
        "objectives of other pools than default/llm (inference.networking.k8s.io) ignored: "
        "default/group (of inference.networking.x-k8s.io/InferencePool llm), "
        "default/kind (of inference.networking.k8s.io/Service llm), "
        "default/pool (of inference.networking.k8s.io/InferencePool other), "
        "other/namespace (of inference.networking.k8s.io/InferencePool llm)",
    )


def test_objectives_of_a_v1alpha2_pool() -> None:
    found = resources_of(
        POOL_V1ALPHA2,
        objective("mine", 1, pool_group="inference.networking.x-k8s.io"),
        objective("other", 1),
    )
    assert list(found.objectives) == ["mine"]


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_groups_llm_d_wins(reverse: bool) -> None:
    texts = [objective("a", 1), objective("a", 2, group="inference.networking.x-k8s.io")]
    found = selection_of(POOL, *(reversed(texts) if reverse else texts))
    assert found.objectives["a"].priority == 1
    assert found.notes == ("objectives in two API groups, taken from llm-d.ai: a",)


def test_the_selector_and_the_namespace_filter() -> None:
    text = """\
endpoints:
- {name: both, address: 10.0.0.1, labels: {app: llm, role: decode, more: x}}
- {name: one, address: 10.0.0.2, labels: {app: llm}}
- {name: other, address: 10.0.0.3, labels: {app: llm, role: prefill}}
- {name: none, address: 10.0.0.4}
- {name: away, namespace: away, address: 10.0.0.5, labels: {app: llm, role: decode}}
"""
    found = selection_of(POOL.replace("app: llm", "app: llm\n      role: decode"), text)
    assert [entry.name for entry in found.endpoints] == ["default/both"]
    assert found.notes == (
        "endpoints not in namespace default or without the labels of the pool's selector "
        "(app=llm, role=decode) left out: away/away, default/none, default/one, default/other",
    )


def test_an_empty_selector_takes_all_of_the_namespace() -> None:
    text = "endpoints:\n- {name: a, address: 10.0.0.1}\n- {name: b, address: '::1', namespace: x}\n"
    found = selection_of(POOL.replace("      app: llm\n", "      {}\n"), text)
    assert [entry.name for entry in found.endpoints] == ["default/a"]
    assert found.notes == (
        "endpoints not in namespace default or without the labels of the pool's selector "
        "(any) left out: x/b",
    )


def test_equal_destinations_of_other_pools_do_no_harm() -> None:
    texts = (endpoints({"a": "10.0.0.1"}), endpoints({"b": "10.0.0.1"}, app="other"))
    assert len(resources_of(POOL, *texts).endpoints) == 1


def test_long_lists_of_names_are_cut() -> None:
    texts = [objective(f"o{index:02}", 1, pool="other") for index in range(12)]
    [note] = selection_of(POOL, *texts).notes
    assert "default/o09" in note
    assert "default/o10" not in note
    assert note.endswith(" and 2 more")


def test_every_endpoint_has_a_name_of_its_own() -> None:
    ports = POOL.replace("- number: 8000", "- number: 8000\n    - number: 8001")
    text = """\
endpoints:
- {name: ip, address: 10.0.0.1, port: 1, labels: {app: llm}}
- {name: ip-ports, address: "::1", labels: {app: llm}}
- {name: one, address: one.example, port: 1, labels: {app: llm}}
- {name: two, address: two.example, port: 1, labels: {app: llm}}
- {name: two-ports, address: two.example, labels: {app: llm}}
- {name: nobody, address: nobody.example, labels: {app: llm}}
"""
    addresses = {"one.example": ("10.1.0.1",), "two.example": ("2001:db8::1", "2001:db8::2")}
    found = resources_of(ports, text, addresses=addresses).endpoints
    assert [(endpoint.name, endpoint.destination) for endpoint in found] == [
        ("default/ip", "10.0.0.1:1"),
        ("default/ip-ports-rank-0", "[::1]:8000"),
        ("default/ip-ports-rank-1", "[::1]:8001"),
        ("default/one", "10.1.0.1:1"),
        ("default/two-ports-rank-0@2001:db8::1", "[2001:db8::1]:8000"),
        ("default/two-ports-rank-0@2001:db8::2", "[2001:db8::2]:8000"),
        ("default/two-ports-rank-1@2001:db8::1", "[2001:db8::1]:8001"),
        ("default/two-ports-rank-1@2001:db8::2", "[2001:db8::2]:8001"),
        ("default/two@2001:db8::1", "[2001:db8::1]:1"),
        ("default/two@2001:db8::2", "[2001:db8::2]:1"),
    ]


def test_names_that_lead_to_one_destination_are_one_endpoint() -> None:
    found = selection_of(
        POOL, endpoints({"a": "a.example", "b": "b.example", "z": "10.0.0.1", "c": "c.example"})
    )
    resources, notes = place(
        found,
        {"a.example": ("10.0.0.1",), "b.example": ("10.0.0.2",), "c.example": ("10.0.0.2",)},
    )
    labels = {"app": "llm"}
    assert resources.endpoints == (
        Endpoint(name="default/b", address="10.0.0.2", port=8000, labels=labels),
        Endpoint(name="default/z", address="10.0.0.1", port=8000, labels=labels),
    )
    assert notes == (
        "endpoint default/a ignored: 10.0.0.1:8000 is default/z",
        "endpoint default/c ignored: 10.0.0.2:8000 is default/b",
    )


def test_the_number_of_endpoints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_ENDPOINTS", 2)
    ports = POOL.replace("- number: 8000", "- number: 1\n    - number: 2\n    - number: 3")
    assert problems_of(ports, endpoints({"a": "10.0.0.1"}, port=None)) == (
        "dir: InferencePool default/llm: found 3 endpoints, counting every target port; "
        "expected up to 2",
    )
    found = selection_of(POOL, endpoints({"a": "a.example"}))
    resources, notes = place(found, {"a.example": ("10.0.0.1", "10.0.0.2", "10.0.0.3")})
    assert len(resources.endpoints) == 2
    assert notes == ("only 2 of 3 resolved endpoints are used",)
