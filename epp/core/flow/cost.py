"""What a request costs its flow: estimated before it runs, told by what it used when it has ended.

Costs are whole numbers, so that what was charged and settled adds up to nothing at rest, to the
last token.
"""

from collections import OrderedDict
from typing import Final, TypeAlias

from epp.core.flow.options import CostOptions
from epp.core.gate import Ending
from epp.core.request import Request

__all__ = ["CostModel"]

_MAX_REMEMBERED: Final = 10_000
_LEAST_WEIGHT: Final = 0.1
_MS_PER_S: Final = 1000.0

_Key: TypeAlias = tuple[str, str]


class _Mean:
    """A decayed mean: of the first ten values the plain one, then each new value counts a tenth."""

    __slots__ = ("_count", "value")

    def __init__(self) -> None:
        self._count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        self._count += 1
        self.value += (value - self.value) * max(_LEAST_WEIGHT, 1.0 / self._count)


class CostModel:
    """Estimates, and learns from what has ended.

    The length of an output is expected to be the decayed mean of those of the same flow and model,
    else of the same model, and never more than the request allows. At most 10,000 means are kept,
    those of the last that were learned from.
    """

    def __init__(self, options: CostOptions) -> None:
        self._options = options
        self._is_slot_time = options.unit == "slot-time"
        self._means: OrderedDict[_Key, _Mean] = OrderedDict()
        self._s_per_output_token = _Mean()
        self._s_per_output_token.add(options.s_per_output_token)

    def reconfigure(self, options: CostOptions) -> None:
        """Go by other options from now on; what was learned stays."""
        self._options = options
        self._is_slot_time = options.unit == "slot-time"

    def estimate(self, request: Request) -> int:
        """Return what the request is expected to cost: in tokens by weight, or in ms of a slot."""
        output_tokens = self.output_tokens(request)
        if self._is_slot_time:
            return max(1, round(self._slot_s(request, output_tokens) * _MS_PER_S))
        return self.tokens(request.prompt_tokens, output_tokens)

    def output_tokens(self, request: Request) -> float:
        """Return how many output tokens the request is expected to have."""
        means = self._means
        mean = means.get((request.flow.fairness_id, request.model)) or means.get(
            ("", request.model)
        )
        expected = self._options.default_output_tokens if mean is None else mean.value
        most = request.max_output_tokens
        return expected if most is None else min(expected, most)

    def tokens(self, prompt_tokens: float, output_tokens: float) -> int:
        """Return the cost of so many tokens, at least 1."""
        options = self._options
        weighted = options.prompt_weight * prompt_tokens + options.output_weight * output_tokens
        return max(1, round(weighted))

    def accrued(self, request: Request, output_tokens: int) -> int:
        """Return what a running request has cost by now, as far as its output tells; 0 where the
        cost is not in tokens."""
        return 0 if self._is_slot_time else self.tokens(request.prompt_tokens, output_tokens)

    def settle(self, request: Request, ending: Ending, slot_s: float) -> int:
        """Return what an ended request has cost, and learn from it.

        ``slot_s`` is how long it held capacity, in seconds.
        """
        prompt_tokens = request.prompt_tokens
        if ending.prompt_tokens is not None:
            prompt_tokens = ending.prompt_tokens
        output_tokens = self._actual_output_tokens(request, ending, slot_s)
        if ending.cause == "complete" and ending.status < 400:
            self._learn(request, ending, slot_s, output_tokens)
        if self._is_slot_time:
            return max(1, round(slot_s * _MS_PER_S))
        return self.tokens(prompt_tokens, output_tokens)

    def _actual_output_tokens(self, request: Request, ending: Ending, slot_s: float) -> float:
        if ending.output_tokens is not None:
            return ending.output_tokens
        if ending.status >= 400:
            return 0
        decoding_s = slot_s - request.prompt_tokens / self._options.prefill_tokens_per_s
        tokens = max(0.0, decoding_s / self._s_per_output_token.value)
        most = request.max_output_tokens
        return tokens if most is None else min(tokens, most)

    def _learn(self, request: Request, ending: Ending, slot_s: float, output_tokens: float) -> None:
        if ending.output_tokens:
            decoding_s = slot_s - request.prompt_tokens / self._options.prefill_tokens_per_s
            if decoding_s > 0:
                self._s_per_output_token.add(decoding_s / ending.output_tokens)
        for key in ((request.flow.fairness_id, request.model), ("", request.model)):
            mean = self._means.get(key)
            if mean is None:
                mean = self._means[key] = _Mean()
                if len(self._means) > _MAX_REMEMBERED:
                    self._means.popitem(last=False)
            else:
                self._means.move_to_end(key)
            mean.add(output_tokens)

    def _slot_s(self, request: Request, output_tokens: float) -> float:
        prefill_s = request.prompt_tokens / self._options.prefill_tokens_per_s
        return prefill_s + output_tokens * self._s_per_output_token.value
