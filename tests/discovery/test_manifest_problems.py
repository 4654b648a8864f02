import pytest

from epp.discovery import manifests
from epp.discovery.manifests import ManifestFile, parse_manifests
from epp.discovery.problems import ManifestError
from epp.errors import UsageError
from tests.discovery.support import (
    POOL,
    POOL_V1ALPHA2,
    documents,
    endpoints,
    objective,
    problems_of,
    with_line,
)

OBJECTIVE = objective("interactive", 10)
LIST = endpoints({"a": "10.0.0.1"})
POOL_TITLE = "a.yaml:{line}: document 1, InferencePool default/llm: "
OBJECTIVE_TITLE = "a.yaml:{line}: document 1, InferenceObjective default/interactive: "
ADDRESS = "an IPv4 or IPv6 address or a DNS name, without scheme or port"


@pytest.mark.parametrize(
    ("text", "old", "new", "expected"),
    [
        (
            POOL,
            "- number: 8000",
            "- number: eight",
            POOL_TITLE.format(line=10)
            + 'spec.targetPorts[0].number: found "eight"; expected a port number from 1 to 65535',
        ),
        (
            POOL,
            "- number: 8000",
            "- number: 65536",
            POOL_TITLE.format(line=10)
            + "spec.targetPorts[0].number: found 65536; expected a port number from 1 to 65535",
        ),
        (
            POOL,
            "- number: 8000",
            "- number: 8000\n    - number: 8000",
            POOL_TITLE.format(line=1)
            + "spec.targetPorts[1].number: found 8000 again; expected each port once",
        ),
        (
            POOL,
            "    - number: 8000",
            "    - number: 1\n" * 9,
            POOL_TITLE.format(line=10)
            + "spec.targetPorts: found 9 items; expected a list of 1 to 8 ports",
        ),
        (
            POOL,
            "targetPorts:\n    - number: 8000",
            "targetPorts: []",
            POOL_TITLE.format(line=9)
            + "spec.targetPorts: found 0 items; expected a list of 1 to 8 ports",
        ),
        (
            POOL,
            "targetPorts:",
            "targetPort:",
            POOL_TITLE.format(line=10)
            + 'spec.targetPort: unknown field; did you mean "targetPorts"?',
        ),
        (
            POOL,
            "app: llm",
            "app: 1",
            POOL_TITLE.format(line=8)
            + "spec.selector.matchLabels.app: found 1; expected a label's value: "
            "text of up to 63 letters, digits, '-', '_' and '.' "
            "(in quotes where it looks like a number, true or false)",
        ),
        (
            POOL,
            "app: llm",
            "-app: llm",
            POOL_TITLE.format(line=8)
            + 'spec.selector.matchLabels["-app"]: found "-app"; expected a label\'s name',
        ),
        (
            POOL,
            "name: llm",
            "name: Llm",
            "a.yaml:4: document 1, InferencePool default/Llm: metadata.name: "
            "found \"Llm\"; expected a name of lower-case letters, digits, '-' and '.', "
            "up to 253 characters",
        ),
        (
            POOL,
            "name: llm",
            "name: llm\n  namespace: a.b",
            "a.yaml:5: document 1, InferencePool a.b/llm: metadata.namespace: "
            "found \"a.b\"; expected a namespace of lower-case letters, digits and '-', "
            "up to 63 characters",
        ),
        (
            POOL,
            "name: llm",
            "namespace: a",
            "a.yaml:4: document 1, InferencePool: metadata.name: missing; "
            "expected a name of lower-case letters, digits, '-' and '.', up to 253 characters",
        ),
        (
            POOL,
            "k8s.io/v1",
            "k8s.io/v2",
            POOL_TITLE.format(line=1) + 'apiVersion: found "inference.networking.k8s.io/v2"; '
            'did you mean "inference.networking.k8s.io/v1"?',
        ),
        (
            POOL,
            "apiVersion: inference.networking.k8s.io/v1\n",
            "",
            POOL_TITLE.format(line=1) + "apiVersion: found nothing; known: "
            "inference.networking.k8s.io/v1, inference.networking.x-k8s.io/v1alpha2",
        ),
        (
            POOL,
            "kind: InferencePool",
            "kind: inferencePools",
            "a.yaml:1: document 1, inferencePools default/llm: kind: "
            'found "inferencePools"; did you mean "InferencePool"?',
        ),
        (
            POOL,
            "spec:",
            "spec:\n  endpointPickerRef: {failureMode: failOpen}",
            POOL_TITLE.format(line=6) + 'spec.endpointPickerRef.failureMode: found "failOpen"; '
            "expected FailOpen or FailClose",
        ),
        (
            POOL_V1ALPHA2,
            "targetPortNumber: 8000",
            "targetPortNumber: '8000'",
            POOL_TITLE.format(line=8)
            + 'spec.targetPortNumber: found "8000"; expected a port number from 1 to 65535',
        ),
        (
            POOL_V1ALPHA2,
            "spec:",
            "spec:\n  extensionRef: {failureMode: 1}",
            POOL_TITLE.format(line=6)
            + "spec.extensionRef.failureMode: found 1; expected FailOpen or FailClose",
        ),
        (
            POOL_V1ALPHA2,
            "    app: llm",
            "    matchLabels: {app: llm}",
            POOL_TITLE.format(line=7)
            + "spec.selector.matchLabels: found a mapping; expected a label's "
            "value: text of up to 63 letters, digits, '-', '_' and '.' "
            "(in quotes where it looks like a number, true or false)",
        ),
        (
            OBJECTIVE,
            "priority: 10",
            "priority: high",
            OBJECTIVE_TITLE.format(line=7) + 'spec.priority: found "high"; '
            "expected a whole number from -2147483648 to 2147483647",
        ),
        (
            OBJECTIVE,
            "priority: 10",
            "priority: 2147483648",
            OBJECTIVE_TITLE.format(line=7) + "spec.priority: found 2147483648; "
            "expected a whole number from -2147483648 to 2147483647",
        ),
        (
            OBJECTIVE,
            "priority: 10",
            "priority: 1.5",
            OBJECTIVE_TITLE.format(line=7) + "spec.priority: found 1.5; "
            "expected a whole number from -2147483648 to 2147483647",
        ),
        (
            OBJECTIVE,
            "priority: 10",
            "Priority: 10",
            OBJECTIVE_TITLE.format(line=7)
            + 'spec.Priority: unknown field; did you mean "priority"?',
        ),
        (
            OBJECTIVE,
            "    name: llm",
            "    nam: llm",
            OBJECTIVE_TITLE.format(line=10)
            + 'spec.poolRef.nam: unknown field; did you mean "name"?',
        ),
        (
            OBJECTIVE,
            "v1alpha2",
            "v1",
            OBJECTIVE_TITLE.format(line=1)
            + 'apiVersion: found "llm-d.ai/v1"; did you mean "llm-d.ai/v1alpha2"?',
        ),
        (
            OBJECTIVE,
            "priority: 10",
            "priority: 10\n  priority: 11",
            OBJECTIVE_TITLE.format(line=8)
            + "spec.priority: the key stands here again; expected it once",
        ),
        (
            LIST,
            "port: 8000",
            "port: '08000'",
            'a.yaml:4: document 1: endpoints[0].port: found "08000"; '
            "expected a port number from 1 to 65535",
        ),
        (
            LIST,
            "port: 8000",
            "port: 0",
            "a.yaml:4: document 1: endpoints[0].port: found 0; "
            "expected a port number from 1 to 65535",
        ),
        (
            LIST,
            "port: 8000",
            "port: '65536'",
            'a.yaml:4: document 1: endpoints[0].port: found "65536"; '
            "expected a port number from 1 to 65535",
        ),
        (
            LIST,
            "'10.0.0.1'",
            "http://10.0.0.1",
            'a.yaml:2: document 1: endpoints[0].address: found "http://10.0.0.1"; '
            f"expected {ADDRESS}",
        ),
        (
            LIST,
            "'10.0.0.1'",
            "10.0",
            f"a.yaml:3: document 1: endpoints[0].address: found 10.0; expected {ADDRESS}",
        ),
        (
            LIST,
            "address",
            "adress",
            'a.yaml:3: document 1: endpoints[0].adress: unknown field; did you mean "address"?',
        ),
        (
            LIST,
            "name: a",
            "name: a b",
            'a.yaml:2: document 1: endpoints[0].name: found "a b"; expected a name of letters, '
            "digits, '-', '_' and '.', up to 253 characters",
        ),
        (
            LIST,
            "{app: llm}",
            "{app: true}",
            "a.yaml:5: document 1: endpoints[0].labels.app: found true; expected text",
        ),
        (
            LIST,
            LIST,
            "endpoints:\n",
            "a.yaml:1: document 1: endpoints: found nothing; "
            "expected a list of up to 10000 endpoints",
        ),
        (
            LIST,
            LIST,
            "kind: EndpointList\n",
            "a.yaml:1: document 1, EndpointList: endpoints: missing; "
            "expected a list of up to 10000 endpoints",
        ),
        (
            LIST,
            LIST,
            endpoints({"a": "10.0.0.1"}) + endpoints({"a": "10.0.0.2"}).partition("\n")[2],
            'a.yaml:6: document 1: endpoints[1].name: found "default/a" again; '
            "expected each name once (also at a.yaml:2: document 1, endpoints[0])",
        ),
        (
            LIST,
            LIST,
            documents(OBJECTIVE, OBJECTIVE),
            "a.yaml:12: document 2, InferenceObjective default/interactive: metadata.name: "
            "found the same object again; expected it once (also at a.yaml:1)",
        ),
        (
            LIST,
            LIST,
            "- a\n- b\n",
            "a.yaml:1: document 1: found a list; "
            "expected a Kubernetes object (apiVersion and kind) or a list of endpoints",
        ),
        (
            LIST,
            "endpoints:",
            "endpoint:",
            'a.yaml:1: document 1: found a mapping with "endpoint"; '
            "expected a Kubernetes object (apiVersion and kind) or a list of endpoints",
        ),
        (
            LIST,
            LIST,
            "kind: Service\nmetadata: {name: x}\n",
            'a.yaml:1: document 1, Service default/x: found a mapping with "kind", "metadata"; '
            "expected a Kubernetes object (apiVersion and kind) or a list of endpoints",
        ),
        (
            LIST,
            LIST,
            "apiVersion: v1\nkind: List\nitems: {}\n",
            "a.yaml:1: document 1, List: items: found a mapping; expected a list of objects",
        ),
        (
            LIST,
            LIST,
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items: []\n",
            "a.yaml:4: document 1, List: items[0].kind: found a List in a List; expected an object",
        ),
        (
            LIST,
            LIST,
            "apiVersion: v1\nkind: List\nitems:\n- kind: InferencePool\n"
            "  apiVersion: inference.networking.k8s.io/v1\n  metadata: {name: x}\n  spec: 3\n",
            "a.yaml:7: document 1, InferencePool default/x: items[0].spec: "
            "found 3; expected a mapping",
        ),
    ],
)
def test_what_is_wrong_is_told(text: str, old: str, new: str, expected: str) -> None:
    assert expected in problems_of(with_line(text, old, new))


def test_all_problems_of_all_files_are_told() -> None:
    broken_pool = POOL.replace("8000", "no").replace("app: llm", "app: 1")
    problems = problems_of(broken_pool, "a: b: c", LIST.replace("8000", "0"))
    assert [problem.split(":")[:2] for problem in problems] == [
        ["a.yaml", "8"],
        ["a.yaml", "10"],
        ["b.yaml", "1"],
        ["c.yaml", "4"],
    ]


def test_the_error_is_one_line_for_the_user() -> None:
    text = "endpoints:\n" + "- {name: 'a\n\n  b', address: x, port: 1}\n" * 8
    with pytest.raises(UsageError) as caught:
        parse_manifests([ManifestFile("f.yaml", text.encode())])
    assert isinstance(caught.value, ManifestError)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("endpoints[") == 5
    assert str(caught.value).endswith("; and 3 more")


def test_the_search_for_problems_ends() -> None:
    text = "endpoints:\n" + "- {}\n" * 9000
    problems = problems_of(text)
    assert len(problems) == 101
    assert problems[-1] == "gave up looking for more problems"


def test_the_number_of_endpoints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    [problem] = problems_of("endpoints:\n" + "- {}\n" * 10_001)
    assert problem.endswith(
        "endpoints: found 10001 items; expected a list of up to 10000 endpoints"
    )
    monkeypatch.setattr(manifests, "MAX_ENDPOINTS", 1)
    assert problems_of(LIST, endpoints({"b": "10.0.0.2"})) == (
        "found 2 endpoints in all files; expected up to 1",
    )


def test_the_number_of_objectives_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_OBJECTIVES", 1)
    assert problems_of(objective("a"), objective("b")) == (
        "found 2 objectives in all files; expected up to 1",
    )
