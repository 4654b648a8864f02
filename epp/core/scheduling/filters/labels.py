"""Filters by the labels of endpoints: ``label-selector-filter``, ``by-label-selector``,
``by-label``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
import numpy as np

from epp.core.pool import Mask
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.changed_slots import ChangedSlots
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition

__all__ = [
    "BY_LABEL",
    "BY_LABEL_SELECTOR",
    "LABEL_SELECTOR_FILTER",
    "LabelFilter",
    "LabelRequirement",
    "selects",
]

Labels: TypeAlias = Mapping[str, str]


class LabelFilter:
    """Keeps the endpoints whose labels ``keeps`` says yes to.

    It is asked once for each endpoint that joins or has other labels, not for each request.
    """

    def __init__(self, keeps: Callable[[Labels], bool]) -> None:
        self._keeps = keeps
        self._kept: Mask = np.zeros(0, dtype=np.bool_)
        self._changed = ChangedSlots()

    def filter(self, candidates: Candidates) -> Mask:
        """Return the mask of those kept."""
        pool = candidates.pool
        for slot in self._changed.take(pool):
            if slot >= len(self._kept):
                missing = len(pool.active) - len(self._kept)
                self._kept = np.concatenate([self._kept, np.zeros(missing, dtype=np.bool_)])
            self._kept[slot] = self._keeps(pool.endpoint(slot).labels)
        kept: Mask = self._kept[candidates.slots]
        return kept


# label-selector-filter

_Name = Annotated[str, msgspec.Meta(min_length=1, description="text that is not empty")]
_Operator = Annotated[
    Literal["In", "NotIn", "Exists", "DoesNotExist"],
    msgspec.Meta(description='"In", "NotIn", "Exists" or "DoesNotExist"'),
]
_WITH_VALUES: Final = ("In", "NotIn")


class LabelRequirement(Parameters, frozen=True, kw_only=True):
    """What a selector says of one label.

    ``NotIn`` and ``DoesNotExist`` also hold where there is no such label, as in Kubernetes.
    """

    key: _Name
    operator: _Operator
    values: tuple[str, ...] = ()


class LabelSelectorParameters(Parameters, frozen=True, kw_only=True):
    """Of ``label-selector-filter``: a label selector of Kubernetes."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()


def selects(
    labels: Labels, match_labels: Labels, match_expressions: Sequence[LabelRequirement]
) -> bool:
    """Return whether a selector selects what has these labels: all that it says must hold."""
    return all(labels.get(key) == value for key, value in match_labels.items()) and all(
        _holds(labels, each) for each in match_expressions
    )


def _holds(labels: Labels, requirement: LabelRequirement) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case _:
            return value is None


def _make_selector(parameters: LabelSelectorParameters, context: PluginContext) -> LabelFilter:
    for index, each in enumerate(parameters.match_expressions):
        where = f"matchExpressions[{index}].values"
        if each.operator in _WITH_VALUES and not each.values:
            raise ValueError(f"found no {where}; expected some for {each.operator}")
        if each.operator not in _WITH_VALUES and each.values:
            raise ValueError(f"found {where}; expected none for {each.operator}")
    return LabelFilter(
        lambda labels: selects(labels, parameters.match_labels, parameters.match_expressions)
    )


_SELECTOR_EXPLAINS: Final = {
    "matchLabels": "The labels that an endpoint must have, with their values.",
    "matchExpressions": "What else must hold of its labels: key, operator, values.",
}

LABEL_SELECTOR_FILTER = PluginDefinition(
    type="label-selector-filter",
    summary="Keeps the endpoints that a label selector selects; an empty one selects all.",
    make=_make_selector,
    parameters=LabelSelectorParameters,
    explains=_SELECTOR_EXPLAINS,
)

BY_LABEL_SELECTOR = PluginDefinition(
    type="by-label-selector",
    summary="The former name of label-selector-filter.",
    make=_make_selector,
    parameters=LabelSelectorParameters,
    explains=_SELECTOR_EXPLAINS,
)


# by-label


class ByLabelParameters(Parameters, frozen=True, kw_only=True):
    """Of ``by-label``."""

    label: _Name
    valid_values: tuple[str, ...] = ()
    allows_no_label: Annotated[bool, msgspec.Meta(description="true or false")] = False


def _make_by_label(parameters: ByLabelParameters, context: PluginContext) -> LabelFilter:
    if not (parameters.valid_values or parameters.allows_no_label):
        raise ValueError(
            "found neither validValues nor allowsNoLabel, which no endpoint can meet;"
            " expected one of them"
        )
    label, values = parameters.label, frozenset(parameters.valid_values)
    return LabelFilter(
        lambda labels: labels[label] in values if label in labels else parameters.allows_no_label
    )


BY_LABEL = PluginDefinition(
    type="by-label",
    summary="Keeps the endpoints that have one of some values of a label; label-selector-filter can"
    " say the same.",
    make=_make_by_label,
    parameters=ByLabelParameters,
    explains={
        "label": "The label.",
        "validValues": "The values with which an endpoint is kept.",
        "allowsNoLabel": "Whether an endpoint without the label is kept.",
    },
)
