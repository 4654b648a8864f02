"""Servers with several ports: which are in use, and what the endpoints at them are called."""

import pytest

from epp.discovery.active_ports import ACTIVE_PORTS, active_ports
from tests.discovery.support import POOL, problems_of, resources_of, selection_of

_NAME, _FORMER_NAME = ACTIVE_PORTS
_PORTS = (8000, 8001, 8002, 8003)
_RANKS = POOL.replace("- number: 8000", "".join(f"\n    - number: {port}" for port in _PORTS))


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, _PORTS),
        ({"other": "8000"}, _PORTS),
        ({_NAME: ""}, ()),
        ({_NAME: "8000,8002"}, (8000, 8002)),
        ({_NAME: " 8003 ,\t8001"}, (8001, 8003)),
        ({_NAME: "8001,8001,8001"}, (8001,)),
        ({_NAME: "x,-8000,8000.0,9000,8002,²"}, (8002,)),
        ({_NAME: "none"}, ()),
        ({_FORMER_NAME: "8000"}, (8000,)),
        ({_NAME: "8001", _FORMER_NAME: "8000"}, (8001,)),
        ({_NAME: "", _FORMER_NAME: "8000"}, ()),
    ],
)
def test_the_annotation_lists_the_ports_in_use(
    annotations: dict[str, str], expected: tuple[int, ...]
) -> None:
    assert active_ports(annotations, _PORTS) == expected


def test_each_port_is_an_endpoint_with_the_name_of_its_rank() -> None:
    """A port has the same rank whichever of the others are in use."""
    text = f"""\
endpoints:
- {{name: all, address: 10.0.0.1, labels: {{app: llm}}}}
- {{name: some, address: "fd00::1", labels: {{app: llm}}, annotations: {{{_NAME}: "8000,8002"}}}}
- {{name: own, address: 10.0.0.3, port: 9000, labels: {{app: llm}}}}
- {{name: none, address: none.example, labels: {{app: llm}}, annotations: {{{_NAME}: ""}}}}
"""
    assert [(found.name, found.destination) for found in resources_of(_RANKS, text).endpoints] == [
        *((f"default/all-rank-{rank}", f"10.0.0.1:{port}") for rank, port in enumerate(_PORTS)),
        ("default/own", "10.0.0.3:9000"),
        ("default/some-rank-0", "[fd00::1]:8000"),
        ("default/some-rank-2", "[fd00::1]:8002"),
    ]
    found = selection_of(_RANKS, text)
    assert found.dns_names == frozenset()
    assert found.notes == ("endpoints without an active port left out: default/none",)


def test_a_port_that_is_not_in_use_is_nobodys() -> None:
    text = f"""\
endpoints:
- {{name: a, address: 10.0.0.1, labels: {{app: llm}}, annotations: {{{_NAME}: "8000"}}}}
- {{name: b, address: 10.0.0.1, labels: {{app: llm}}, annotations: {{{_NAME}: "8001"}}}}
"""
    assert [found.name for found in resources_of(_RANKS, text).endpoints] == [
        "default/a-rank-0",
        "default/b-rank-1",
    ]


def test_annotations_are_text() -> None:
    text = f"endpoints: [{{name: a, address: 10.0.0.1, annotations: {{{_NAME}: 8000}}}}]"
    assert problems_of(POOL, text) == (
        'b.yaml:1: document 1: endpoints[0].annotations["llm-d.ai/active-ports"]: '
        "found 8000; expected text",
    )
