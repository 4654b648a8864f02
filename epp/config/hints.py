"""What is said of a name that there is not."""

from typing import Final

from epp.config.absent_plugins import ABSENT
from epp.discovery.checking import describe, did_you_mean

__all__ = ["absence_of", "hint_at"]

_MOST_SHOWN: Final = 12


def absence_of(type_: str) -> str:
    """Return that this version has no such type of plugins, which is one of ABSENT."""
    hint = ABSENT[type_]
    return f"this version has no {describe(type_)}" + (f"; {hint}" if hint else "")


def hint_at(name: str, known: list[str]) -> str:
    """Return a hint at the plugin or type that was meant, or at where all are listed."""
    hint = did_you_mean(name, known)
    is_list = hint.startswith("known:") and len(known) > _MOST_SHOWN
    return "`epp explain --plugins` lists what there is" if is_list else hint
