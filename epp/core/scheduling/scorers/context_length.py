"""``context-length-aware``: endpoints that are made for prompts of about this length.

A label of the endpoint says for which, as ``min-max`` in tokens. As a scorer this prefers those
whose range the prompt is in, the narrower the better and the further below its end; as a filter,
where that is enabled, it takes the others out. Source of label and formula: the llm-d router's
``context-length-aware``.
"""

from collections.abc import Hashable
from typing import Annotated, Final, Protocol

import msgspec
import numpy as np

from epp.core.pool import Column, Mask, Pool
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.scorers.labels import LabelColumn

__all__ = ["CONTEXT_LENGTH_AWARE", "CONTEXT_LENGTH_LABEL", "ContextLengthAware", "TokenRange"]

CONTEXT_LENGTH_LABEL: Final = "llm-d.ai/context-length-range"
_UNLABELLED: Final = 0.5
_FITS: Final = 0.3
_WIDTH_TOKENS: Final = 10_000.0
_DISTANCE_TOKENS: Final = 1_000.0
_MOST_DIGITS: Final = 15


class _Lengths(Protocol):
    """The prompts that an endpoint is made for."""

    def score(self, tokens: int) -> float:
        """Return how well a prompt of so many tokens fits, 0 to 1."""
        ...

    def __contains__(self, tokens: int) -> bool:
        """Return whether it is one of them."""
        ...


class TokenRange(msgspec.Struct, frozen=True):
    """Prompts from ``low`` to ``high`` tokens, both included."""

    low: int
    high: int

    def score(self, tokens: int) -> float:
        """Return how well a prompt of so many tokens fits, 0 to 1.

        In the range it is ``0.3 + 0.7 * raw`` with ``raw = 0.7 / (1 + width / 10000) + 0.3 * (high
        - tokens) / width``, and 1 where the width is 0; outside ``0.3 / (1 + distance / 1000)``.
        """
        if tokens not in self:
            distance = max(self.low - tokens, tokens - self.high)
            return _FITS / (1.0 + distance / _DISTANCE_TOKENS)
        width = self.high - self.low
        if not width:
            return 1.0
        raw = 0.7 / (1.0 + width / _WIDTH_TOKENS) + 0.3 * (self.high - tokens) / width
        return _FITS + (1.0 - _FITS) * raw

    def __contains__(self, tokens: int) -> bool:
        return self.low <= tokens <= self.high


class _Unlabelled:
    """An endpoint that does not say takes prompts of every length."""

    def score(self, tokens: int) -> float:
        return _UNLABELLED

    def __contains__(self, tokens: int) -> bool:
        return True


class _Unreadable:
    """One that says something else takes none: it was meant for some, nobody knows which."""

    def score(self, tokens: int) -> float:
        return 0.0

    def __contains__(self, tokens: int) -> bool:
        return False


def _read(text: str | None) -> _Lengths:
    if text is None:
        return _Unlabelled()
    parts = [part.strip() for part in text.split("-")]
    if len(parts) != 2 or not all(map(_is_number, parts)):
        return _Unreadable()
    low, high = map(int, parts)
    return TokenRange(low, high) if low <= high else _Unreadable()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


class ContextLengthAware:
    """Scores by the range of ``label``; filters by it where ``filters`` says so."""

    def __init__(self, label: str = CONTEXT_LENGTH_LABEL, *, filters: bool = False) -> None:
        self._filters = filters
        self._lengths: LabelColumn[_Lengths] = LabelColumn(label, _read)

    def score(self, candidates: Candidates) -> Column:
        """Return the scores: those of :meth:`TokenRange.score`, 0.5 for an endpoint without the
        label, 0 for one whose label is no range."""
        tokens = candidates.request.prompt_tokens
        lengths = self._lengths.of(candidates.pool)
        scores = np.array([each.score(tokens) for each in lengths.values])
        return scores[lengths.which[candidates.slots]]

    def filter(self, candidates: Candidates) -> Mask:
        """Return the mask of those that the prompt fits, and those without the label; all where
        filtering is not enabled."""
        if not self._filters:
            return np.ones(len(candidates), dtype=np.bool_)
        tokens = candidates.request.prompt_tokens
        lengths = self._lengths.of(candidates.pool)
        fits = np.array([tokens in each for each in lengths.values], dtype=np.bool_)
        return fits[lengths.which[candidates.slots]]

    def kind(self, request: Request, pool: Pool) -> Hashable:
        """Return which of the ranges that there are the prompt is in; the same for all where
        filtering is not enabled."""
        if not self._filters:
            return None
        return tuple([request.prompt_tokens in each for each in self._lengths.of(pool).values])

    def kinds_follow(self, pool: Pool) -> Hashable:
        """Return which ranges there are, by a number that grows."""
        return self._lengths.of(pool).generation if self._filters else None


class ContextLengthParameters(Parameters, frozen=True, kw_only=True):
    """Of ``context-length-aware``."""

    label: Annotated[str, msgspec.Meta(min_length=1, description="text that is not empty")] = (
        CONTEXT_LENGTH_LABEL
    )
    enable_filtering: Annotated[bool, msgspec.Meta(description="true or false")] = False


def _make(parameters: ContextLengthParameters, context: PluginContext) -> ContextLengthAware:
    return ContextLengthAware(parameters.label, filters=parameters.enable_filtering)


CONTEXT_LENGTH_AWARE = PluginDefinition(
    type="context-length-aware",
    summary="Prefers endpoints that are labelled for prompts of about this length; can take the"
    " others out.",
    make=_make,
    parameters=ContextLengthParameters,
    explains={
        "label": 'The label of endpoints with the range, "min-max" in tokens.',
        "enableFiltering": "Whether endpoints are taken out whose range the prompt is not in. A"
        " request that no endpoint is left for waits.",
    },
)
