"""``epp explain``: what a configuration really says, and what plugins there are."""

import argparse
from pathlib import Path

__all__ = ["add_parser"]

_ALL = ""


def add_parser(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subcommands.add_parser(
        "explain",
        help="tell all values of a configuration and where they come from; list the plugins",
        description="Tell the effective configuration: every value that holds, and where it comes"
        " from. Or what plugins there are.",
    )
    parser.add_argument(
        "file", type=Path, nargs="?", metavar="FILE",
        help="an EndpointPickerConfig; without it, what holds without one",
    )  # fmt: skip
    parser.add_argument(
        "--plugins", nargs="?", const=_ALL, metavar="TYPE",
        help="list all plugin types, or tell what there is on one",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--markdown", action="store_true",
        help="with --plugins: print a page on the types of epp itself",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from epp.errors import UsageError

    if args.plugins is not None and args.file is not None:
        raise UsageError("found both FILE and --plugins; expected one of them")
    if args.markdown and args.plugins != _ALL:
        raise UsageError("found --markdown without --plugins alone; expected both")
    return _explain_file(args) if args.plugins is None else _explain_plugins(args)


def _explain_file(args: argparse.Namespace) -> int:
    import json
    import sys

    from epp.config.effective import effective
    from epp.config.picker_config import PickerConfigError, parse_reading, read_bytes
    from epp.config.rendering import as_json, as_yaml

    name = "no configuration" if args.file is None else str(args.file)
    data = b"{}" if args.file is None else read_bytes(args.file)
    try:
        reading = parse_reading(name, data)
    except PickerConfigError as error:
        for problem in error.problems:
            print(f"epp: {problem}", file=sys.stderr)
        return 2
    entry = effective(args.file.name if args.file else name, reading)
    if args.json:
        print(json.dumps(as_json(entry), indent=2))
        return 0
    print(f"# What holds with {name}; behind each value, which line says so or why it holds.")
    for note in reading.config.notes:
        print(f"# note: {note}")
    print(as_yaml(entry), end="")
    return 0


def _explain_plugins(args: argparse.Namespace) -> int:
    import json

    from epp.config.absent_plugins import ABSENT
    from epp.config.hints import absence_of, hint_at
    from epp.config.plugin_pages import details, listing, markdown, types_as_json
    from epp.config.plugin_types import OWN_TYPES, plugin_types
    from epp.errors import UsageError

    types = plugin_types()
    if args.markdown:
        print(markdown(OWN_TYPES.values()), end="")
        return 0
    if args.plugins in ABSENT:
        raise UsageError(absence_of(args.plugins))
    if args.plugins != _ALL and args.plugins not in types:
        hint = hint_at(args.plugins, list(types))
        raise UsageError(f'found no plugin type "{args.plugins}"; {hint}')
    found = list(types.values()) if args.plugins == _ALL else [types[args.plugins]]
    if args.json:
        print(json.dumps(types_as_json(found), indent=2))
    else:
        print(listing(found) if args.plugins == _ALL else details(*found), end="")
    return 0
