"""All scheduling plugin types that come with this project."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from epp.core.scheduling.definition import PluginDefinition
from epp.core.scheduling.filters.endpoint_attribute import ENDPOINT_ATTRIBUTE_FILTER
from epp.core.scheduling.filters.labels import (
    BY_LABEL,
    BY_LABEL_SELECTOR,
    LABEL_SELECTOR_FILTER,
)
from epp.core.scheduling.filters.prefix_affinity import PREFIX_CACHE_AFFINITY_FILTER
from epp.core.scheduling.filters.roles import DECODE_FILTER, ENCODE_FILTER, PREFILL_FILTER
from epp.core.scheduling.filters.utilization import UTILIZATION_FILTER
from epp.core.scheduling.handlers import HEADER_PROFILE_HANDLER, SINGLE_PROFILE_HANDLER
from epp.core.scheduling.in_flight import IN_FLIGHT_PRODUCER
from epp.core.scheduling.pickers.max_score import MAX_SCORE_PICKER
from epp.core.scheduling.pickers.random import RANDOM_PICKER
from epp.core.scheduling.pickers.weighted_random import WEIGHTED_RANDOM_PICKER
from epp.core.scheduling.prefix_cache import PREFIX_CACHE
from epp.core.scheduling.scorers.context_length import CONTEXT_LENGTH_AWARE
from epp.core.scheduling.scorers.endpoint_attribute import ENDPOINT_ATTRIBUTE_SCORER
from epp.core.scheduling.scorers.first_token import FIRST_TOKEN_SCORER
from epp.core.scheduling.scorers.header_label import HEADER_LABEL_SCORER
from epp.core.scheduling.scorers.in_flight import ACTIVE_REQUEST_SCORER, TOKEN_LOAD_SCORER
from epp.core.scheduling.scorers.kv_cache import KV_CACHE_SCORER
from epp.core.scheduling.scorers.load_aware import LOAD_AWARE_SCORER
from epp.core.scheduling.scorers.lora_affinity import LORA_AFFINITY_SCORER
from epp.core.scheduling.scorers.no_hit_lru import NO_HIT_LRU_SCORER
from epp.core.scheduling.scorers.prefix_cache import PREFIX_CACHE_SCORER
from epp.core.scheduling.scorers.queue import QUEUE_SCORER, RUNNING_REQUESTS_SCORER
from epp.core.scheduling.session import (
    SESSION_AFFINITY_FILTER,
    SESSION_AFFINITY_SCORER,
    SESSION_ID_PRODUCER,
)

__all__ = ["CATALOGUE"]

_DEFINITIONS: Final = (
    # Filters
    LABEL_SELECTOR_FILTER,
    BY_LABEL_SELECTOR,
    BY_LABEL,
    DECODE_FILTER,
    PREFILL_FILTER,
    ENCODE_FILTER,
    PREFIX_CACHE_AFFINITY_FILTER,
    UTILIZATION_FILTER,
    ENDPOINT_ATTRIBUTE_FILTER,
    SESSION_AFFINITY_FILTER,
    # Scorers
    FIRST_TOKEN_SCORER,
    SESSION_AFFINITY_SCORER,
    QUEUE_SCORER,
    RUNNING_REQUESTS_SCORER,
    KV_CACHE_SCORER,
    LOAD_AWARE_SCORER,
    TOKEN_LOAD_SCORER,
    ACTIVE_REQUEST_SCORER,
    PREFIX_CACHE_SCORER,
    LORA_AFFINITY_SCORER,
    NO_HIT_LRU_SCORER,
    CONTEXT_LENGTH_AWARE,
    HEADER_LABEL_SCORER,
    ENDPOINT_ATTRIBUTE_SCORER,
    # Pickers
    MAX_SCORE_PICKER,
    RANDOM_PICKER,
    WEIGHTED_RANDOM_PICKER,
    # Profile handlers
    SINGLE_PROFILE_HANDLER,
    HEADER_PROFILE_HANDLER,
    # Producers
    PREFIX_CACHE,
    IN_FLIGHT_PRODUCER,
    SESSION_ID_PRODUCER,
)

CATALOGUE: Final[Mapping[str, PluginDefinition]] = MappingProxyType(
    {definition.type: definition for definition in _DEFINITIONS}
)
"""By type."""
