"""InferenceModelRewrite: from manifests to the rules of a pool."""

import pytest

from epp.core.resources import ModelTarget, RewriteRule
from epp.discovery import manifests
from tests.discovery.support import POOL, documents, problems_of, resources_of, selection_of

_RULES = """\
  - matches:
    - model: {type: Exact, value: gpt}
    - model: {value: gpt-mini}
    targets:
    - {modelRewrite: llama, weight: 90}
    - {modelRewrite: llama-next, weight: 10}
  - targets: [{modelRewrite: base}]
"""


def rewrite(
    name: str = "canary",
    *,
    created: str | None = None,
    target: str | None = None,
    group: str = "llm-d.ai",
    namespace: str = "default",
    pool: str = "llm",
) -> str:
    time = "" if created is None else f"  creationTimestamp: {created}\n"
    rules = _RULES if target is None else f"  - targets: [{{modelRewrite: {target}}}]\n"
    return (
        f"apiVersion: {group}/v1alpha2\nkind: InferenceModelRewrite\n"
        f"metadata:\n  name: {name}\n  namespace: {namespace}\n{time}"
        f"spec:\n  poolRef: {{name: {pool}}}\n  rules:\n{rules}"
    )


def targets(*texts: str) -> list[str]:
    return [rule.targets[0].model for rule in resources_of(POOL, *texts).rewrites]


@pytest.mark.parametrize("group", ["llm-d.ai", "inference.networking.x-k8s.io"])
def test_rules(group: str) -> None:
    assert resources_of(POOL, rewrite(group=group)).rewrites == (
        RewriteRule(
            models=("gpt", "gpt-mini"),
            targets=(ModelTarget("llama", 90), ModelTarget("llama-next", 10)),
        ),
        RewriteRule(targets=(ModelTarget("base"),)),
    )


def test_what_is_older_comes_first_and_names_decide_between_what_is_equally_old() -> None:
    texts = [
        rewrite("f", target="ageless-2", created="null"),
        rewrite("e", target="ageless-1"),
        rewrite("d", target="newer", created="'2026-01-02T00:00:00Z'"),
        rewrite("c", target="same-age-2", created="2026-01-01T12:00:00Z"),
        rewrite("b", target="same-age-1", created="2026-01-01T14:00:00+02:00"),
        rewrite("z", target="oldest", created="2025-12-31T23:59:59.5Z"),
    ]
    expected = ["oldest", "same-age-1", "same-age-2", "newer", "ageless-1", "ageless-2"]
    assert targets(*texts) == expected
    assert targets(*reversed(texts)) == expected


def test_rewrites_of_other_pools_are_left_out_and_named() -> None:
    found = selection_of(
        POOL, rewrite("mine"), rewrite("other", pool="other"), rewrite("away", namespace="away")
    )
    assert len(found.rewrites) == 2
    assert found.notes == (
        "rewrites of other pools than default/llm (inference.networking.k8s.io) ignored: "
        "away/away (of inference.networking.k8s.io/InferencePool llm), "
        "default/other (of inference.networking.k8s.io/InferencePool other)",
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_groups_llm_d_wins(reverse: bool) -> None:
    texts = [
        rewrite(target="ours"),
        rewrite(target="theirs", group="inference.networking.x-k8s.io"),
    ]
    found = selection_of(POOL, *(reversed(texts) if reverse else texts))
    assert [rule.targets[0].model for rule in found.rewrites] == ["ours"]
    assert found.notes == ("rewrites in two API groups, taken from llm-d.ai: canary",)


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("weight: 90", "weight: 0", 13, "rules[0].targets[0].weight: found 0; expected a whole "
         "number from 1 to 1000000"),
        ("weight: 90", "weight: 1000001", 13, "rules[0].targets[0].weight: found 1000001; expected "
         "a whole number from 1 to 1000000"),
        ("weight: 90", "wieght: 90", 13, "rules[0].targets[0].wieght: unknown field; did you mean "
         '"weight"?'),
        ("modelRewrite: base", "modelRewrite: ''", 15, "rules[1].targets[0].modelRewrite: found "
         '""; expected the name of a model, up to 256 characters'),
        ("type: Exact", "type: Prefix", 10, 'rules[0].matches[0].model.type: found "Prefix"; '
         "expected Exact"),
        ("type: Exact, value: gpt", "type: Exact", 10, "rules[0].matches[0].model.value: missing; "
         "expected the name of a model, up to 256 characters"),
        ("[{modelRewrite: base}]", "[]", 15, "rules[1].targets: found 0 items; expected a list of 1"
         " to 64 targets"),
        (_RULES, "    []\n", 9, "rules: found 0 items; expected a list of 1 to 256 rules"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(old: str, new: str, line: int, problem: str) -> None:
    title = f"b.yaml:{line}: document 1, InferenceModelRewrite default/canary: "
    assert problems_of(POOL, rewrite().replace(old, new)) == (f"{title}spec.{problem}",)


@pytest.mark.parametrize("created", ["yesterday", "2026-01-01T00:00:00", "3"])
def test_a_time_that_is_none_is_said(created: str) -> None:
    [problem] = problems_of(POOL, rewrite(created=created))
    assert problem.endswith("; expected a time like 2026-01-31T12:00:00Z")
    assert "metadata.creationTimestamp: found " in problem


def test_the_same_twice_or_of_an_unknown_version_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    title = "document {}, InferenceModelRewrite default/canary: "
    assert problems_of(POOL, documents(rewrite(), rewrite())) == (
        f"b.yaml:17: {title.format(2)}metadata.name: found the same object again; "
        "expected it once (also at b.yaml:1)",
    )
    assert problems_of(POOL, rewrite(group="llm.d")) == (
        f'b.yaml:1: {title.format(1)}apiVersion: found "llm.d/v1alpha2"; did you mean '
        '"llm-d.ai/v1alpha2"?',
    )
    monkeypatch.setattr(manifests, "MAX_REWRITES", 1)
    assert problems_of(POOL, rewrite("a"), rewrite("b")) == (
        "found 2 rewrites in all files; expected up to 1",
    )
