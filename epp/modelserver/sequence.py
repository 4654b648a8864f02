"""What goes into an engine, what comes out of it, and what it remembers of a request in between."""

from collections.abc import Sequence as Seq
from typing import Literal

import msgspec

__all__ = ["EngineRequest", "FinishReason", "Sequence", "StepResult", "TokenEvent"]

FinishReason = Literal["stop", "length"]


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One generation: how many tokens go in and out, and what they have in common with others.

    ``request_id`` is unique among the unfinished requests of the engine. ``block_hashes`` holds one
    hash per full block of prompt and output together, each covering all tokens up to the block's
    end (and the adapter); it may be shorter, the rest is then not cached. ``finish_reason`` is what
    the last token carries.
    """

    request_id: str
    prompt_tokens: int
    output_tokens: int
    block_hashes: Seq[int] = ()
    adapter: str | None = None
    finish_reason: FinishReason = "length"


class TokenEvent(msgspec.Struct, frozen=True, gc=False):
    """A request got one more output token; ``finish_reason`` is set on its last one."""

    request_id: str
    finish_reason: FinishReason | None = None


class StepResult(msgspec.Struct, frozen=True):
    """What one call of ``Engine.step`` brought.

    ``tokens`` came out of the iteration that ended, at most one per request; ``started`` are the
    requests that got a slot for the first time in the iteration that began.
    """

    tokens: list[TokenEvent]
    started: list[str]


class Sequence(msgspec.Struct, eq=False):
    """A request inside the engine. Times are in the engine's seconds, NaN until they are known."""

    request: EngineRequest
    arrived_at: float
    last_token_at: float = float("nan")
    generated: int = 0
    computed: int = 0  # tokens whose KV is in ``blocks``
    published: int = 0  # full blocks already offered to the prefix cache
    blocks: list[int] = []
    has_started: bool = False
    is_alive: bool = True

    @property
    def missing(self) -> int:
        """How many known tokens have no KV yet: one while decoding, more during prefill."""
        return self.request.prompt_tokens + self.generated - self.computed

    @property
    def is_decoding(self) -> bool:
        """Whether its next iteration is one token of decode and not (re)computation of a prompt."""
        return self.generated > 0 and self.missing == 1
