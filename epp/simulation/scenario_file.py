"""Scenario files: those of the user, by path, and those that ship with the package, by name."""

from importlib.resources import files
from pathlib import Path

import msgspec

from epp.discovery.documents import parse_documents
from epp.discovery.problems import Problems
from epp.errors import UsageError
from epp.simulation.reading import Reader
from epp.simulation.scenario import (
    Chat,
    Documents,
    EndpointGroup,
    Scenario,
    SharedPrefix,
    Tenant,
    Uniform,
)

__all__ = ["read_scenario", "shipped_scenarios"]

_SUFFIX = ".yaml"


def shipped_scenarios() -> dict[str, str]:
    """Return the texts of the scenarios that ship, by name."""
    directory = files("epp.simulation") / "scenarios"
    return {
        file.name.removesuffix(_SUFFIX): file.read_text(encoding="utf-8")
        for file in sorted(directory.iterdir(), key=lambda file: file.name)
        if file.name.endswith(_SUFFIX)
    }


def read_scenario(named: str) -> Scenario:
    """Return the scenario of a file, or the one with this name that ships.

    Raises UsageError for what cannot be used.
    """
    path = Path(named)
    if not path.suffix and len(path.parts) == 1:
        shipped = shipped_scenarios()
        if named not in shipped:
            raise UsageError(
                f"there is no scenario {named!r}; expected a file, or one of {', '.join(shipped)}"
            )
        return _parse(f"{named}{_SUFFIX}", named, shipped[named].encode())
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{named}: {error.strerror or error}; expected a scenario file") from error
    return _parse(named, path.stem, data)


def _parse(file: str, name: str, data: bytes) -> Scenario:
    problems = Problems()
    documents = list(parse_documents(file, data, problems)) if data.strip() else []
    problems.raise_any()
    if len(documents) != 1:
        raise UsageError(f"{file}: {len(documents)} YAML documents; expected one, a scenario")
    scenario = Reader(file).read(documents[0].root, Scenario)
    if not scenario.name:
        scenario = msgspec.structs.replace(scenario, name=name)
    _check(scenario, file)
    return scenario


class _Checks:
    """What fields have to do with one another; raises UsageError where they do not fit."""

    def __init__(self, file: str) -> None:
        self._file = file

    def need(self, holds: bool, path: str, found: object, expected: str) -> None:
        """Raise unless it holds."""
        if not holds:
            value = f"{found:g}" if isinstance(found, float) else found
            raise UsageError(f"{self._file}: {path}: {value}; expected {expected}")


def _check(scenario: Scenario, file: str) -> None:
    checks = _Checks(file)
    measure_from_s, duration_s = scenario.measure_from_s, scenario.duration_s
    checks.need(
        measure_from_s < duration_s,
        "measure_from_s",
        measure_from_s,
        f"less than duration_s, which is {duration_s:g}",
    )
    checks.need(bool(scenario.pool), "pool", "no group of endpoints", "at least one")
    names = [group.name for group in scenario.pool]
    for index, group in enumerate(scenario.pool):
        path, found = f"pool[{index}].name", f"{group.name!r} is there before"
        checks.need(group.name not in names[:index], path, found, "a name of its own")
        _check_group(group, f"pool[{index}]", checks)
    for index, window in enumerate(scenario.scrapes.outages):
        path, expected = f"scrapes.outages[{index}].groups", f"one of {', '.join(names)}"
        for name in window.groups:
            checks.need(name in names, path, f"there is no group {name!r}", expected)
    max_loras = min(group.engine.max_loras for group in scenario.pool)
    for index, tenant in enumerate(scenario.tenants):
        _check_tenant(tenant, f"tenants[{index}]", checks)
        found, expected = f"{max_loras} slots in an engine", "at least one, for an adapter"
        checks.need(
            max_loras > 0 or not tenant.adapters, f"tenants[{index}].adapters", found, expected
        )


def _check_tenant(tenant: Tenant, path: str, checks: _Checks) -> None:
    lengths = {"prompt_tokens": tenant.prompt_tokens, "output_tokens": tenant.output_tokens}
    if isinstance(tenant.content, SharedPrefix | Chat):
        lengths["content.prefix_tokens"] = tenant.content.prefix_tokens
    if isinstance(tenant.content, Documents):
        lengths["content.document_tokens"] = tenant.content.document_tokens
    for field, length in lengths.items():
        if isinstance(length, Uniform):
            expected = f"at least low, which is {length.low}"
            checks.need(length.high >= length.low, f"{path}.{field}.high", length.high, expected)


def _check_group(group: EndpointGroup, path: str, checks: _Checks) -> None:
    engine, latency = group.engine, group.engine.latency
    for field in ("max_num_seqs", "num_kv_blocks", "block_size"):
        value = getattr(engine, field)
        checks.need(value > 0, f"{path}.engine.{field}", value, "more than 0")
    for field in ("prefill_tokens_per_s", "decode_step_s", "time_scale"):
        value = getattr(latency, field)
        checks.need(value > 0, f"{path}.engine.latency.{field}", value, "more than 0")
    for field in ("decode_step_per_seq_s", "lora_load_s"):
        value = getattr(latency, field)
        checks.need(value >= 0, f"{path}.engine.latency.{field}", value, "at least 0")
    checks.need(
        engine.context_tokens > 1,
        f"{path}.engine",
        f"{engine.context_tokens} tokens for prompt and output",
        "at least 2",
    )
    checks.need(
        engine.max_num_batched_tokens >= engine.max_num_seqs,
        f"{path}.engine.max_num_batched_tokens",
        engine.max_num_batched_tokens,
        f"at least max_num_seqs, which is {engine.max_num_seqs}",
    )
    leave_s = group.leave_s
    expected = f"more than join_s, which is {group.join_s:g}"
    checks.need(leave_s is None or leave_s > group.join_s, f"{path}.leave_s", leave_s, expected)
