"""What an engine says of its load."""

import msgspec

__all__ = ["EngineLoad"]


class EngineLoad(msgspec.Struct, frozen=True, gc=False):
    """The state of a model server at one moment, as it tells it itself.

    ``waiting`` and ``running`` are requests in its own queue and in its batch, ``kv_ratio`` is the
    share of its KV cache in use, 0 to 1.
    """

    waiting: float
    running: float
    kv_ratio: float
