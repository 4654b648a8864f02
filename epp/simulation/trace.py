"""Requests from a CSV file instead of tenants: one row each, in order of arrival.

The first row names the columns: ``arrival_s`` (seconds), ``prompt_tokens``, ``output_tokens``, and,
if wanted, ``tenant`` (``default`` where there is none) and ``priority`` (0). Other columns are not
looked at.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from epp.errors import UsageError

__all__ = ["Trace", "TraceRow", "read_trace"]

_REQUIRED: Final = ("arrival_s", "prompt_tokens", "output_tokens")
_OPTIONAL: Final = ("tenant", "priority")
_MOST_TOKENS: Final = 100_000_000


class TraceRow(NamedTuple):
    """One request: when it arrives, in seconds since the first one, its tokens, whose it is."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    tenant: str
    priority: int


class Trace(NamedTuple):
    """The requests of a file, in order of arrival, the first at 0 s."""

    name: str
    rows: list[TraceRow]

    @property
    def duration_s(self) -> float:
        """When the last request arrives."""
        return self.rows[-1].arrival_s


def read_trace(path: Path, most_tokens: int = _MOST_TOKENS) -> Trace:
    """Read a trace whose requests have up to ``most_tokens`` of prompt and output together.

    Raises UsageError, with the line, for what cannot be used.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(_rows(path, lines, most_tokens))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; expected a CSV file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; expected UTF-8 text") from error
    except csv.Error as error:
        raise UsageError(f"{path}: not valid CSV: {error}") from error
    if not rows:
        raise UsageError(f"{path}: no requests; expected a row for each after the header")
    rows.sort(key=lambda row: row.arrival_s)
    first_s = rows[0].arrival_s
    return Trace(path.stem, [row._replace(arrival_s=row.arrival_s - first_s) for row in rows])


def _rows(path: Path, lines: Iterable[str], most_tokens: int) -> Iterator[TraceRow]:
    reader = csv.reader(lines)
    header = [name.strip() for name in next(reader, [])]
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise UsageError(
            f"{path}:1: no column {', '.join(missing)} in the header; expected"
            f" {', '.join(_REQUIRED)} and, if wanted, {', '.join(_OPTIONAL)}"
        )
    column = {name: header.index(name) for name in (*_REQUIRED, *_OPTIONAL) if name in header}
    for cells in reader:
        if not any(cells):
            continue
        where = f"{path}:{reader.line_num}"
        if len(cells) != len(header):
            raise UsageError(f"{where}: {len(cells)} values; expected {len(header)} as the header")
        row = _row({name: cells[index].strip() for name, index in column.items()}, where)
        if row.prompt_tokens + row.output_tokens > most_tokens:
            raise UsageError(
                f"{where}: {row.prompt_tokens} + {row.output_tokens} tokens; expected at most"
                f" {most_tokens}, which is what the smallest engine of the pool holds"
            )
        yield row


def _row(cells: dict[str, str], where: str) -> TraceRow:
    def number(name: str, convert: Callable[[str], float], least: float, expected: str) -> float:
        try:
            value = convert(cells[name])
        except ValueError:
            value = math.nan
        if least <= value < math.inf:
            return value
        raise UsageError(f"{where}: {name} is {cells[name]!r}; expected {expected}")

    return TraceRow(
        number("arrival_s", float, -math.inf, "seconds"),
        int(number("prompt_tokens", int, 1, "a whole number of at least 1")),
        int(number("output_tokens", int, 1, "a whole number of at least 1")),
        cells.get("tenant") or "default",
        int(number("priority", int, -math.inf, "a whole number")) if cells.get("priority") else 0,
    )
