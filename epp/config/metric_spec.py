"""How a configuration names a metric of an engine: ``name`` or ``name{label=value, ...}``."""

import re
from typing import Final

import msgspec

__all__ = ["MetricSpec"]

_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_PAIR: Final = re.compile(
    r'\s*(?P<label>[^=,{}"\s]*)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^=,{}"]*))\s*'
)
_ESCAPED: Final = re.compile(r"\\(.)")


class MetricSpec(msgspec.Struct, frozen=True):
    """Names the series of a metric that have all of these labels, whatever others they have.

    A series' metric may have the name with ``_total`` behind it, as exporters write counters.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "MetricSpec":
        """Read a spec: values quoted or not, blanks wherever they do no harm.

        Raises ValueError, with a sentence for users, for anything else.
        """
        name, brace, rest = text.partition("{")
        name = name.strip()
        if not _METRIC.fullmatch(name):
            raise _wrong(
                text, f"{name!r} is not the name of a metric" if name else "it has no name"
            )
        if not brace:
            return cls(name)
        return cls(name, tuple(_labels(text, rest.strip()).items()))


def _labels(text: str, rest: str) -> dict[str, str]:
    """Read what is behind the opening brace."""
    labels: dict[str, str] = {}
    position = 0
    while rest != "}":
        pair = _PAIR.match(rest, position)
        if pair is None:
            raise _wrong(text, f"{rest[position:]!r} does not begin with label=value")
        label, quoted = pair["label"], pair["quoted"]
        value = pair["bare"].strip() if quoted is None else _ESCAPED.sub(_plain, quoted)
        if not _LABEL.fullmatch(label):
            raise _wrong(text, f"{label!r} is not the name of a label")
        if not value:
            raise _wrong(text, f"the label {label} has no value")
        if label in labels:
            raise _wrong(text, f"the label {label} is there twice")
        labels[label] = value
        position = pair.end() + 1
        if rest[pair.end() :] == "}":
            break
        if rest[pair.end() : position] != ",":
            what = f"there is {rest[pair.end() :]!r} behind" if rest[pair.end() :] else "no } ends"
            raise _wrong(text, f"{what} the label {label}")
    return labels


def _plain(escaped: re.Match[str]) -> str:
    return "\n" if escaped[1] == "n" else escaped[1]


def _wrong(text: str, what: str) -> ValueError:
    return ValueError(
        f"{text!r} names no metric: {what}; expected name or name{{label=value, ...}}"
    )
