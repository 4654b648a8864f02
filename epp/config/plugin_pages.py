"""What there is on plugin types: as a list, in detail, as a page of Markdown, as JSON."""

import json
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from msgspec.structs import fields

from epp.config.plugin_type import PluginKind, PluginType
from epp.config.quantities import Duration
from epp.discovery.checking import expected

__all__ = ["Parameter", "details", "listing", "markdown", "parameters", "types_as_json"]

_HEADINGS: Final[Mapping[PluginKind, str]] = {
    "scorer": "Scorers",
    "filter": "Filters",
    "scheduling plugin": "Other plugins of scheduling profiles",
    "picker": "Pickers",
    "profile handler": "Profile handlers",
    "producer": "Producers",
    "saturation detector": "Saturation detectors",
    "usage-limit policy": "Usage-limit policies",
    "fairness policy": "Fairness policies",
    "ordering policy": "Ordering policies",
    "data source": "Data sources",
    "extractor": "Extractors",
    "parser": "Parsers",
}
_WIDTH: Final = 100
_MUST: Final = "must be given"
_INTRODUCTION: Final = """\
# Plugins

All plugin types of this version; [configuration.md](configuration.md) says how they are used.
`epp explain --plugins` lists them too, with those of other packages that are installed, and
`epp explain --plugins TYPE` tells what there is on one. This page is made by

```console
$ epp explain --plugins --markdown > docs/plugins.md
```
"""


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a type. Of those in a list or mapping, ``name`` is the path: ``a[].b``."""

    name: str
    expected: str
    default: str
    explains: str


def parameters(type_: PluginType) -> list[Parameter]:
    """Return all parameters of a type, those of lists and mappings behind these."""
    return list(_parameters(type_.parameters, "", type_.explains))


def listing(all_types: Iterable[PluginType]) -> str:
    """Return all types by kind, with a sentence on each."""
    width = 2 + max(len(type_.type) for type_ in all_types)
    lines: list[str] = []
    for heading, found in _by_kind(all_types):
        lines += ["", f"{heading}:"]
        for type_ in found:
            head = f"  {type_.type:<{width}}"
            text = type_.summary + (f" [{type_.distribution}]" if type_.distribution else "")
            lines += textwrap.wrap(
                text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)
            )
    return "\n".join(lines[1:]) + "\n"


def details(type_: PluginType) -> str:
    """Return all that there is on one type."""
    source = f", of {type_.distribution}" if type_.distribution else ""
    lines = [f"{type_.type} ({type_.kind}{source})", *textwrap.wrap(type_.summary, _WIDTH), ""]
    found = parameters(type_)
    lines.append("Parameters:" if found else "It has no parameters.")
    for each in found:
        default = each.default if each.default == _MUST else f"default {each.default}"
        lines += ["", f"  {each.name}: {each.expected}; {default}"]
        lines += textwrap.wrap(
            each.explains, _WIDTH, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines) + "\n"


def markdown(all_types: Iterable[PluginType]) -> str:
    """Return the page on all types."""
    lines = [_INTRODUCTION]
    for heading, found in _by_kind(all_types):
        lines += [f"## {heading}", ""]
        for type_ in found:
            lines += [f"### `{type_.type}`", "", type_.summary, ""]
            rows = parameters(type_)
            if rows:
                lines += ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |"]
                lines += [_row(each) for each in rows]
                lines.append("")
    return "\n".join(lines)


def types_as_json(all_types: Iterable[PluginType]) -> list[dict[str, Any]]:
    """Return objects for JSON."""
    return [
        {
            "type": type_.type,
            "kind": type_.kind,
            "summary": type_.summary,
            "distribution": type_.distribution,
            "parameters": [msgspec.to_builtins(each) for each in parameters(type_)],
        }
        for type_ in all_types
    ]


def _by_kind(all_types: Iterable[PluginType]) -> Iterator[tuple[str, list[PluginType]]]:
    for kind, heading in _HEADINGS.items():
        found = [type_ for type_ in all_types if type_.kind == kind]
        if found:
            yield heading, found


def _row(parameter: Parameter) -> str:
    default = parameter.default if parameter.default == _MUST else f"`{parameter.default}`"
    cells = (f"`{parameter.name}`", parameter.expected, default, parameter.explains)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _parameters(
    struct: type[msgspec.Struct], path: str, explains: Mapping[str, str]
) -> Iterator[Parameter]:
    for field in fields(struct):
        name = path + field.encode_name
        yield Parameter(name, expected(field.type), _default(field), explains.get(name, ""))
        inner, suffix = _inner(field.type)
        if inner is not None:
            yield from _parameters(inner, name + suffix, explains)


def _inner(annotation: Any) -> tuple[type[msgspec.Struct] | None, str]:
    """Return the struct that stands in a field, and how the paths into it go on."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _inner(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        options = [each for each in get_args(annotation) if each is not types.NoneType]
        return _inner(options[0]) if len(options) == 1 else (None, "")
    if origin is tuple:
        inner, suffix = _inner(get_args(annotation)[0])
        return inner, "[]" + suffix
    is_struct = isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)
    return (annotation, ".") if is_struct else (None, "")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return _MUST
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None:
        return "none"
    if isinstance(value, Duration):
        return f"{value:g}s"
    if isinstance(value, msgspec.Struct):
        return "{}"
    if isinstance(value, float):
        return f"{value:.12g}"
    return json.dumps(value, default=msgspec.to_builtins)
