"""Which priority an objective gives, and for whom a change of objectives makes it another."""

from collections.abc import Mapping
from typing import Final

from epp.core.resources import Objective

__all__ = ["DEFAULT_PRIORITY", "changed_priorities", "priority_of"]

DEFAULT_PRIORITY: Final = 0
"""The priority of who names no objective, or one that is not known."""


def priority_of(objectives: Mapping[str, Objective], name: str) -> int:
    """Return the priority of an objective by name; 0 where it is unknown or not named."""
    found = objectives.get(name) if name else None
    return DEFAULT_PRIORITY if found is None else found.priority


def changed_priorities(
    before: Mapping[str, Objective], after: Mapping[str, Objective]
) -> dict[str, int]:
    """Return the priority by now of each objective, by name, that had another one before: also of
    those that have come, and of those that have gone."""
    return {
        name: priority
        for name in {**before, **after}
        if (priority := priority_of(after, name)) != priority_of(before, name)
    }
