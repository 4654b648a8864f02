"""What the commands have in common: arguments, progress, and how they end."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import uvloop

from epp.errors import UsageError
from epp.gateway.processes import ProcessFailure, Supervisor
from loadkit.measure import LoadFailedError

__all__ = ["add_amount", "positive", "progress", "run", "watched"]

_Result = TypeVar("_Result")


def run(
    name: str,
    measuring: Coroutine[Any, Any, _Result],
    render: Callable[[_Result], str],
    *,
    as_json: bool,
) -> int:
    """Measure and print; return the exit code: 1 if a request failed, 2 for a wrong usage."""
    try:
        document = uvloop.run(measuring)
    except UsageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except (LoadFailedError, ProcessFailure) as error:
        text = error.report() if isinstance(error, ProcessFailure) else str(error)
        print(f"{name}: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        print(render(document))
    return 0


async def watched(supervisor: Supervisor, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do the work unless a process ends meanwhile, which is the cause of whatever fails then."""
    doing = asyncio.create_task(work)
    watching = asyncio.create_task(supervisor.watch())
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        return doing.result()
    finally:
        doing.cancel()
        watching.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)


def progress(line: str) -> None:
    """Say where the benchmark is."""
    print(line, file=sys.stderr, flush=True)


def add_amount(
    parser: argparse.ArgumentParser, *, duration_s: float, rounds: int, rounds_help: str
) -> None:
    """Add the arguments that say how much is measured."""
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--duration", type=_seconds, default=duration_s, metavar="SECONDS", help="length of a run"
    )
    amount.add_argument(
        "--requests", type=positive, metavar="N", help="requests of a run, instead of a duration"
    )
    parser.add_argument("--rounds", type=positive, default=rounds, metavar="N", help=rounds_help)
    parser.add_argument("--envoy", metavar="PATH", help="an Envoy of your own")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document with all figures"
    )


def positive(text: str) -> int:
    """Read a whole number of at least 1. Raises ArgumentTypeError."""
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if 0 < seconds < float("inf"):
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
