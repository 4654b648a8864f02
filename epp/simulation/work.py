"""A sequence in a simulated engine, and who hears of what becomes of it."""

from typing import Protocol

from epp.simulation.prefix_store import Piece, Text

__all__ = ["EngineListener", "Work"]


class Work:
    """A sequence: how many tokens go in and out, and how far it has come.

    ``text`` says what it has in common with others, empty where nothing is cached; ``adapter`` is
    the LoRA adapter that it needs, None for the base model. ``missing`` is how many tokens are to
    be computed before the next one comes out, ``generated`` how many had come out when it was
    admitted last, ``ends_at`` the engine's count of decoded tokens at which the last one does,
    below 0 while it is not decoding. ``cached_tokens`` of the prompt were found in the cache when
    it was admitted first, below 0 until then. ``held`` are the cached pieces that it uses, with
    ``shared_tokens`` of its own tokens.
    """

    __slots__ = ("adapter", "cached_tokens", "ends_at", "generated", "held", "missing",
                 "output_tokens", "prompt_tokens", "shared_tokens", "text")  # fmt: skip

    def __init__(
        self, prompt_tokens: int, output_tokens: int, text: Text = (), adapter: str | None = None
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.text = text
        self.adapter = adapter
        self.missing = prompt_tokens
        self.generated = 0
        self.ends_at = -1
        self.cached_tokens = -1
        self.held: list[Piece] = []
        self.shared_tokens = 0


class EngineListener(Protocol):
    """Who hears of an engine's work."""

    def began(self, work: Work, now: float) -> None:
        """The first token has come out."""

    def ended(self, work: Work, now: float) -> None:
        """The last token has come out."""
