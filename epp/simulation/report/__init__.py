"""The report on simulations: one HTML file with tables and plots.

It needs no network, no script and no library: the plots are inline SVG.
"""

from collections.abc import Sequence
from pathlib import Path

from epp.errors import UsageError
from epp.simulation.report.page import page_of
from epp.simulation.result import SimulationResult

__all__ = ["write_report"]


def write_report(results: Sequence[SimulationResult], path: Path) -> None:
    """Write the report on these runs to a file; the same runs give the same bytes.

    Runs of one scenario are compared by policy; several runs under one policy are its seeds.
    Raises :class:`UsageError` where the file cannot be written.
    """
    page = page_of(results)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report to {path}: {error.strerror}") from None
