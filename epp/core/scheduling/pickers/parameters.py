"""What can be configured of every picker."""

from typing import Annotated, Final

import msgspec

from epp.core.scheduling.definition import Parameters

__all__ = ["EXPLAINS", "PickerParameters"]


class PickerParameters(Parameters, frozen=True, kw_only=True):
    """Of every picker."""

    max_num_of_endpoints: Annotated[
        int, msgspec.Meta(ge=1, le=64, description="a whole number from 1 to 64")
    ] = 1


EXPLAINS: Final = {
    "maxNumOfEndpoints": "How many endpoints the proxy is told: the first is picked, the others are"
    " to fall back to."
}
"""A sentence for each parameter."""
