"""How configurations name the numbers that engines tell."""

from typing import Final

__all__ = ["ATTRIBUTE_PRODUCER", "check_attribute"]

ATTRIBUTE_PRODUCER: Final = "core-metrics-extractor"


def check_attribute(name: str, producer: str | None, *, parameter: str) -> None:
    """Raise ValueError, naming the parameter that has the attribute's name, for a producer that
    there is not, and for one that stands in the name."""
    if "/" in name and producer is None:
        attribute, _, wanted = name.partition("/")
        raise ValueError(
            f'found {parameter} "{name}"; expected {parameter} "{attribute}" and producer'
            f' "{wanted}"'
        )
    if producer not in (None, ATTRIBUTE_PRODUCER):
        raise ValueError(f'found producer "{producer}"; expected "{ATTRIBUTE_PRODUCER}" or none')
