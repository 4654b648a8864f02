"""``header-label-affinity-scorer``: endpoints with the label that a request header asks for."""

from typing import Annotated, TypeAlias

import msgspec
import numpy as np

from epp.core.pool import Column, Mask
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.header_names import header_name
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.scorers.labels import LabelColumn

__all__ = ["HEADER_LABEL_SCORER", "HeaderLabelScorer"]


class HeaderLabelScorer(Observer):
    """``score = 1`` for endpoints whose ``label`` has the value of the request's ``header``, a name
    in lower case; 0 for the others, and for all where the header is missing. Source: the llm-d
    router's ``header-label-affinity-scorer``."""

    def __init__(self, header: str, label: str) -> None:
        self._header = header
        self._labels: LabelColumn[str | None] = LabelColumn(label, lambda value: value)
        self.wanted_headers = (header,)

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        wanted = candidates.request.headers.get(self._header)
        labels = self._labels.of(candidates.pool)
        if wanted is None or wanted not in labels.values:
            return np.zeros(len(candidates))
        has_it: Mask = labels.which[candidates.slots] == labels.values.index(wanted)
        return has_it.astype(np.float64)


_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, description="text that is not empty")]


class HeaderLabelParameters(Parameters, frozen=True, kw_only=True):
    """Of ``header-label-affinity-scorer``."""

    header_name: _Name
    label_key: _Name


def _make(parameters: HeaderLabelParameters, context: PluginContext) -> HeaderLabelScorer:
    header = header_name(parameters.header_name, "headerName", default="")
    if not header:
        raise ValueError("found a blank headerName; expected the name of a header")
    return HeaderLabelScorer(header, parameters.label_key)


HEADER_LABEL_SCORER = PluginDefinition(
    type="header-label-affinity-scorer",
    summary="Prefers endpoints whose label has the value of a request header.",
    make=_make,
    parameters=HeaderLabelParameters,
    explains={
        "headerName": "The request header, in any case.",
        "labelKey": "The label of endpoints that is compared with it.",
    },
)
