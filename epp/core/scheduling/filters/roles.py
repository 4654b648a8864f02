"""Filters by the role of an endpoint where prefill, decode and encode run apart:
``decode-filter``, ``prefill-filter``, ``encode-filter``.

The role is the label ``llm-d.ai/role``. An endpoint without one does all its work itself, so it can
decode; who looks for a prefill or an encode server means one that says so.
"""

from collections.abc import Mapping
from typing import Final

from epp.core.scheduling.definition import PluginDefinition
from epp.core.scheduling.filters.labels import LabelFilter

__all__ = ["DECODE_FILTER", "ENCODE_FILTER", "PREFILL_FILTER", "ROLE_LABEL"]

ROLE_LABEL: Final = "llm-d.ai/role"

_DECODES: Final = frozenset(("decode", "prefill-decode", "both", "encode-prefill-decode"))
_PREFILLS: Final = frozenset(
    ("prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode")
)
_ENCODES: Final = frozenset(("encode", "encode-prefill", "encode-prefill-decode"))


def _can_decode(labels: Mapping[str, str]) -> bool:
    return ROLE_LABEL not in labels or labels[ROLE_LABEL] in _DECODES


def _can_prefill(labels: Mapping[str, str]) -> bool:
    return labels.get(ROLE_LABEL) in _PREFILLS


def _can_encode(labels: Mapping[str, str]) -> bool:
    return labels.get(ROLE_LABEL) in _ENCODES


DECODE_FILTER = PluginDefinition(
    type="decode-filter",
    summary=f"Keeps the endpoints that decode, by their label {ROLE_LABEL}, and those without it.",
    make=lambda parameters, context: LabelFilter(_can_decode),
)

PREFILL_FILTER = PluginDefinition(
    type="prefill-filter",
    summary=f"Keeps the endpoints that prefill, by their label {ROLE_LABEL}.",
    make=lambda parameters, context: LabelFilter(_can_prefill),
)

ENCODE_FILTER = PluginDefinition(
    type="encode-filter",
    summary=f"Keeps the endpoints that encode, by their label {ROLE_LABEL}.",
    make=lambda parameters, context: LabelFilter(_can_encode),
)
