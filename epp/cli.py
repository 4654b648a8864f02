"""The ``epp`` command: one subcommand per module that has one.

A command module has ``add_parser(subcommands)``: it adds its own parser and sets ``run`` to a
function ``(argparse.Namespace) -> int`` whose value is the exit code. What the user got wrong is
raised as :class:`epp.errors.UsageError` and becomes one line and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from epp import __version__
from epp.errors import UsageError

__all__ = ["main"]

_COMMANDS = (
    "epp.gateway.up",
    "epp.serve",
    "epp.config.command",
    "epp.config.explain",
    "epp.observability.command",
    "epp.gateway.envoy_config",
    "epp.modelserver.command",
    "epp.simulation.command",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="epp",
        description="An endpoint picker for the Kubernetes Gateway API Inference Extension.",
    )
    parser.add_argument("--version", action="version", version=f"epp {__version__}")
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _COMMANDS:
        import_module(module).add_parser(subcommands)
    args = parser.parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"epp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
