"""What the samples of an engine's page say of its load.

What a series stands for depends on its labels, which hardly ever change from one page to the next.
So a :class:`Layout` works that out once, and is then asked with the values of each page.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from epp.config.metric_spec import MetricSpec
from epp.config.scrape import Aggregation, EngineMap
from epp.core.pool import EngineLoad
from epp.engines.quantities import Labelled, Quantity, quantity_of
from epp.engines.samples import Sample, are_labels, labels_in

__all__ = ["Layout"]

_MOST_SHARE: Final = 1.01
"""A share that is as little above 1 was rounded; what is above that is no share."""

_MOST_SERIES: Final = 1024
_MOST_ADAPTERS: Final = 4096
_MOST_BLOCK_TOKENS: Final = 1 << 20
_MOST_BLOCKS: Final = 1 << 40
_MOST_DIGITS: Final = 15

_AGGREGATIONS: Final[Mapping[Aggregation, Callable[[Quantity, Sequence[float]], float]]] = {
    "sum": Quantity.sum,
    "mean": Quantity.mean,
    "max": Quantity.largest,
}

_NO_MODELS: Final[frozenset[str]] = frozenset()
_NO_ADAPTERS: Final[tuple[frozenset[str], frozenset[str], int]] = (frozenset(), frozenset(), 0)


class Layout:
    """What each of the samples that were found in a page means to one kind of engine."""

    def __init__(self, engine: EngineMap, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._known_labels: dict[bytes, Mapping[str, str] | None] = {}
        self._families: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            self._families.setdefault(sample.name.decode(), []).append(index)
        self._waiting = self._quantity(engine.waiting)
        self._running = self._quantity(engine.running)
        self._kv_ratio = self._quantity(engine.kv_ratio)
        self._started = self._quantity(engine.started)
        self._attributes = [
            (each.attribute, _AGGREGATIONS[each.aggregation], self._quantity((each.metric,)))
            for each in engine.attributes
        ]
        self._base_models = self._models_of(engine.running)
        self._adapters = self._adapter_series(engine.adapters)
        self._newest_adapters = -1, _NO_ADAPTERS
        self._info = self._cache_info(engine)
        self._block_tokens = self._quantity(engine.block_tokens)
        self._cache_blocks = self._quantity(engine.cache_blocks)

    def load(self, values: Sequence[float]) -> EngineLoad | None:
        """Return the load that these values of the samples tell; None where they tell neither how
        many requests wait nor how many run.

        Requests are added up over ranks. The use of the KV cache is the mean of theirs, which is
        the share of all of it where they are equal: the server spreads requests over its ranks, so
        one that is full does not make the server full, as the largest would say.
        """
        waiting, running = _told(self._waiting.sum(values)), _told(self._running.sum(values))
        if math.isnan(waiting) and math.isnan(running):
            return None
        active, waiting_adapters, most_adapters = self._adapters_of(values)
        block_tokens, cache_blocks = self._info
        return EngineLoad(
            waiting=waiting,
            running=running,
            kv_ratio=self._kv_share(values),
            active_adapters=active,
            waiting_adapters=waiting_adapters,
            max_adapters=most_adapters,
            base_models=self._base_models if most_adapters else _NO_MODELS,
            block_tokens=block_tokens
            or _whole(self._block_tokens.only(values), _MOST_BLOCK_TOKENS),
            cache_blocks=cache_blocks or _whole(self._cache_blocks.sum(values), _MOST_BLOCKS),
            started_s=_told(self._started.largest(values)),
            attributes={
                name: number
                for name, aggregate, quantity in self._attributes
                if math.isfinite(number := aggregate(quantity, values))
            },
        )

    def _kv_share(self, values: Sequence[float]) -> float:
        largest = self._kv_ratio.largest(values)
        return min(self._kv_ratio.mean(values), 1.0) if largest <= _MOST_SHARE else math.nan

    def _adapters_of(self, values: Sequence[float]) -> tuple[frozenset[str], frozenset[str], int]:
        """Return the adapters of the requests that run, of those that wait, and how many can be
        loaded, by the series with the largest value.

        vLLM keeps every series that it ever had. The value is when it was true last.
        """
        if not self._adapters or any(math.isnan(values[index]) for index in self._adapters):
            return _NO_ADAPTERS
        newest = max(self._adapters, key=values.__getitem__)
        if newest != self._newest_adapters[0]:
            self._newest_adapters = newest, _adapters_in(self._samples[newest].labels)
        told = self._newest_adapters[1]
        labels = self._samples[newest].labels
        rivals = (i for i in self._adapters if values[i] == values[newest])
        return told if all(self._samples[i].labels == labels for i in rivals) else _NO_ADAPTERS

    def _models_of(self, specs: Sequence[MetricSpec]) -> frozenset[str]:
        """Return the models that the series are labelled with: engines count the requests for
        adapters under the base model."""
        names = ((labels or {}).get("model_name", "") for _, labels in self._series(specs))
        return frozenset(filter(None, names))

    def _cache_info(self, engine: EngineMap) -> tuple[int, int]:
        """Return the size and number of blocks by the labels of a series, 0 where they do not tell.

        Ranks have caches of their own, and together as many blocks as they have.
        """
        series = self._series(engine.cache_info)
        quantity = quantity_of(series)
        found = []
        for label in (engine.block_tokens_label, engine.cache_blocks_label):
            values = [math.nan] * len(self._samples)
            for index, labels in series:
                is_sound = not math.isnan(self._samples[index].value)
                values[index] = _number_of(labels, label) if is_sound else math.nan
            found.append(values)
        return (
            _whole(quantity.only(found[0]), _MOST_BLOCK_TOKENS),
            _whole(quantity.sum(found[1]), _MOST_BLOCKS),
        )

    def _quantity(self, specs: Sequence[MetricSpec]) -> Quantity:
        return quantity_of(self._series(specs))

    def _series(self, specs: Sequence[MetricSpec]) -> list[Labelled]:
        """Return the series of the first spec that has any; those that cannot be read have any
        labels. More than 1,024 of a metric cannot be read, as if they were one."""
        for spec in specs:
            found: list[Labelled] = []
            named = self._named(spec)
            if len(named) > _MOST_SERIES:
                return [(named[0], None)]
            for index in named:
                labels = self._labels(index)
                if labels is None or all(labels.get(name) == value for name, value in spec.labels):
                    found.append((index, labels))
            if found:
                return found
        return []

    def _adapter_series(self, specs: Sequence[MetricSpec]) -> list[int]:
        """Return where the series of the adapters are, nothing where one of them cannot be read:
        it might be the newest. There can be thousands, so their labels are not taken apart."""
        if any(spec.labels for spec in specs):
            found = [index for index, _ in self._series(specs)]
        else:
            found = next(filter(None, map(self._named, specs)), [])
        labels = (self._samples[index].labels for index in found)
        return found if all(text is not None and are_labels(text) for text in labels) else []

    def _named(self, spec: MetricSpec) -> list[int]:
        return self._families.get(spec.name) or self._families.get(f"{spec.name}_total", [])

    def _labels(self, index: int) -> Mapping[str, str] | None:
        text = self._samples[index].labels
        if text is None:
            return None
        if text not in self._known_labels:
            self._known_labels[text] = labels_in(text)
        return self._known_labels[text]


def _adapters_in(text: bytes | None) -> tuple[frozenset[str], frozenset[str], int]:
    labels = None if text is None else labels_in(text)
    if labels is None:
        return _NO_ADAPTERS
    names = [
        frozenset(filter(None, map(str.strip, labels.get(label, "").split(","))))
        for label in ("running_lora_adapters", "waiting_lora_adapters")
    ]
    if any(len(each) > _MOST_ADAPTERS for each in names):
        return _NO_ADAPTERS
    return names[0], names[1], _whole(_number_of(labels, "max_lora"), _MOST_ADAPTERS)


def _number_of(labels: Mapping[str, str] | None, label: str) -> float:
    digits = (labels or {}).get(label, "")
    is_number = len(digits) <= _MOST_DIGITS and digits.isascii() and digits.isdigit()
    return float(digits) if is_number else math.nan


def _whole(number: float, most: int) -> int:
    """Return a whole number from 1 to ``most``; 0, which is "not told", for what is none."""
    return int(number) if 1 <= number <= most and number.is_integer() else 0


def _told(number: float) -> float:
    """Return the number, or the one NaN that is equal to itself where loads are compared."""
    return number if math.isfinite(number) else math.nan
