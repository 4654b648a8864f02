"""What is counted of requests that go with another model than their client named."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.core.request import Request
from epp.observability.families import counter

__all__ = ["SKIP_REASONS", "RewriteMetrics"]

SKIP_REASONS: Final = (
    "model-unknown", "request-not-read", "response-not-seen", "response-compressed",
)  # fmt: skip
"""Why something was not rewritten: of requests the first two, of responses the others."""

_MAX_TARGETS: Final = 1_000
_OTHER: Final = "other"


class RewriteMetrics(Collector):
    """Counts by target, at most 1,000 of them; those that come later are counted as ``other``."""

    def __init__(self) -> None:
        self._rewritten: dict[tuple[str], int] = {}
        self._skipped: dict[tuple[str], int] = {(reason,): 0 for reason in SKIP_REASONS}

    def dispatched(self, request: Request) -> None:
        """Count a request that goes, if it goes with another model."""
        if not request.client_model:
            return
        key = (request.model,)
        if key not in self._rewritten and len(self._rewritten) >= _MAX_TARGETS:
            key = (_OTHER,)
        self._rewritten[key] = self._rewritten.get(key, 0) + 1

    def skipped(self, reason: str) -> None:
        """Count what was not rewritten, by one of the reasons."""
        self._skipped[reason,] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield counter(
            "model_rewrites_total",
            "Requests that were sent with another model than their client named, by that model.",
            self._rewritten,
            ("target_model_name",),
        )
        yield counter(
            "model_rewrites_skipped_total",
            "Requests to which no rule could apply, and responses that kept the name of the model"
            " that a rule had put into their request, by reason.",
            self._skipped,
            ("reason",),
        )

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector has these names."""
        return []
